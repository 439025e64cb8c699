"""A job from its submission to its outputs, in each mode; the server decides how it ends."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

MODES: dict[str, dict[str, Any]] = {
    "deferrable": {"deferrable": True},
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
}


@task
def submit(params=None):
    return ModelsLabHook(params["conn_id"]).submit("v6/video/text2video", {"prompt": "a fox"}).to_dict()


@task
def received(urls):
    print("received", urls)
    return list(urls)


for mode, arguments in MODES.items():
    start = pendulum.datetime(2026, 1, 1, tz="UTC")
    params = {"conn_id": "modelslab_default"}
    with DAG(f"echoes_{mode}", schedule=None, start_date=start, catchup=False, params=params) as dag:
        wait = ModelsLabJobSensor(
            task_id="wait",
            jobs=submit(),
            modelslab_conn_id="{{ params.conn_id }}",
            poke_interval=0.1,
            timeout=600,
            **arguments,
        )
        received(wait.output)
    globals()[f"echoes_{mode}_dag"] = dag
