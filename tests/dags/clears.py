"""Generations that a person clears: a finished one, one whose time was over, and a batch with a failed item."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

COMMON: dict[str, Any] = {
    "endpoint": "v6/video/text2video",
    "modelslab_conn_id": "modelslab_clears_{{ params.memory }}",
    "deferrable": True,
    # For what Airflow itself fails on a busy machine: "finished with state success, but the task instance's state …".
    "retries": 2,
    "retry_delay": timedelta(seconds=1),
}

with DAG(
    "clears",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"memory": ""},
):
    ModelsLabGenerateOperator(task_id="finished", payload={"prompt": "finished"}, timeout=3600, **COMMON)
    ModelsLabGenerateOperator(task_id="timed_out", payload={"prompt": "timed out"}, timeout=20, **COMMON)
    ModelsLabGenerateOperator(
        task_id="failed_item", payloads=[{"prompt": "good"}, {"prompt": "bad"}], timeout=3600, **COMMON
    )
