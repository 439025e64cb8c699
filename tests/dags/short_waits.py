"""Many tasks at a time, each of which waits for one job of a few seconds."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

COUNT = 30

with DAG(
    "short_waits", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False, params={"jobs": []}
):

    @task
    def jobs(params=None):
        return params["jobs"]

    arguments = {"modelslab_conn_id": "modelslab_short", "deferrable": True, "timeout": 3600, "retries": 0}
    ModelsLabGenerateOperator.partial(task_id="draw", endpoint="v6/images/text2img", **arguments).expand(
        payload=[{"prompt": f"picture {number}"} for number in range(COUNT)]
    )
    ModelsLabJobSensor.partial(task_id="wait", **arguments).expand(jobs=jobs())
