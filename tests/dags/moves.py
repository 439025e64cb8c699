"""A DAG whose connection the test changes while a task is deferred."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

with DAG("moves", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), params={"prompt": ""}):
    ModelsLabGenerateOperator(
        task_id="generate",
        endpoint="v6/video/text2video",
        payload={"prompt": "{{ params.prompt }}"},
        modelslab_conn_id="modelslab_moving",
        deferrable=True,
        poke_interval=1,
    )
