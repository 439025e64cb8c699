"""Many prompts: one mapped task for each, in a pool or without one, and all in one task. The connection is the test's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

SLOTS = 5

COMMON: dict[str, Any] = {
    "endpoint": "v6/images/text2img",
    "modelslab_conn_id": "{{ params.connection }}",
    "deferrable": True,
    "timeout": 3600,
    # On a busy machine Airflow fails a task that is resumed before its scheduler has heard of the deferral ("finished
    # with state success, but the task instance's state attribute is queued"). A retry goes on with the same jobs.
    "retries": 10,
    "retry_delay": timedelta(seconds=1),
}


def new_dag(dag_id: str) -> DAG:
    return DAG(
        dag_id,
        schedule=None,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        catchup=False,
        params={"connection": "modelslab_default", "prompts": 0},
    )


@task
def payloads(params=None):
    return [{"prompt": f"prompt {number}"} for number in range(params["prompts"])]


with new_dag("generations_mapped"):
    ModelsLabGenerateOperator.partial(task_id="generate", pool="modelslab", **COMMON).expand(payload=payloads())

with new_dag("generations_batch"):
    ModelsLabGenerateOperator(task_id="generate", payloads=payloads(), max_in_flight=SLOTS, **COMMON)

with new_dag("generations_plain"):

    @task(retries=0)
    def submit(payload, params=None):
        return ModelsLabHook(params["connection"]).submit("v6/images/text2img", payload)

    ModelsLabJobSensor(
        task_id="wait",
        jobs=submit.expand(payload=payloads()),
        modelslab_conn_id=COMMON["modelslab_conn_id"],
        deferrable=True,
        timeout=3600,
    )
