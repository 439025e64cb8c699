"""What all DAGs of the comparison have in common: which jobs there are, and what follows when they are done."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

URL = os.environ["BENCHMARK_MODELSLAB_URL"]
KEY = os.environ["BENCHMARK_MODELSLAB_KEY"]


def comparison(dag_id: str) -> DAG:
    """Return a DAG whose runs are told where the records of the submitted jobs are, and which connection to use."""
    # A scheduler that is very busy fails a few of many mapped deferrable tasks for nothing, of any provider.
    retries = {"retries": 2, "retry_delay": timedelta(seconds=1)}
    params = {"jobs": "", "conn_id": "modelslab_default"}
    return DAG(dag_id, schedule=None, catchup=False, params=params, default_args=retries)


@task
def submitted(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one record per job, as ``ModelsLabGenerateOperator(wait_for_completion=False)`` would."""
    return json.loads(Path(params["jobs"]).read_text())


@task
def used() -> None:
    """Be the next task: what counts is when it starts."""
