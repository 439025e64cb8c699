"""Waits under a real scheduler and a real triggerer, which alone show deferral."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import requests
from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import (
    check_run,
    said_of_trigger,
    submit,
    urls_of,
    wait_for_log,
    wait_until_parked,
)


@pytest.mark.selection
def test_the_example_with_images(airflow: AirflowInstance, held_sandbox: Sandbox, tmp_path: Path):
    accepted_before = held_sandbox.state()["submissions"]["accepted"]
    run_id = airflow.trigger("modelslab_task_per_url", {"folder": str(tmp_path)})
    wait_until_parked(airflow, "modelslab_task_per_url", run_id, "wait")
    held_sandbox.finish_all()
    check_run(airflow, "modelslab_task_per_url", run_id)
    log = wait_for_log(airflow, "modelslab_task_per_url", run_id, "wait", "3 of 3 jobs succeeded, with 3 outputs")

    urls = airflow.xcom("modelslab_task_per_url", run_id, "wait")
    assert [requests.get(url, timeout=60).headers["Content-Type"] for url in urls] == ["image/png"] * 3
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(url.rpartition("/")[2] for url in urls)
    records = airflow.xcom("modelslab_task_per_url", run_id, "wait", "jobs")
    assert [record["outputs"] for record in records] == [[url] for url in urls]
    assert airflow.links("modelslab_task_per_url", run_id, "wait")["Output"] == urls[0]

    assert "Deferring: 0 of 3 jobs done" in log
    assert "Waiting in the triggerer, until " in log  # written by the trigger
    assert held_sandbox.key not in log
    assert held_sandbox.state()["submissions"]["accepted"] - accepted_before == 3


@pytest.mark.selection
def test_each_mode_hands_on_the_same(airflow: AirflowInstance, held_sandbox: Sandbox):
    ids = submit(held_sandbox, 2)
    dags = ("waits_really_deferrable", "waits_really_poke", "waits_really_reschedule")
    runs = {dag_id: airflow.trigger(dag_id, {"jobs": json.dumps(ids)}) for dag_id in dags}
    wait_until_parked(airflow, "waits_really_deferrable", runs["waits_really_deferrable"], "wait")
    held_sandbox.finish_all()
    for dag_id, run_id in runs.items():
        check_run(airflow, dag_id, run_id)
        assert airflow.xcom(dag_id, run_id, "wait") == urls_of(held_sandbox, ids)


def test_a_hundred_jobs_are_one_trigger_one_deferral_and_one_event(airflow: AirflowInstance, held_sandbox: Sandbox):
    ids = [held_sandbox.submit("v6/video/text2video", {"prompt": "a fox"})["id"] for _ in range(100)]
    run_id = airflow.trigger("waits_hundred", {"jobs": json.dumps(ids)})
    wait_until_parked(airflow, "waits_hundred", run_id, "wait")
    held_sandbox.finish_all()
    check_run(airflow, "waits_hundred", run_id)
    log = wait_for_log(airflow, "waits_hundred", run_id, "wait", "100 of 100 jobs succeeded")
    assert len(airflow.xcom("waits_hundred", run_id, "received")) == 100
    assert log.count("Pausing task as DEFERRED") == 1
    for words in (" starting", " fired"):
        said = partial(said_of_trigger, airflow, "waits_hundred", run_id, "wait", words)
        assert len(airflow.wait_until(said, PATIENCE, f"the trigger is not {words}")) == 1
    assert log.count("100 of 100 jobs succeeded") == 1


def test_failed_jobs_fail_the_task_at_once_and_say_why(airflow: AirflowInstance, held_sandbox: Sandbox):
    job = held_sandbox.submit("v6/video/text2video", {"prompt": "a fox"})["id"]
    run_id = airflow.trigger("waits_with_retries", {"jobs": json.dumps([job])})
    held_sandbox.fail(job, "No GPU left")
    assert airflow.wait_for_run("waits_with_retries", run_id) == "failed"
    (wait,) = (task for task in airflow.task_instances("waits_with_retries", run_id) if task["task_id"] == "wait")
    assert (wait["state"], wait["try_number"]) == ("failed", 1)
    wait_for_log(airflow, "waits_with_retries", run_id, "wait", "No GPU left")
    assert airflow.xcom("waits_with_retries", run_id, "wait", "jobs")[0]["status"] == "failed"
