"""
A stranger's first hour, timed: what ``make first-hour`` runs.

It does what README.md says, with the commands and the DAG that stand there, until a real Chromium shows a picture:

- in a plain Airflow, as it was a few days after its release: the wheel of this clone is installed there with pip,
  ``airflow standalone`` runs, and the connection is the one that the sandbox prints;
- in a fresh clone: ``make demo``, then ``make airflow`` and one of the example DAGs.

It prints what each step took, and keeps a screenshot of each picture. Exit status 1 where a step fails or the picture
comes later than after ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import requests
from airflow_instance.processes import end_trees
from playwright.sync_api import Error, Frame, Page, sync_playwright

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
UV = REPOSITORY / ".venv-uv" / "bin" / "uv"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

AIRFLOWS = {
    "3.2": ("2026-06-01", ["apache-airflow==3.2.2"]),
    "3.3": ("2026-09-20", ["apache-airflow==3.3.2"]),
    # uv accepts a pre-release only where it is named.
    "3.4": (
        "2026-10-25",
        ["apache-airflow==3.4.0b2", "apache-airflow-core==3.4.0b2", "apache-airflow-task-sdk==1.4.0b2"],
    ),
}
"""The releases of Airflow to try, each with the day as of which its dependencies are taken: as in constraint files."""

URL = "http://127.0.0.1:8080"
"""Where both ``airflow standalone`` and ``make airflow`` have their UI."""

CLONE = "clone"

LONGEST_HOUR = 600.0
"""Seconds within which the picture must be there."""

LONGEST_STEP = 300.0
"""Seconds that one step in the browser may take."""


def main() -> int:
    """Go the chosen ways, print the table, and return 1 where one takes too long."""
    parser = argparse.ArgumentParser(description="Do what the README says until a browser shows a picture.")
    parser.add_argument("--airflow", nargs="*", choices=AIRFLOWS, default=["3.2", "3.3"], metavar="VERSION")
    parser.add_argument("--clone", action=argparse.BooleanOptionalAction, default=True, help="also in a fresh clone")
    parser.add_argument("--pictures", type=Path, default=Path(tempfile.gettempdir()), help="where screenshots go")
    chosen = parser.parse_args()
    ways = [*chosen.airflow, *([CLONE] if chosen.clone else [])]
    totals: dict[str, float] = {}
    for way in ways:
        watch = Watch(way)
        with tempfile.TemporaryDirectory(prefix="first-hour-") as folder:
            go = in_a_clone if way == CLONE else in_a_plain_airflow
            go(watch, Path(folder), chosen.pictures / f"first-hour-{way}.png")
        totals[way] = watch.total
        print(f"| {way} | **until the picture is seen** | **{watch.total:.0f}** |", flush=True)
    return int(max(totals.values()) > LONGEST_HOUR)


class Watch:
    """
    Times the steps of one way, and prints each as a row of a table.

    :param way: the name of the way.
    """

    def __init__(self, way: str) -> None:
        self.way = way
        self.total = 0.0
        print("\n| way | step | s |\n|---|---|---|", flush=True)

    @contextmanager
    def step(self, name: str, counts: bool = True) -> Iterator[None]:
        """
        Time a step.

        :param name: what is done.
        :param counts: whether the stranger does it; otherwise it was there before.
        """
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        self.total += seconds if counts else 0.0
        print(f"| {self.way} | {name if counts else f'({name})'} | {seconds:.0f} |", flush=True)


# --- the ways ---------------------------------------------------------------------------------------------


def in_a_plain_airflow(watch: Watch, folder: Path, picture: Path) -> None:
    """Install the wheel into an Airflow that is there already, and generate a picture with the sandbox."""
    python, home = folder / "python", folder / "airflow"
    env = environment(PATH=f"{python / 'bin'}{os.pathsep}{os.environ['PATH']}", AIRFLOW_HOME=str(home))
    with watch.step("there before: a plain Airflow", counts=False):
        day, packages = AIRFLOWS[watch.way]
        run(UV, "venv", "--quiet", "--seed", "--python", sys.executable, python)
        run(
            UV, "pip", "install", "--quiet", "--python", python, "--exclude-newer", day, "--compile-bytecode", *packages
        )
        run("airflow", "db", "migrate", env=env)
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=REPOSITORY)
    (wheel,) = folder.glob("*.whl")
    with watch.step("`pip install` of the wheel"):
        install = command("pip install").replace("airflow-provider-modelslab", str(wheel))
        run(*shlex.split(install), env=env)
    with ExitStack() as services:
        with watch.step("start the sandbox"):
            sandbox = services.enter_context(
                serving(command("python -m airflow_provider_modelslab.sandbox"), folder / "sandbox.log", env=env)
            )
            connect = sandbox.line("airflow connections add ")
        with watch.step("`airflow connections add` as the sandbox prints it"):
            run(*shlex.split(connect), env=env)
        with watch.step("save the DAG"):
            (home / "dags").mkdir(exist_ok=True)
            (home / "dags" / "lighthouse.py").write_text(first_dag())
        with watch.step("start Airflow again"):
            airflow = services.enter_context(serving("airflow standalone", folder / "airflow.log", env=env))
            airflow.wait_for(answers)
        passwords = json.loads((home / "simple_auth_manager_passwords.json.generated").read_text())
        see(watch, airflow, ("lighthouse", "draw"), picture, passwords["admin"])


def in_a_clone(watch: Watch, folder: Path, picture: Path) -> None:
    """Clone the repository, run the demo, and generate a picture in the Airflow of ``make airflow``."""
    clone, env = folder / "clone", environment()
    with watch.step("`git clone`"):
        run("git", "clone", "--quiet", REPOSITORY, clone)
    with watch.step("`make demo`, which installs Airflow"):
        run(*shlex.split(command("make demo")), cwd=clone, env=env)
    with ExitStack() as services:
        with watch.step("`make airflow`"):
            airflow = services.enter_context(
                serving(command("make airflow"), folder / "airflow.log", env=env, cwd=clone)
            )
            airflow.line("Ctrl-C stops everything.")
        see(watch, airflow, ("modelslab_stored_picture", "draw"), picture)


# --- what the README says ---------------------------------------------------------------------------------


def command(start: str) -> str:
    """Return the one command of the README that starts like that, without its comment."""
    (line,) = re.findall(rf"^(?:\$ )?({re.escape(start)}\b.*)", README.read_text(), re.MULTILINE)
    return re.sub(r"\s+#.*", "", line)


def first_dag() -> str:
    """Return the first Python block of the README."""
    first, *_ = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return str(first)


# --- processes --------------------------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a stranger, who has none of ours active and no settings of Airflow."""
    ours = ("AIRFLOW_", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more


def run(*words: object, **options: Any) -> None:
    """
    Run a command to its end.

    :raises SystemExit: with all that it has printed, if it fails.
    """
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, words))} failed:\n{done.stdout}\n{done.stderr}")


class Service:
    """
    A command that goes on.

    :param process: it.
    :param log: what it prints.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def wait_for(self, condition: Callable[[], T | None]) -> T:
        """
        Wait until a condition returns something true.

        :raises SystemExit: with all that the command has printed, if it ends before, or if it takes too long.
        """
        deadline = time.monotonic() + LONGEST_STEP
        while self.process.poll() is None and time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.2)
        sys.exit(f"{self.process.args!r} does not go on:\n{self.log.read_text()}")

    def line(self, start: str) -> str:
        """Wait for a line that starts like that."""

        def printed() -> str | None:
            lines = self.log.read_text().splitlines()
            return next((line for line in lines if line.startswith(start)), None)

        return self.wait_for(printed)


@contextmanager
def serving(command_line: str, log: Path, **options: Any) -> Iterator[Service]:
    """Start a command that goes on, and end it with all its processes."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            shlex.split(command_line), stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options
        )
    try:
        yield Service(process, log)
    finally:
        end_trees([process], grace=20.0)


def answers() -> bool:
    """Tell whether the UI is there."""
    with suppress(requests.RequestException):
        return requests.get(f"{URL}/api/v2/version", timeout=5).ok
    return False


# --- the browser ------------------------------------------------------------------------------------------


def see(watch: Watch, airflow: Service, task: tuple[str, str], picture: Path, password: str | None = None) -> None:
    """
    Trigger a DAG in the UI, wait for a task, press its link "Outputs", and look at the picture.

    :param watch: times it.
    :param airflow: the Airflow.
    :param task: the ids of DAG and task.
    :param picture: where a screenshot goes.
    :param password: that of the user ``admin``, where there is a login.
    """
    dag_id, task_id = task
    with sync_playwright() as playwright:
        # As root, as in containers, Chromium runs only without its own sandbox.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server"])
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(60_000)
        with watch.step("find the DAG in the UI" if password is None else "log in, and find the DAG in the UI"):
            page.goto(f"{URL}/dags/{dag_id}")
            if password is not None:
                page.get_by_label("Username").fill("admin")
                page.locator("input[type=password]").fill(password)
                page.get_by_role("button", name="Sign in").click()
                page.wait_for_url(f"{URL}/**/{dag_id}")
            airflow.wait_for(lambda: shown(page, f"dags/{dag_id}", 'button:has-text("Trigger")'))
        with watch.step("press *Trigger*, wait for the task"):
            page.get_by_role("button", name="Trigger").first.click()
            with page.expect_response(f"**/dags/{dag_id}/dagRuns", timeout=60_000) as reply:
                page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
            task_page = f"dags/{dag_id}/runs/{quote(reply.value.json()['dag_run_id'])}/tasks/{task_id}"
            airflow.wait_for(lambda: shown(page, task_page, 'text="Success"'))
        with watch.step("press *Outputs* under *Details*, see the picture"):
            page.get_by_role("link", name="Details").click()
            page.get_by_role("link", name="Outputs", exact=True).first.click()
            airflow.wait_for(lambda: any(map(shows_a_picture, page.frames)))
        page.screenshot(path=picture)
        chromium.close()
    print(f"Screenshot: {picture}", flush=True)


def shown(page: Page, address: str, selector: str) -> bool:
    """Open a page of the UI, and tell whether it soon shows something: it may not know of it yet."""
    with suppress(Error):
        page.goto(f"{URL}/{address}")
        page.locator(selector).first.wait_for(timeout=10_000)
        return True
    return False


def shows_a_picture(frame: Frame) -> bool:
    """Tell whether the page "Outputs", which may stand in a frame, has loaded its picture."""
    with suppress(Error):
        return bool(frame.evaluate("[...document.querySelectorAll('.card img')].some((image) => image.naturalWidth)"))
    return False


if __name__ == "__main__":
    sys.exit(main())
