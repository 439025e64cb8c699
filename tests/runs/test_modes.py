"""Whole runs of the sensor under ``dag.test()``: the same XComs in every mode."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.dag_runs import TEST_DAGS, Run, load_dags

pytestmark = pytest.mark.usefixtures("airflow_database")

MODES = ["deferrable", "poke", "reschedule"]


@pytest.fixture(scope="module")
def dags():
    return load_dags(TEST_DAGS / "waits.py")


@pytest.fixture
def quick_sandbox(monkeypatch) -> Iterator[Sandbox]:
    with Sandbox(duration=1.0) as quick:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", quick.connection)
        yield quick


def submitted(sandbox: Sandbox, count: int) -> list[int]:
    return [sandbox.submit("v6/video/text2video", {"prompt": "a fox"})["id"] for _ in range(count)]


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_hands_on_the_same(dags, quick_sandbox: Sandbox, mode):
    ids = submitted(quick_sandbox, 3)
    run = Run(dags[f"waits_{mode}"], {"jobs": json.dumps(ids)})
    assert run.state == "success", run.states
    records = run.xcom("wait", "jobs")
    assert [(record["id"], record["endpoint"], record["status"]) for record in records] == [
        (str(job_id), "v6/video", "success") for job_id in ids
    ]
    assert run.xcom("wait") == run.xcom("received") == [record["outputs"][0] for record in records]
    assert [run.xcom("received_one", map_index=index) for index in range(3)] == run.xcom("wait")


@pytest.mark.parametrize("mode", MODES)
def test_no_jobs_are_no_outputs(dags, quick_sandbox: Sandbox, mode):
    run = Run(dags[f"waits_{mode}"], {"jobs": "[]"})
    assert run.states["wait", -1] == "success"
    assert run.xcom("received") == []


@pytest.mark.parametrize("mode", ["deferrable", "poke"])
def test_a_failed_job_fails_the_task(dags, quick_sandbox: Sandbox, mode):
    good, bad = submitted(quick_sandbox, 2)
    quick_sandbox.fail(bad, "No GPU left")
    run = Run(dags[f"waits_{mode}"], {"jobs": json.dumps([good, bad])})
    assert (run.state, run.states["wait", -1]) == ("failed", "failed")
    assert [record["status"] for record in run.xcom("wait", "jobs")] == ["success", "failed"]


@pytest.mark.parametrize("mode", ["deferrable", "poke"])
def test_a_mapped_sensor_and_an_empty_group(dags, quick_sandbox: Sandbox, mode):
    first, second, third = submitted(quick_sandbox, 3)
    groups = [json.dumps([first, second]), "[]", json.dumps(third)]
    run = Run(dags[f"waits_mapped_{mode}"], {"jobs": json.dumps(groups)})
    assert run.state == "success", run.states
    assert [len(urls) for urls in run.xcom("received")] == [2, 0, 1]
