"""A job that a task returns is an XCom that other tasks can read."""

from __future__ import annotations

import pytest

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.dag_runs import TEST_DAGS, Run, load_dags


@pytest.mark.usefixtures("airflow_database")
def test_jobs_that_tasks_return_are_taken_by_sensor_and_hook(monkeypatch):
    (dag,) = load_dags(TEST_DAGS / "jobs.py").values()
    with Sandbox(duration=1.0) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", sandbox.connection)
        run = Run(dag)
    assert run.state == "success", run.states
    outputs = [run.xcom("outputs", map_index=index) for index in range(2)]
    assert run.xcom("sense") == [url for urls in outputs for url in urls]
    assert len(run.xcom("sense_one")) == 1
    assert run.xcom("submit_annotated", key="id") is None  # one XCom for the job, not one for each of its fields
    assert len(sandbox.jobs) == 3
