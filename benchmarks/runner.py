"""
Airflow's own trigger runner with its own supervisor, for the benchmarks: only the metadata database is missing.

``TriggerRunnerSupervisor`` forks the process in which ``TriggerRunner`` runs triggers, each with a greenback portal and
a log context, and answers it over a socket. What would come from the database is made here instead: the workloads, the
heartbeat, what happens to events, and the connections, which are answered at once. Log lines are switched off.
"""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.executors.workloads.trigger import RunTrigger
from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from airflow.sdk.api.datamodels._generated import ConnectionResponse


class _Client:
    """Answers what the runner asks the API server for: connections, from the environment of this process."""

    base_url = "http://nowhere.invalid/"

    def __init__(self) -> None:
        self.connections = self

    def get(self, conn_id: str) -> ConnectionResponse:
        stored = json.loads(CONNECTIONS[conn_id])
        extra = stored.pop("extra", None)
        fields = dict.fromkeys(("host", "schema", "login", "password", "port")) | stored
        return ConnectionResponse(conn_id=conn_id, extra=json.dumps(extra) if extra else None, **fields)


CONNECTIONS: dict[str, str] = {}
"""The connections by their id, as JSON."""


@attrs.define(kw_only=True)
class Supervisor(TriggerRunnerSupervisor):
    def make_client(self) -> Any:
        return _Client()

    def load_triggers(self) -> None:
        pass

    def handle_events(self) -> None:
        if self.events:
            raise RuntimeError(f"a trigger ended: {self.events[0]}")

    def handle_failed_triggers(self) -> None:
        if self.failed_triggers:
            raise RuntimeError(f"a trigger failed: {self.failed_triggers[0]}")

    def clean_unused(self) -> None:
        pass

    def heartbeat(self) -> None:
        pass

    def emit_metrics(self) -> None:
        pass


class Runner:
    """A running trigger runner, as a benchmark uses it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._started = 0

    def start(self, triggers: list[tuple[str, Mapping[str, Any]]]) -> None:
        """Hand over triggers, as a classpath and arguments each."""
        for classpath, arguments in triggers:
            self._started += 1
            workload = RunTrigger(
                id=self._started,
                classpath=classpath,
                encrypted_kwargs=Trigger.encrypt_kwargs(dict(arguments)),
                ti=_task_instance(self._started),
            )
            self._supervisor.creating_triggers.append(workload)

    @property
    def has_taken_all(self) -> bool:
        """Whether the runner's process has been told of all triggers."""
        return not self._supervisor.creating_triggers

    def work_until(self, condition: Callable[[], bool]) -> None:
        """Do the supervisor's work until a condition holds."""
        while not condition():
            self._supervisor._service_subprocess(0.01)
            self._supervisor.handle_events()
            self._supervisor.handle_failed_triggers()
            if not self._supervisor.is_alive():
                raise RuntimeError("the runner has died")

    def memory(self) -> int:
        """Return the bytes of memory that the runner's process has in use."""
        status = Path(f"/proc/{self._supervisor.pid}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])


@contextmanager
def running() -> Iterator[Runner]:
    """Run a trigger runner while the block runs; the connections of the environment go through the supervisor."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
        CONNECTIONS[name.removeprefix("AIRFLOW_CONN_").lower()] = os.environ.pop(name)
    supervisor = Supervisor.start(job=None, capacity=20_000)
    try:
        yield Runner(supervisor)
    finally:
        os.kill(supervisor.pid, signal.SIGKILL)
        os.waitpid(supervisor.pid, 0)


def _task_instance(number: int) -> TaskInstanceDTO:
    return TaskInstanceDTO(
        id=uuid.uuid4(),
        task_id="wait",
        dag_id="a_dag_of_the_benchmark",
        run_id="scheduled__2026-11-21T00:00:00+00:00",
        try_number=1,
        map_index=number,
        dag_version_id=uuid.uuid4(),
        pool_slots=1,
        priority_weight=1,
    )
