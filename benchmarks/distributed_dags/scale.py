"""Waits for many jobs: by one sensor, by several of many jobs each, and by one for each job, without retries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_modelslab.sensors import ModelsLabJobSensor

SENSORS = 10


@task
def submitted(**context: Any) -> list[dict[str, Any]]:
    """Return one record per job, as ``ModelsLabGenerateOperator(wait_for_completion=False)`` would."""
    jobs: list[dict[str, Any]] = json.loads(Path(context["params"]["jobs"]).read_text())
    return jobs


@task
def dealt_out(jobs: Any) -> list[list[dict[str, Any]]]:
    """Return the jobs of each of several sensors."""
    return [jobs[number::SENSORS] for number in range(SENSORS)]


def waiting(dag_id: str) -> DAG:
    params = {"jobs": ""}
    return DAG(dag_id, schedule=None, catchup=False, params=params, default_args={"retries": 0})


SETTINGS: dict[str, Any] = {"task_id": "wait", "deferrable": True, "timeout": 3600}

with waiting("one_sensor"):
    ModelsLabJobSensor(jobs=submitted(), **SETTINGS)

with waiting("ten_sensors"):
    ModelsLabJobSensor.partial(**SETTINGS).expand(jobs=dealt_out(submitted()))

with waiting("sensor_each"):
    ModelsLabJobSensor.partial(modelslab_conn_id="modelslab_short", **SETTINGS).expand(jobs=submitted())
