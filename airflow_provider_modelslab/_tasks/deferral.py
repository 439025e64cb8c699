"""Handing a wait to the triggerer and taking it back: the same for the sensor and for the operator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_modelslab._protocol.replies import Verdict
from airflow_provider_modelslab.hooks import exception_for
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.triggers import EVENT_STATUSES, ModelsLabJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

TRIGGER_GRACE = timedelta(minutes=2)
"""How much later than the trigger's own deadline Airflow may end a deferral: a backstop, should the trigger be lost."""

TIME_TO_RESUME = 20.0
"""Seconds that Airflow 2 may need to resume a task: so much before its ``execution_timeout`` the wait ends."""


def deadline_of(context: Context, operator: BaseOperator, timeout: float, started: float) -> float:
    """
    Return when a wait ends at the latest: Airflow 3 does not watch over a deferred task itself.

    :param context: the task's context.
    :param operator: the task, whose ``execution_timeout`` counts, too.
    :param timeout: seconds that the wait may take.
    :param started: when the task's execution began, in seconds since the epoch.
    """
    if operator.execution_timeout is None:
        return started + timeout
    limit = operator.execution_timeout.total_seconds()
    if not AIRFLOW_V_3_0_PLUS:
        # Airflow 2 counts from the start of the try and ends a task that resumes too late without asking it.
        started_before = max(0.0, started - context["ti"].start_date.timestamp())
        limit = max(0.0, limit - started_before - min(TIME_TO_RESUME, limit / 4))
    return started + min(timeout, limit)


def defer(operator: BaseOperator, trigger: ModelsLabJobTrigger) -> None:
    """Hand the wait to the triggerer; ``execute_complete`` takes its event. Never returns."""
    operator.defer(
        trigger=trigger,
        method_name="execute_complete",
        timeout=timedelta(seconds=max(0.0, trigger.deadline - time.time())) + TRIGGER_GRACE,
    )


@dataclass(frozen=True, slots=True)
class WaitEvent:
    """
    The event of a trigger, read.

    :param status: one of :data:`~airflow_provider_modelslab.triggers.EVENT_STATUSES`.
    :param jobs: the jobs as they stood when the wait ended, in the order given.
    :param state: what the trigger was given to carry.
    :param verdict: of an error, the name of the verdict about the account, if it was one.
    :param message: of an error, what happened.
    """

    status: str
    jobs: list[Job]
    state: Mapping[str, Any] = field(default_factory=dict)
    verdict: str | None = None
    message: str = ""

    def error(self, conn_id: str) -> Exception:
        """Return the exception of an error."""
        if self.verdict in Verdict.__members__:
            return exception_for(Verdict[str(self.verdict)], self.message, conn_id)
        return AirflowException(self.message)


def read_event(event: Mapping[str, Any] | None) -> WaitEvent:
    """
    Read a trigger's event.

    :param event: the payload, also one that an earlier version of this provider has yielded.
    :raises AirflowException: it is not understood; such an event never counts as success.
    """
    if isinstance(event, Mapping) and event.get("status") in EVENT_STATUSES and isinstance(event.get("jobs"), list):
        jobs = [Job.from_dict(record) for record in event["jobs"]]
        state = event.get("state") or {}
        return WaitEvent(event["status"], jobs, state, event.get("verdict"), str(event.get("message") or ""))
    raise AirflowException("The trigger's event is not understood; the jobs live on, so the task may be cleared")


def records_of(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Return the jobs as a trigger takes them."""
    return [job.to_compact_dict() for job in jobs]
