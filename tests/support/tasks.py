"""Running a sensor or an operator step by step, as a worker and a triggerer do, without Airflow's own machinery."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_modelslab.triggers import ModelsLabJobTrigger
from tests.support.triggers import event_of


class RecordingTaskInstance:
    """
    Stands where Airflow's task instance does, and keeps the XComs that are pushed.

    :param clears: how often the task has been cleared: each clear lets it be tried once more.
    :param retries: how often it has been tried again since.
    """

    dag_id = "dag"
    run_id = "manual__2026-11-28T12:00:00+00:00"
    task_id = "task"
    map_index = -1

    def __init__(self, clears: int = 0, retries: int = 0) -> None:
        self.try_number = 1 + 2 * clears + retries
        self.max_tries = 2 * clears + 1
        self.xcoms: dict[str, Any] = {}
        self.start_date = datetime.now(timezone.utc)

    def xcom_push(self, key: str, value: object) -> None:
        self.xcoms[key] = json.loads(json.dumps(value, allow_nan=False))

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)


class StateStore:
    """Stands where Airflow's task state store does: keeps JSON, and outlives the tries of a task."""

    def __init__(self, texts: dict[str, str] | None = None) -> None:
        self.texts: dict[str, str] = texts or {}

    def get(self, key: str) -> Any:
        return json.loads(self.texts[key]) if key in self.texts else None

    def set(self, key: str, value: object) -> None:
        assert value is not None
        self.texts[key] = json.dumps(value, allow_nan=False)


def deferral_of(task: Any, context: Any) -> TaskDeferred:
    """Return the deferral in which the execution of a task must end."""
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context)
    return caught.value


def event_after(deferred: TaskDeferred) -> dict[str, Any]:
    """Return the event that the trigger of a deferral yields, after the ways through the database that both take."""
    return event_of(ModelsLabJobTrigger(**json.loads(json.dumps(deferred.trigger.serialize()[1]))))


def run(task: Any, context: Any, meanwhile: Callable[[int], None] = lambda deferrals: None, resumed: Any = None) -> Any:
    """
    Execute a task, with its deferrals, until it returns or raises.

    :param meanwhile: called with the number of deferrals so far, each time the task is deferred.
    :param resumed: the task as Airflow renders it when it resumes, if that is something else.
    """
    deferrals = 0
    step = partial(task.execute, context)
    while True:
        try:
            return step()
        except TaskDeferred as deferred:
            deferrals += 1
            meanwhile(deferrals)
            event = event_after(deferred)
            step = partial(task.execute_complete, context, event)
