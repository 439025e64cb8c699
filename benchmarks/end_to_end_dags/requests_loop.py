"""A task with a loop for each job: ask, sleep five seconds, ask again."""

from __future__ import annotations

import time
from typing import Any

from airflow.sdk import task
from shared import KEY, URL, comparison, submitted, used


@task
def wait(job: dict[str, Any]) -> list[str]:
    import requests

    while True:
        url = f"{URL}/api/{job['endpoint']}/fetch/{job['id']}"
        reply = requests.post(url, json={"key": KEY}, timeout=30).json()
        if reply["status"] == "success":
            return reply["output"]
        time.sleep(5)


with comparison("requests_loop"):
    wait.expand(job=submitted()) >> used()
