"""One generation, whose connection, endpoint and folder the test chooses."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

with DAG(
    "metered",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"connection": "modelslab_default", "endpoint": "v6/images/text2img", "folder": "/nowhere"},
):
    ModelsLabGenerateOperator(
        task_id="generate",
        endpoint="{{ params.endpoint }}",
        payload={"prompt": "a fox"},
        modelslab_conn_id="{{ params.connection }}",
        output_path="{{ params.folder }}",
        deferrable=True,
        poke_interval=2,
        timeout=3600,
        retries=3,  # for what Airflow itself fails on a busy machine
        retry_delay=timedelta(seconds=1),
    )
