"""A batch whose templates give something else whenever Airflow renders them: a Variable that the test edits, a seed."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

with DAG(
    "edited_while_deferred",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"connection": "modelslab_default"},
):
    ModelsLabGenerateOperator(
        task_id="generate",
        endpoint="v6/images/text2img",
        modelslab_conn_id="{{ params.connection }}",
        payloads="{{ var.value.modelslab_batch }}",
        max_in_flight=1,
        output_path="{{ var.value.modelslab_folder }}",
        deferrable=True,
        timeout=3600,
        retries=3,  # Airflow may fail a task that resumes before its scheduler has heard of the deferral
        retry_delay=timedelta(seconds=1),
    )
