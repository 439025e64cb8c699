"""``airflow dags test`` as a command, with a deferred wait: worker and trigger find the same connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.waiting import wait_until

DAG = """
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

with DAG("waits", schedule=None, start_date=datetime(2026, 1, 1)):
    ModelsLabJobSensor(task_id="wait", jobs={job!r}, deferrable=True, poke_interval=1, timeout=3600)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow home of its own, with a migrated database."""
    folder = tmp_path_factory.mktemp("airflow-home")
    (folder / "dags").mkdir()
    airflow(folder, "db", "migrate")
    return folder


def airflow(home: Path, *arguments: str, **environment: str) -> str:
    """Run a command of Airflow, which must succeed, and return what it prints."""
    settings = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"), **environment}
    result = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    return output


def in_the_database(home: Path, connection: str) -> dict[str, str]:
    airflow(home, "connections", "add", "modelslab_default", "--conn-json", connection)
    return {}


def in_the_environment(home: Path, connection: str) -> dict[str, str]:
    return {"AIRFLOW_CONN_MODELSLAB_DEFAULT": connection}


def in_a_secrets_backend(home: Path, connection: str) -> dict[str, str]:
    file = home / "connections.json"
    file.write_text(json.dumps({"modelslab_default": json.loads(connection)}))
    return {
        "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(file)}),
    }


@pytest.mark.parametrize("place", [in_a_secrets_backend, in_the_environment, in_the_database])
def test_worker_and_trigger_find_the_connection(home: Path, place):
    with Sandbox(duration=float("inf")) as sandbox:
        job = sandbox.submit("v6/video/text2video", {"prompt": "a fox"})
        (home / "dags" / "waits.py").write_text(DAG.format(job={"id": job["id"], "endpoint": "v6/video"}))
        finishing = threading.Thread(target=finish_once_the_trigger_polls, args=(sandbox,))
        finishing.start()
        # The key in the environment must not stand in for a connection that is defined.
        environment = place(home, sandbox.connection) | {"MODELSLAB_API_KEY": "the-key-of-another-account"}
        output = airflow(home, "dags", "test", "waits", **environment)
        finishing.join()
    assert "Waiting in the triggerer" in output
    assert "1 of 1 job succeeded" in output


def finish_once_the_trigger_polls(sandbox: Sandbox) -> None:
    """The first poll is the sensor's, before it defers."""
    with suppress(AssertionError):  # the test says so, with what the command printed
        wait_until(lambda: sandbox.state()["requests"].get("fetch", 0) > 1, timeout=500)
    sandbox.finish_all()
