"""
The demo: what ``make demo`` runs.

A ModelsLab sandbox and a real Airflow (scheduler, triggerer, api-server, dag-processor) over a throw-away home run the
example DAG ``modelslab_images``: submit three images, wait for them in the triggerer, store them, and hand each file to
a task of its own. Exit status 0 when the run succeeds and every file is there, 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from airflow_instance import PATIENCE, AirflowInstance, AirflowInstanceError

from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.faults import parse_probabilities

REPOSITORY = Path(__file__).resolve().parent.parent

DAG_ID = "modelslab_images"


def main(argv: list[str] | None = None) -> None:
    """
    Run the demo.

    :param argv: the arguments, without the name of the program.
    :raises SystemExit: 1 with the reason, if the run fails or Airflow does not start.
    """
    parser = argparse.ArgumentParser(description="Run the example DAG modelslab_images on a real Airflow.")
    parser.add_argument("--faults", type=parse_probabilities, default={}, help="for the sandbox, such as failed=1")
    options = parser.parse_args(argv)
    files = Path(tempfile.mkdtemp(prefix="modelslab-demo-"))
    try:
        with tempfile.TemporaryDirectory(prefix="airflow-home-") as home:
            succeeded = _run(Path(home), files, options.faults)
    except AirflowInstanceError as error:
        sys.exit(str(error))
    sys.exit(0 if succeeded else 1)


def _run(home: Path, files: Path, faults: dict[str, float]) -> bool:
    with Sandbox(duration=4.0, faults=faults) as sandbox:
        _say(f"ModelsLab sandbox on {sandbox.url}")
        _say("Starting Airflow: api-server, scheduler, dag-processor and triggerer …")
        connection = {"AIRFLOW_CONN_MODELSLAB_DEFAULT": sandbox.connection}
        with AirflowInstance(home, REPOSITORY / "example_dags", connection) as airflow:
            run_id = airflow.trigger(DAG_ID, {"folder": str(files)})
            _say(f"Triggered {DAG_ID}")
            state = _follow(airflow, run_id)
            if state == "success":
                return _show_files(airflow, run_id, files)
            _say(f"\n{airflow.failures(DAG_ID, run_id)}")
            return False


def _follow(airflow: AirflowInstance, run_id: str) -> str:
    """Print each change of a task's state until the run has ended; return its state."""
    known: dict[tuple[str, int], str] = {}
    deadline = time.monotonic() + PATIENCE
    state = ""
    while state not in ("success", "failed"):
        if time.monotonic() > deadline:
            raise AirflowInstanceError(f"the run has not ended after {PATIENCE:g} s")
        airflow.check()
        time.sleep(0.2)
        state = airflow.run_state(DAG_ID, run_id)
        for task in sorted(airflow.task_instances(DAG_ID, run_id), key=lambda task: str(task["start_date"])):
            name, task_state = (task["task_id"], task["map_index"]), task["state"]
            if task_state in ("running", "deferred", "success", "failed") and known.get(name) != task_state:
                known[name] = task_state
                _say(f"  {_label(task)} {task_state}")
    return state


def _show_files(airflow: AirflowInstance, run_id: str, files: Path) -> bool:
    manifest: dict[str, Any] = airflow.xcom(DAG_ID, run_id, "draw", "manifest")
    stored = [(item["name"], Path(file)) for item in manifest["items"] for file in item["files"]]
    _say(f"\nPictures that the task stored in {files}:")
    for name, file in stored:
        _say(f"  {name}: {file}, {file.stat().st_size} bytes")
    return bool(stored)


def _label(task: dict[str, Any]) -> str:
    return task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
