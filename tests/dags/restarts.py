"""Many waits at once: a sensor over a group of jobs, and one for each of some others; the test submits them before."""

from __future__ import annotations

import json
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_modelslab.sensors import ModelsLabJobSensor

WAIT: dict[str, Any] = {
    "endpoint": "v6/video",
    "modelslab_conn_id": "{{ params.connection }}",
    "deferrable": True,
    "timeout": 3600,
}

with DAG(
    "restarts",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"group": "[]", "singles": "[]", "connection": "modelslab_held"},
):

    @task
    def singles(params=None):
        return json.loads(params["singles"])

    ModelsLabJobSensor(task_id="group", jobs="{{ params.group }}", **WAIT)
    ModelsLabJobSensor.partial(task_id="single", **WAIT).expand(jobs=singles())
