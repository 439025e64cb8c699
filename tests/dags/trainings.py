"""A training and the run of a workflow, each started once and waited for by a sensor; the test moves their clock on."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

CONNECTION: dict[str, Any] = {"modelslab_conn_id": "modelslab_trainings"}

with DAG(
    "trainings",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
):
    for name, start in (("training", "v6/trainer/train"), ("run", "v1/workflows/w-1/run")):
        started = ModelsLabGenerateOperator(
            task_id=f"start_{name}",
            endpoint=start,
            payload={"prompt": "a fox", "hf_token": "hf_of_this_test"},
            wait_for_completion=False,
            **CONNECTION,
        )
        # An hour's wait is polled every minute or two; this test has not that much time.
        ModelsLabJobSensor(task_id=f"wait_{name}", jobs=started.output, deferrable=True, poke_interval=1, **CONNECTION)

with DAG("killed_training", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False):
    ModelsLabGenerateOperator(
        task_id="train",
        endpoint="v6/trainer/train",
        payload={"prompt": "a fox"},
        deferrable=True,
        poke_interval=1,
        **CONNECTION,
    )
