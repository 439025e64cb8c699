"""What becomes of trainings and runs whose task ends before them: they go on, and cost, unless it cancels them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_modelslab._protocol.kinds import kind_of, kind_started_by
from airflow_provider_modelslab.jobs import Job


def describe_ongoing(job: Job, conn_id: str) -> str:
    """
    Return a line for the log about work that goes on without its task; empty for a generation, and for what has ended.

    :param job: the job.
    :param conn_id: the connection that it was started with.
    """
    kind = kind_of(job.endpoint)
    if kind is None or job.finished:
        return ""
    line = f"The {kind.name} {job} goes on, and {kind.costs}."
    if kind.cancel is None:
        return f"{line} ModelsLab has no request that stops it"
    return f"{line} To stop it, call ModelsLabHook({conn_id!r}).cancel({job.id!r}, {job.endpoint!r})"


def cancel_or_log(jobs: Iterable[Job], conn_id: str, log: Any, cancel: Callable[[Job], None] | None = None) -> None:
    """
    Cancel the trainings and runs of a task that ends before them, or say that they go on.

    :param jobs: the jobs of the task.
    :param conn_id: the connection that they were started with.
    :param log: the task's log.
    :param cancel: cancels one; ``None`` where that is not asked for.
    """
    for job in jobs:
        ongoing = describe_ongoing(job, conn_id)
        if ongoing and cancel is not None:
            try:
                cancel(job)
                continue
            except AirflowException as error:
                log.warning("Job %s was not cancelled: %s", job, error)
        if ongoing:
            log.warning("%s", ongoing)


def judge_cancelling(cancel_on_kill: bool, path: str) -> None:
    """
    Refuse ``cancel_on_kill`` where it can have no effect.

    :param cancel_on_kill: the argument.
    :param path: the path that the task calls.
    :raises ValueError: ModelsLab cannot cancel what the path starts.
    """
    kind = kind_started_by(path)
    if cancel_on_kill and (kind is None or kind.cancel is None):
        raise ValueError(f"cancel_on_kill has no effect on {path!r}, which ModelsLab cannot cancel: leave it out")
