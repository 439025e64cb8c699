"""Deferred waits for every end that is not a plain success; the jobs are the test's, and end only when it says so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

LIMITS = {"timeout": 12, "execution_timeout": 12 if AIRFLOW_V_3_0_PLUS else 60, "soft_fail": 12}
"""Seconds after which each of the limited waits ends; of an ``execution_timeout``, Airflow 2 needs some to resume."""

# Retries that must not happen are allowed everywhere.
COMMON: dict[str, Any] = {
    "modelslab_conn_id": "modelslab_held",
    "deferrable": True,
    "retries": 2,
    "retry_delay": timedelta(seconds=1),
}
SENSORS: dict[str, dict[str, Any]] = {
    "timeout": {"timeout": LIMITS["timeout"]},
    "execution_timeout": {"timeout": 600, "execution_timeout": timedelta(seconds=LIMITS["execution_timeout"])},
    "soft_fail": {"timeout": LIMITS["soft_fail"], "soft_fail": True},
    "failing": {"timeout": 600},
    "cleared": {"timeout": 600},
    "marked": {"timeout": 600},
}

GENERATIONS = ("cleared_with_its_state", "cleared_without_its_state")

with DAG(
    "ends",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"jobs": {}},
):
    for name, limits in SENSORS.items():
        ModelsLabJobSensor(
            task_id=name, jobs=f"{{{{ params.jobs['{name}'] }}}}", endpoint="v6/video", **COMMON, **limits
        )
    for name in GENERATIONS:
        ModelsLabGenerateOperator(
            task_id=name, endpoint="v6/video/text2video", payload={"prompt": f"{{{{ run_id }}}} {name}"}, **COMMON
        )
