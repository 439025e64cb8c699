"""A sensor that does nothing but defer once: what Airflow itself takes for any deferrable task."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import BaseSensorOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from shared import comparison, submitted, used


class EmptySensor(BaseSensorOperator):
    def execute(self, context: Any) -> None:
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=5)), method_name="execute_complete")

    def execute_complete(self, context: Any, event: Any = None) -> None:
        pass


with comparison("floor"):
    submitted() >> EmptySensor(task_id="wait") >> used()
