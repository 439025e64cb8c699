"""One DAG for each way of using the sensor; their jobs are submitted by the test, before the run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, XComArg, task

from airflow_provider_modelslab.sensors import ModelsLabJobSensor

START = pendulum.datetime(2026, 1, 1, tz="UTC")
MODES: dict[str, dict[str, Any]] = {
    "deferrable": {"deferrable": True},
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
}


@task
def received(urls):
    return list(urls)


@task
def received_one(url):
    return url


def new_dag(dag_id: str) -> DAG:
    return DAG(dag_id, schedule=None, start_date=START, catchup=False, params={"jobs": "[]"})


for mode, arguments in MODES.items():
    with new_dag(f"waits_{mode}") as dag:
        wait = ModelsLabJobSensor(
            task_id="wait",
            jobs="{{ params.jobs }}",
            endpoint="v6/video",
            poke_interval=0.1,
            timeout=600,
            **arguments,
        )
        received(wait.output)
        received_one.expand(url=wait.output)
    globals()[f"{mode}_dag"] = dag

    with new_dag(f"waits_mapped_{mode}") as mapped_dag:

        @task
        def groups(params=None):
            import json

            return [json.loads(group) for group in json.loads(params["jobs"])]

        mapped = ModelsLabJobSensor.partial(
            task_id="wait", endpoint="v6/video", poke_interval=0.1, timeout=600, **arguments
        ).expand(jobs=groups())
        received(XComArg(mapped))
    globals()[f"mapped_{mode}_dag"] = mapped_dag

# For a real scheduler. A worker may notice 5 s late that the process of a task has ended, and a busy machine later
# still; rescheduled before that, the scheduler fails the task, which is tried again.
RESCHEDULE: dict[str, Any] = {"poke_interval": 10, "retries": 3, "retry_delay": timedelta(seconds=1)}
REAL: dict[str, dict[str, Any]] = {
    "waits_hundred": {"deferrable": True},
    "waits_with_retries": {"deferrable": True, "retries": 2},
    **{f"waits_really_{mode}": {**MODES[mode], **(RESCHEDULE if mode == "reschedule" else {})} for mode in MODES},
}
for dag_id, arguments in REAL.items():
    with new_dag(dag_id) as real_dag:
        wait = ModelsLabJobSensor(
            task_id="wait",
            jobs="{{ params.jobs }}",
            endpoint="v6/video",
            timeout=3600,
            **{"poke_interval": 3, **arguments},
        )
        received(wait.output)
    globals()[f"{dag_id}_dag"] = real_dag
