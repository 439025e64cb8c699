"""What several system tests do and wait for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS, AIRFLOW_V_3_4_PLUS
from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.replies import output_urls

REMEMBERS = AIRFLOW_V_3_3_PLUS
"""Whether a task knows in its next try what it has submitted: earlier releases have nowhere to keep it."""

ENDS = ("success", "failed", "skipped", "upstream_failed")


@dataclass(frozen=True)
class Memory:
    """
    Where tasks remember what they have paid for.

    :param name: what the tests call it.
    :param extra: what the connection says of it; nothing leaves Airflow's own task state store, where it has one.
    """

    name: str
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def outlives_retries(self) -> bool:
        return bool(self.extra) or REMEMBERS

    @property
    def outlives_clears(self) -> bool:
        """Whether it is there after the clear of a task, which empties Airflow 3.4's task state store."""
        return self.outlives_retries and (bool(self.extra) or not AIRFLOW_V_3_4_PLUS)


def submit(sandbox: Sandbox, count: int) -> list[int]:
    return [sandbox.submit("v6/video/text2video", {"prompt": "a fox"})["id"] for _ in range(count)]


def urls_of(sandbox: Sandbox, ids: Iterable[int]) -> list[str]:
    jobs = sandbox.jobs
    return [url for job_id in ids for url in output_urls(jobs[job_id], sandbox.url)]


def jobs_of_prompt(sandbox: Sandbox, prompt: str) -> list[int]:
    """Return the jobs of a prompt, in the order of their submission."""
    return [job_id for job_id, job in sandbox.jobs.items() if job.request.meta["prompt"] == prompt]


def urls_of_prompt(sandbox: Sandbox, prompt: str) -> list[str]:
    """Return the outputs of a prompt: it was submitted once, or this fails."""
    (job_id,) = jobs_of_prompt(sandbox, prompt)
    return urls_of(sandbox, [job_id])


def asked_for(sandbox: Sandbox, since: float) -> set[int]:
    """Return the jobs of video that have been asked for since a moment of ``time.monotonic()``."""
    folder = "/api/v6/video/fetch/"
    paths = [request.path for request in sandbox.requests if request.at > since]
    return {int(path.removeprefix(folder)) for path in paths if path.startswith(folder)}


def wait_until_asked_for(airflow: AirflowInstance, sandbox: Sandbox, ids: Iterable[int], since: float) -> None:
    """Wait until each job has been asked for since a moment of ``time.monotonic()``."""
    airflow.wait_until(lambda: asked_for(sandbox, since) >= set(ids), PATIENCE, "not all jobs are asked for")


def wait_until_parked(
    airflow: AirflowInstance, dag_id: str, run_id: str, task_id: str, try_number: int = 1, deferrals: int = 1
) -> None:
    """Wait until this try of a task, or a later one, waits without a worker, so many times deferred, and may go on."""

    def parked() -> bool:
        task = airflow.task_instance(dag_id, run_id, task_id)
        return task["try_number"] >= try_number and airflow.is_parked(task, deferrals)

    problem = f"try {try_number} of task {task_id!r} of run {run_id!r} of DAG {dag_id!r} does not wait"
    airflow.wait_until(parked, PATIENCE, problem)


def wait_until_all_parked(airflow: AirflowInstance, dag_id: str, run_id: str, count: int) -> None:
    """Wait until so many tasks of a run wait without a worker, and may go on."""

    def parked() -> bool:
        return sum(map(airflow.is_parked, airflow.task_instances(dag_id, run_id))) == count

    airflow.wait_until(parked, PATIENCE, f"not all {count} tasks of run {run_id!r} of DAG {dag_id!r} wait")


def check_run(airflow: AirflowInstance, dag_id: str, run_id: str) -> None:
    """Wait until a run has ended, and see to it that it has ended well."""
    assert airflow.wait_for_run(dag_id, run_id, PATIENCE) == "success", airflow.failures(dag_id, run_id)


def wait_for_end(airflow: AirflowInstance, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
    """Wait until a task instance has ended, and return it."""

    def ended() -> dict[str, Any] | None:
        task = airflow.task_instance(dag_id, run_id, task_id)
        return task if task["state"] in ENDS else None

    return airflow.wait_until(ended, PATIENCE, f"task {task_id!r} of run {run_id!r} of DAG {dag_id!r} has not ended")


def wait_for_log(
    airflow: AirflowInstance,
    dag_id: str,
    run_id: str,
    task_id: str,
    words: str,
    *,
    try_number: int = 1,
    map_index: int = -1,
) -> str:
    """Return the log of a try once it has these words: what a task says last may get there after its end is known."""

    def log() -> str | None:
        text = airflow.task_log(dag_id, run_id, task_id, try_number, map_index)
        return text if words in text else None

    problem = f"the log of try {try_number} of task {task_id!r} of run {run_id!r} of DAG {dag_id!r} lacks {words!r}"
    return airflow.wait_until(log, PATIENCE, problem)


def said_of_trigger(airflow: AirflowInstance, dag_id: str, run_id: str, task_id: str, words: str) -> list[str]:
    """
    Find lines with these words about the trigger of a task's first try.

    What Airflow itself says of a trigger is mostly in the task's log, and now and then in the triggerer's own.
    """
    name = f"{dag_id}/{run_id}/{task_id}/"
    logs = airflow.task_log(dag_id, run_id, task_id), airflow.component_log("triggerer")
    return [line for log in logs for line in log.splitlines() if words in line and name in line]
