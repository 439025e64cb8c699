"""A real Airflow behind a path, real users and a real Chromium."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.conftest import unhurried
from tests.ui.auth_manager import PASSWORDS

REPOSITORY = Path(__file__).parent.parent.parent
PREFIX = "/team/airflow"

MILLISECONDS = 1000 * PATIENCE
"""How long the browser's waits may take."""

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
HINT = "Chromium is missing (Debian: apt-get install chromium; elsewhere: CHROMIUM=/path/to/it)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a browser where there is none, unless the environment says that it must not be skipped."""
    if CHROMIUM or os.environ.get("REQUIRE_BROWSER"):
        return
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=HINT))


@pytest.fixture(scope="session")
def sandbox_for_all() -> Iterator[Sandbox]:
    with Sandbox(duration=2.0) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def held() -> Iterator[Sandbox]:
    """A sandbox whose jobs end only when the test says so; the connection ``modelslab_held``."""
    with Sandbox(duration=float("inf")) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def media_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, sandbox_for_all: Sandbox, held: Sandbox, media_root: Path
) -> Iterator[AirflowInstance]:
    home = tmp_path_factory.mktemp("airflow")
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps(PASSWORDS))
    env = {
        "AIRFLOW_CONN_MODELSLAB_DEFAULT": sandbox_for_all.connection,
        "AIRFLOW_CONN_MODELSLAB_HELD": unhurried(held.connection),
        "AIRFLOW__CORE__AUTH_MANAGER": "tests.ui.auth_manager.PerDagAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer,stranger:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__MODELSLAB__MEDIA_ROOTS": f"{media_root}",
        "AIRFLOW__MODELSLAB__TAB": "True",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }
    dags = REPOSITORY / "tests/ui/dags"
    with AirflowInstance(home, dags, env, login=("admin", PASSWORDS["admin"]), path=PREFIX) as instance:
        yield instance


@pytest.fixture(scope="session")
def site(airflow: AirflowInstance) -> str:
    """Where users find this Airflow, without a slash at the end."""
    return airflow.url


@pytest.fixture(scope="session")
def token_of(site: str) -> Callable[[str], str]:
    """Log a user in."""
    tokens: dict[str, str] = {}

    def log_in(user: str) -> str:
        if user not in tokens:
            reply = requests.post(
                f"{site}/auth/token", json={"username": user, "password": PASSWORDS[user]}, timeout=PATIENCE
            )
            tokens[user] = reply.json()["access_token"]
        return tokens[user]

    return log_in


@pytest.fixture
def visit(site: str, token_of: Callable[[str], str]) -> Callable[..., requests.Response]:
    """Ask for something of the plugin as one of the users, or as nobody."""

    def ask(
        part: str, user: str | None = "viewer", headers: dict[str, str] | None = None, /, **query: Any
    ) -> requests.Response:
        cookies = {"_token": token_of(user)} if user else {}
        return requests.get(
            f"{site}/modelslab/{part}",
            params=query,
            cookies=cookies,
            headers=headers,
            timeout=PATIENCE,
            allow_redirects=False,
        )

    return ask


@pytest.fixture(scope="session")
def tell(airflow: AirflowInstance) -> Callable[..., str]:
    """Run a task that pushes XComs, and return the id of the run once it has ended."""

    def run(dag_id: str = "told", wait: bool = True, **conf: Any) -> str:
        run_id = airflow.trigger(dag_id, conf)
        if wait:
            assert airflow.wait_for_run(dag_id, run_id) == "success"
        return run_id

    return run


def page_url(site: str, dag_id: str, run_id: str, task_id: str | None = None, map_index: int | None = None) -> str:
    """Return the address of the page "Outputs"."""
    query = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    return f"{site}/modelslab/outputs?{urlencode({name: value for name, value in query.items() if value is not None})}"


def wait_for(page: Any, expression: str) -> None:
    """Wait until JavaScript returns something true; Playwright's own way needs an ``eval`` that the page forbids."""
    deadline = time.monotonic() + PATIENCE
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"{expression} has not come true"
        page.wait_for_timeout(100)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    assert CHROMIUM, HINT
    with sync_playwright() as playwright:
        # As root, as in containers, Chromium runs only without its own sandbox.
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--no-proxy-server"]
        expect.set_options(timeout=MILLISECONDS)
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=MILLISECONDS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, site: str, token_of: Callable[[str], str]) -> Iterator[Callable[..., Any]]:
    """Open an address in a browser in which a user is logged in; a script error on the page fails the test."""
    contexts: list[Any] = []
    errors: list[str] = []

    def open_(url: str, user: str = "viewer", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        context.set_default_timeout(MILLISECONDS)
        context.add_cookies([{"name": "_token", "value": token_of(user), "url": site}])
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []
