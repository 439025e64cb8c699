"""Generations whose workers the test kills: while they wait, while they submit, and in between."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

COMMON: dict[str, Any] = {
    "endpoint": "v6/video/text2video",
    "modelslab_conn_id": "modelslab_{{ task.task_id }}_{{ params.memory }}",
    # Airflow 2 may end the second try, too: it handles a dead worker twice, once in the process that parses the DAG.
    "retries": 3,
    "retry_delay": timedelta(seconds=1),
    "timeout": 3600,
}

with DAG(
    "killed_workers",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"memory": ""},
):
    ModelsLabGenerateOperator(task_id="waiting", payload={"prompt": "waiting"}, deferrable=False, **COMMON)
    ModelsLabGenerateOperator(task_id="submitting", payload={"prompt": "submitting"}, deferrable=True, **COMMON)
    # The reply to the first submission has come, and the task is not deferred yet, when the worker dies in the second.
    ModelsLabGenerateOperator(
        task_id="between",
        payloads={"first": {"prompt": "first"}, "second": {"prompt": "second"}},
        deferrable=True,
        **COMMON,
    )
