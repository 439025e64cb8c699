"""
Waits for jobs of seconds, one for each task: by the sensor and the operator as they are, as they were, and in a worker.

The tasks start one after another, so that they do not compete for the processor. Only those of ``race`` start together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow.sdk import DAG, task, task_group
from shared import used

from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

CONNECTION = "{{ params.conn_id }}"
PROMPT = {"prompt": "a lighthouse at dusk"}
POKE_INTERVAL = 5.0
SPACING = 2.0


class _DeferringAtOnce:
    """What sensor and operator were: no short wait on the worker, and a trigger that yields as soon as it can."""

    def execute(self, context: Any) -> Any:
        pacing = ModelsLabHook.pacing
        ModelsLabHook.pacing = replace(pacing, policy=replace(pacing.policy, brief_wait=0.0))  # of this process
        return super().execute(context)  # type: ignore[misc]

    def defer(self, *, trigger: Any, **arguments: Any) -> Any:
        trigger.deferred = None
        super().defer(trigger=trigger, **arguments)  # type: ignore[misc]


class FormerSensor(_DeferringAtOnce, ModelsLabJobSensor):
    """The sensor without a short wait."""


class FormerOperator(_DeferringAtOnce, ModelsLabGenerateOperator):
    """The operator without a short wait."""


class SubmittingSensor(ModelsLabJobSensor):
    """A sensor whose job is submitted when its task begins: ``jobs`` is the path to submit to."""

    def execute(self, context: Any) -> Any:
        self.jobs = ModelsLabHook(self.modelslab_conn_id).submit(self.jobs, PROMPT).to_dict()
        return super().execute(context)


class FormerSubmittingSensor(_DeferringAtOnce, SubmittingSensor):
    """The same without a short wait."""


def dag(dag_id: str) -> DAG:
    """Return a DAG without retries, whose runs are told the paths to submit to."""
    params = {"paths": [], "conn_id": "modelslab_default"}
    return DAG(dag_id, schedule=None, catchup=False, params=params, default_args={"retries": 0})


@task
def paths(**context: Any) -> list[str]:
    """Return the path of each job."""
    return list(context["params"]["paths"])


@task(max_active_tis_per_dagrun=1)
def submitted(path: str, params: dict[str, Any]) -> dict[str, Any]:
    """Let some time pass since the last one, and submit a job."""
    time.sleep(SPACING)
    return ModelsLabHook(params["conn_id"]).submit(path, PROMPT).to_dict()


@task(max_active_tis_per_dagrun=1)
def passed_on(path: str) -> str:
    """Let some time pass since the last one."""
    time.sleep(SPACING)
    return path


def one_by_one(dag_id: str, before: Callable[..., Any], wait: Callable[[Any], Any]) -> None:
    """Make a DAG in which each job has a task that waits for it, and a next task."""
    with dag(dag_id):

        @task_group(prefix_group_id=False)
        def each(path: str) -> None:
            wait(before(path)) >> used()

        each.expand(path=paths())


def sensor(kind: type[ModelsLabJobSensor] = ModelsLabJobSensor, **arguments: Any) -> Callable[[Any], Any]:
    arguments = {"deferrable": True, "modelslab_conn_id": CONNECTION, "timeout": 600, **arguments}
    return lambda job: kind(task_id="wait", jobs=job, **arguments)


def operator(kind: type[ModelsLabGenerateOperator] = ModelsLabGenerateOperator, **arguments: Any) -> Any:
    arguments = {"deferrable": True, "modelslab_conn_id": CONNECTION, "timeout": 600, **arguments}
    return lambda path: kind(task_id="wait", endpoint=path, payload=PROMPT, **arguments)


one_by_one("sensor_now", submitted, sensor())
one_by_one("sensor_before", submitted, sensor(FormerSensor))
one_by_one("sensor_poke", submitted, sensor(deferrable=False, poke_interval=POKE_INTERVAL))
one_by_one("sensor_reschedule", submitted, sensor(deferrable=False, mode="reschedule", poke_interval=POKE_INTERVAL))
one_by_one("operator_now", passed_on, operator())
one_by_one("operator_before", passed_on, operator(FormerOperator))
one_by_one("operator_worker", passed_on, operator(deferrable=False))

for dag_id, kind in (("race_now", SubmittingSensor), ("race_before", FormerSubmittingSensor)):
    with dag(dag_id):
        kind.partial(task_id="wait", modelslab_conn_id=CONNECTION, deferrable=True, timeout=600).expand(jobs=paths())
