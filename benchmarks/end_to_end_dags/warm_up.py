"""Tasks enough to occupy every worker: the first one in each pays for imports that no later one does."""

from __future__ import annotations

import time

from airflow.sdk import task
from shared import comparison


@task
def occupy(seconds: float) -> None:
    time.sleep(seconds)


with comparison("warm_up"):
    occupy.expand(seconds=[2.0] * 48)
