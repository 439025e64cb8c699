"""ModelsLab's own Python client in a task for each job: it polls by itself, every 60 s unless told otherwise."""

from __future__ import annotations

from typing import Any

from airflow.sdk import task
from shared import KEY, URL, comparison, submitted, used


@task
def wait(job: dict[str, Any]) -> list[str]:
    from modelslab_py.core.apis.video import Video
    from modelslab_py.core.client import Client

    client = Client(api_key=KEY)
    client.base_url = f"{URL}/api/"
    return Video(client=client).fetch(job["id"])["output"]


with comparison("vendor_client"):
    wait.expand(job=submitted()) >> used()
