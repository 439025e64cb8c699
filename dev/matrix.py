"""
The tests on every supported Airflow with every Python that is present, as one table.

Each pair gets an environment of its own below ``.venv-matrix``, installed from the lock of that Airflow in
``dev/requirements``, and runs what does not need a real scheduler. ``make matrix`` calls this; ``--airflow 3.0 3.1``
and ``--python 3.12`` choose, and what stands after ``--`` is for pytest.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).parent.parent
LOCKS = REPOSITORY / "dev" / "requirements"
ENVIRONMENTS = REPOSITORY / ".venv-matrix"
UV = Path(sys.executable).with_name("uv")

PYTHONS = {
    "2.11": ("3.10", "3.11", "3.12"),
    "3.0": ("3.10", "3.11", "3.12"),
    "3.1": ("3.10", "3.11", "3.12", "3.13"),
    "3.2": ("3.10", "3.11", "3.12", "3.13", "3.14"),
    "3.3": ("3.10", "3.11", "3.12", "3.13", "3.14"),
    "3.4": ("3.11", "3.12", "3.13", "3.14"),
}
"""The releases of Airflow, each with the Pythons that it supports and this provider, too."""

LONGEST_RUN = 2400
"""Seconds that one run may take."""


def main() -> int:
    """Run the chosen part of the matrix, print the table, and return 1 where something failed."""
    parser = argparse.ArgumentParser(description="Run the tests on every supported Airflow and every Python here.")
    parser.add_argument("--airflow", nargs="+", choices=PYTHONS, default=list(PYTHONS), metavar="VERSION")
    parser.add_argument("--python", nargs="+", metavar="VERSION", help="by default every one that is present")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="after --: what pytest is given")
    chosen = parser.parse_args()
    present = _pythons_present()
    columns = [python for python in _all_pythons() if python in present and python in (chosen.python or present)]
    cells = {
        (airflow, python): _run(airflow, python, present[python], chosen.arguments)
        for airflow in chosen.airflow
        for python in columns
        if python in PYTHONS[airflow]
    }
    print(_table(chosen.airflow, columns, cells))
    if absent := [python for python in _all_pythons() if python not in present]:
        print(f"Not present, so not tested: Python {', '.join(absent)}")
    return int(not cells or any("failed" in cell or "error" in cell for cell in cells.values()))


def _all_pythons() -> list[str]:
    return list(dict.fromkeys(python for supported in PYTHONS.values() for python in supported))


def _pythons_present() -> dict[str, str]:
    """Return the path of each supported Python on this machine: on the PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = {
        python: [shutil.which(f"python{python}"), *sorted(pyenv.glob(f"{python}.*/bin/python"))]
        for python in _all_pythons()
    }
    working = {python: next(filter(_works, paths), None) for python, paths in candidates.items()}
    return {python: str(path) for python, path in working.items() if path}


def _works(path: str | Path | None) -> bool:
    """Tell whether it is a Python, and not pyenv's complaint that none is chosen, with what Airflow needs of it."""
    return bool(path) and not subprocess.run([str(path), "-c", "import sqlite3, ssl"], capture_output=True).returncode


def _run(airflow: str, python: str, interpreter: str, arguments: list[str]) -> str:
    """Install one pair, run its tests, and return what came of it."""
    name = f"airflow-{airflow}-python-{python}"
    print(f"--- Airflow {airflow}, Python {python}", flush=True)
    runner = ENVIRONMENTS / name / "bin" / "python"
    report = ENVIRONMENTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    try:
        _install(ENVIRONMENTS / name, LOCKS / f"airflow-{airflow}.txt", interpreter)
        tests = [str(runner), "-m", "pytest", "-q", *arguments, f"--junitxml={report}"]
        subprocess.run(tests, cwd=REPOSITORY, timeout=LONGEST_RUN, check=False)
        return _summary(ElementTree.parse(report).getroot())  # noqa: S314 - pytest has just written it
    except (subprocess.SubprocessError, OSError, ElementTree.ParseError) as error:
        return f"error: {type(error).__name__}"


def _install(folder: Path, lock: Path, interpreter: str) -> None:
    """Make an environment of a lock, unless it is there already."""
    done = folder / "installed"
    wanted = lock.read_text() + (REPOSITORY / "pyproject.toml").read_text()
    if done.exists() and done.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([UV, "venv", "--quiet", "--python", interpreter, folder], check=True)
    packages = ["--no-deps", "--requirement", str(lock), "--editable", str(REPOSITORY)]
    subprocess.run([UV, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *packages], check=True)
    done.write_text(wanted)


def _summary(report: ElementTree.Element) -> str:
    """Return ``612 passed, 3 skipped`` for a report of pytest's."""
    counts = {name: sum(int(suite.get(name, 0)) for suite in report.iter("testsuite")) for name in _COUNTED}
    passed = counts.pop("tests") - sum(counts.values())
    words = {"passed": passed, "failed": counts["failures"], "errors": counts["errors"], "skipped": counts["skipped"]}
    return ", ".join(f"{count} {word}" for word, count in words.items() if count or word == "passed")


_COUNTED = ("tests", "failures", "errors", "skipped")


def _table(airflows: list[str], pythons: list[str], cells: dict[tuple[str, str], str]) -> str:
    head = ["Airflow", *(f"Python {python}" for python in pythons)]
    rows = [[_release(airflow), *(cells.get((airflow, python), "–") for python in pythons)] for airflow in airflows]
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _release(airflow: str) -> str:
    """Return the release that a lock names, such as ``3.0.6``."""
    match = re.search(r"^apache-airflow==(\S+)", (LOCKS / f"airflow-{airflow}.txt").read_text(), re.MULTILINE)
    return match[1] if match else airflow


if __name__ == "__main__":
    sys.exit(main())
