"""Files as inputs, wherever a DAG may name them: in a template, in what a task returns, mapped, as one output."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, task

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

DRAW: dict[str, Any] = {"endpoint": "v6/images/img2img", "poke_interval": 0.1, "deferrable": True}

with DAG(
    "inputs",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"folder": "a folder below /tmp"},
):
    ModelsLabGenerateOperator(
        task_id="templated",
        payload={"prompt": "templated", "init_image": ObjectStoragePath("file:///tmp/{{ params.folder }}/fox.png")},
        **DRAW,
    )

    @task
    def payloads(params=None):
        return [{"prompt": "returned", "init_image": ObjectStoragePath(f"file:///tmp/{params['folder']}/fox.png")}]

    returned = payloads()
    ModelsLabGenerateOperator(task_id="batch", payloads=returned, **DRAW)
    ModelsLabGenerateOperator.partial(task_id="mapped", **DRAW).expand(payload=returned)

    @task
    def path(params=None):
        return ObjectStoragePath(f"file:///tmp/{params['folder']}/fox.png")

    ModelsLabGenerateOperator(task_id="nested", payload={"prompt": "nested", "init_image": path()}, **DRAW)
