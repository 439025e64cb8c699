"""Handing a wait to the triggerer and taking it back: the same for the sensor and for the operator."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_modelslab._protocol.formatting import format_duration

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context
    from airflow.triggers.base import BaseTrigger

TRIGGER_GRACE = timedelta(minutes=2)
"""How much later than the trigger's own deadline Airflow may end a deferral: a backstop, should the trigger be lost."""

TIME_TO_TELL = 1.0
"""
Seconds by which a wait ends before the ``execution_timeout``, at most a quarter of it: so it is the task that fails and
says which jobs were not done, and not Airflow that breaks it off.
"""

TIME_TO_RESUME = 20.0
"""Seconds that Airflow 2 may need to resume a task: so much before its ``execution_timeout`` the wait ends."""


class Limit(NamedTuple):
    """A limit of the time that a wait may take: the argument that sets it, and its seconds."""

    argument: str
    seconds: float

    def __str__(self) -> str:
        return f"its {self.argument} of {format_duration(self.seconds)}"


def limit_of(operator: BaseOperator, timeout: float) -> Limit:
    """
    Return the limit that ends a wait.

    :param operator: the task, whose ``execution_timeout`` counts, too.
    :param timeout: seconds that the wait may take.
    """
    execution_timeout = operator.execution_timeout
    if execution_timeout is None or timeout <= execution_timeout.total_seconds():
        return Limit("timeout", timeout)
    return Limit("execution_timeout", execution_timeout.total_seconds())


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
    if AIRFLOW_V_3_0_PLUS:
        return started + min(timeout, limit - min(TIME_TO_TELL, limit / 4))
    # Airflow 2 counts from the start of the try and ends a task that resumes too late without asking it.
    started_before = max(0.0, started - context["ti"].start_date.timestamp())
    return started + min(timeout, max(0.0, limit - started_before - min(TIME_TO_RESUME, limit / 4)))


def defer(operator: BaseOperator, trigger: BaseTrigger, left: float) -> NoReturn:
    """
    Hand the wait to the triggerer; ``execute_complete`` takes its event.

    :param operator: the task.
    :param trigger: what waits.
    :param left: seconds after which the trigger ends by itself.
    """
    timeout = timedelta(seconds=max(0.0, left)) + TRIGGER_GRACE
    operator.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)
