"""
The http provider's sensor for each job, with ``mode="reschedule"``, so that it holds no worker.

It cannot be deferrable: its trigger takes every reply with HTTP 200 for success, and ModelsLab answers 200 while a job
is in progress; with a ``response_check`` the sensor does not defer.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.http.sensors.http import HttpSensor
from shared import KEY, comparison, submitted, used


def fetch_path(job: dict[str, Any]) -> str:
    return f"api/{job['endpoint']}/fetch/{job['id']}"


def is_done(response: Any) -> bool:
    return response.json()["status"] == "success"


with comparison("http_sensor"):
    (
        HttpSensor.partial(
            task_id="wait",
            http_conn_id="modelslab_http",
            method="POST",
            request_kwargs={"json": {"key": KEY}},
            response_check=is_done,
            mode="reschedule",
            poke_interval=15,
            timeout=3600,
        ).expand(endpoint=submitted().map(fetch_path))
        >> used()
    )
