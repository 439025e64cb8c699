"""A generation, as a task and decorated, that is run again; where it is remembered is the connection's affair."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

with DAG("paid_once", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False) as paid_once:
    ModelsLabGenerateOperator(
        task_id="draw",
        endpoint="v6/images/text2img",
        payloads={"owl": {"prompt": "an owl"}, "hare": {"prompt": "a hare"}},
        deferrable=False,
        poke_interval=0.2,
        timeout=600,
    )
