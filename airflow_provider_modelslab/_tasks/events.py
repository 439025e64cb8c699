"""
The event of a trigger: the one place that writes it and that reads it.

Airflow stores events, and the jobs that a trigger is given, in its database: here they pass the gate that makes
embedded files and echoes short. An output that is too long to travel is marked; the worker polls its job again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_modelslab._protocol.shortening import shorten_echoes, shorten_job
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, exception_for
from airflow_provider_modelslab.jobs import Job

EVENT_STATUSES = ("finished", "partial", "timeout", "error")


@dataclass(frozen=True, slots=True)
class WaitEvent:
    """
    The event of a trigger, read.

    :param status: one of :data:`EVENT_STATUSES`.
    :param jobs: the jobs as they stood when the wait ended, in the order given.
    :param state: what the task gave the trigger to hand back.
    :param verdict: of an error, the name of the verdict about the account, if it was one.
    :param message: of an error, what happened.
    :param permanent: of an error, whether another try cannot mend it.
    """

    status: str
    jobs: list[Job]
    state: Mapping[str, Any] = field(default_factory=dict)
    verdict: str | None = None
    message: str = ""
    permanent: bool = False

    def error(self, conn_id: str) -> Exception:
        """Return the exception of an error."""
        if self.verdict in Verdict.__members__:
            return exception_for(Verdict[str(self.verdict)], self.message, conn_id)
        return (ModelsLabArgumentError if self.permanent else AirflowException)(self.message)


def write_event(status: str, records: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the payload of an event.

    :param status: one of :data:`EVENT_STATUSES`, but for ``"error"``: :func:`write_error` writes that.
    :param records: the jobs, as :func:`job_records` returns them.
    :param state: what the task gave the trigger to hand back.
    """
    return {"status": status, "jobs": list(records), "state": dict(state)}


def write_error(
    message: str,
    records: Sequence[Mapping[str, Any]],
    state: Mapping[str, Any],
    verdict: Verdict | None = None,
    permanent: bool = False,
) -> dict[str, Any]:
    """
    Return the payload of an event about a wait that an error ended.

    :param message: what happened, without the key and without the text of an exception.
    :param records: the jobs, as :func:`job_records` returns them.
    :param state: what the task gave the trigger to hand back.
    :param verdict: the verdict about the account, if it was one.
    :param permanent: whether another try cannot mend it.
    """
    name = None if verdict is None else verdict.name
    return {**write_event("error", records, state), "verdict": name, "message": message, "permanent": permanent}


def read_event(event: Mapping[str, Any] | None) -> WaitEvent:
    """
    Read a trigger's event.

    :param event: the payload, also one that an earlier version of this provider has yielded.
    :raises AirflowException: it is not understood; such an event never counts as success.
    """
    if isinstance(event, Mapping) and event.get("status") in EVENT_STATUSES and isinstance(event.get("jobs"), list):
        jobs = [Job.from_dict(record) for record in event["jobs"]]
        state = event.get("state") or {}
        message, permanent = str(event.get("message") or ""), bool(event.get("permanent"))
        return WaitEvent(event["status"], jobs, state, event.get("verdict"), message, permanent)
    raise AirflowException(
        "Wait for the jobs of the XCom 'jobs' with a ModelsLabJobSensor: the trigger's event is not understood"
    )


def job_records(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Return jobs as triggers take them and events carry them."""
    return [shorten_job(job.to_compact_dict()) for job in shorten_echoes(jobs)]
