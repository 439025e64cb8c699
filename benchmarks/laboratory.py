"""A real Airflow, whose workers are measured, and a ModelsLab: what the benchmarks with a scheduler have in common."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

BENCHMARKS = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCHMARKS.parent / "dev"))

from airflow_instance import AirflowInstance  # noqa: E402
from measured_executor import FILE_VARIABLE  # noqa: E402
from postgres import Postgres  # noqa: E402
from sandbox_process import SandboxProcess  # noqa: E402

DAGS = BENCHMARKS / "end_to_end_dags"

WORKERS = 16

#: Connections: as it comes, and with a ceiling on requests that 500 jobs at a time do not reach.
DEFAULT, UNHURRIED = "modelslab_default", "modelslab_unhurried"

RUN_TIMEOUT = 1800.0

IDLE_SECONDS = 20.0


class Laboratory:
    """
    An Airflow and a ModelsLab to measure with.

    :param airflow: the Airflow.
    :param modelslab: the sandbox.
    :param files: a folder for what is exchanged with them.
    """

    def __init__(self, airflow: AirflowInstance, modelslab: SandboxProcess, files: Path) -> None:
        self.airflow = airflow
        self.modelslab = modelslab
        self.jobs_file = files / "jobs.json"
        self._workers_file = files / "workers"

    def cpu(self) -> float:
        """Return the CPU seconds of all of Airflow's processes until now, ended ones included."""
        return sum(
            sum(psutil.Process(pid).cpu_times()[:4])  # its own, and that of its children that have ended
            for component in self.airflow.components
            for pid in self.airflow.pids(component)
            if psutil.pid_exists(pid)
        )

    def warm_up(self) -> None:
        """Let every worker run a task: the first one takes longer than all others."""
        self.airflow.wait_for_run("warm_up", self.airflow.trigger("warm_up"), RUN_TIMEOUT)

    def idle_cpu(self) -> float:
        """Return the CPU seconds that Airflow takes for each second in which nothing is to be done."""
        before = self.cpu()
        time.sleep(IDLE_SECONDS)
        return (self.cpu() - before) / IDLE_SECONDS

    def wait_for_workers(self, run_id: str) -> None:
        """Wait until the workers of a run have ended: one that has reported a success has yet to notice its end."""
        self.airflow.wait_until(lambda: self._have_ended(run_id), 60, "the workers have not ended")

    def workers(self, run_id: str, task_id: str) -> list[dict[str, Any]]:
        """Return what the workers of a task have measured that have ended."""
        return [worker for worker in self._notes(run_id) if worker["task_id"] == task_id and worker["measured"]]

    def _notes(self, run_id: str) -> list[dict[str, Any]]:
        lines = self._workers_file.read_text().splitlines() if self._workers_file.exists() else []
        return [worker for worker in map(json.loads, lines) if worker["run_id"] == run_id]

    def _have_ended(self, run_id: str) -> bool:
        """Whether as many workers have ended as have begun."""
        notes = self._notes(run_id)
        ended = sum(bool(worker["measured"]) for worker in notes)
        return ended == len(notes) - ended


@contextmanager
def laboratory(settings: Mapping[str, str] | None = None, **sandbox: Any) -> Iterator[Laboratory]:
    """
    Start everything, and end it.

    :param settings: environment variables for Airflow.
    :param sandbox: arguments of the sandbox.
    """
    with (
        tempfile.TemporaryDirectory(prefix="end-to-end-") as folder,
        SandboxProcess(**sandbox) as modelslab,
        Postgres() as postgres,
    ):
        files = Path(folder)
        connection = {"conn_type": "modelslab", "host": modelslab.url, "password": modelslab.key}
        http = {"conn_type": "http", "host": modelslab.url}
        env = {
            "AIRFLOW__CORE__EXECUTOR": "measured_executor.MeasuredLocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(WORKERS),
            # Otherwise only files with the word "dag" in them are parsed.
            "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "False",
            # A busy machine is neither a dead worker nor a broken DAG.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "120",
            "AIRFLOW_CONN_MODELSLAB_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_MODELSLAB_UNHURRIED": json.dumps({**connection, "extra": {"requests_per_second": 100}}),
            "AIRFLOW_CONN_MODELSLAB_HTTP": json.dumps(http),
            "BENCHMARK_MODELSLAB_URL": modelslab.url,
            "BENCHMARK_MODELSLAB_KEY": modelslab.key,
            FILE_VARIABLE: str(files / "workers"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")])),
            **(settings or {}),
        }
        with AirflowInstance(files / "airflow", DAGS, env, database=postgres.url) as airflow:
            yield Laboratory(airflow, modelslab, files)


def epoch(moment: str) -> float:
    """Return a moment of Airflow's REST API in seconds since the epoch."""
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that such a share of all values does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def say(text: str) -> None:
    """Print a line now, also into a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
