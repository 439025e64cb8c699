"""What is lost when Airflow's processes die without a word: nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from airflow_instance import AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.replies import output_urls

DAG = "restarts"

PATIENCE = 120.0
"""Seconds within which each step happens, however busy the machine is."""


def submit(sandbox: Sandbox, count: int) -> list[int]:
    return [sandbox.submit("v6/video/text2video", {"prompt": "a fox"})["id"] for _ in range(count)]


def wait_until_asked_for(airflow: AirflowInstance, sandbox: Sandbox, ids: Iterable[int], since: float) -> None:
    """Wait until each job has been asked for since a moment of ``time.monotonic()``."""
    paths = {f"/api/v6/video/fetch/{job_id}" for job_id in ids}

    def asked_for() -> bool:
        return paths <= {request.path for request in sandbox.requests if request.at > since}

    airflow.wait_until(asked_for, PATIENCE, "not all jobs are asked for")


def wait_until_deferred(airflow: AirflowInstance, run_id: str, count: int) -> None:
    def deferred() -> bool:
        return [task["state"] for task in airflow.task_instances(DAG, run_id)].count("deferred") == count

    airflow.wait_until(deferred, PATIENCE, f"not all {count} sensors are deferred")


def urls_of(sandbox: Sandbox, ids: Iterable[int]) -> list[str]:
    jobs = sandbox.jobs
    return [url for job_id in ids for url in output_urls(jobs[job_id], sandbox.url)]


def test_a_killed_triggerer_loses_nothing(airflow: AirflowInstance, held_sandbox: Sandbox):
    group, singles = submit(held_sandbox, 40), submit(held_sandbox, 10)
    run_id = airflow.trigger(DAG, {"group": json.dumps(group), "singles": json.dumps(singles)})
    wait_until_deferred(airflow, run_id, 1 + len(singles))
    wait_until_asked_for(airflow, held_sandbox, [*group, *singles], since=time.monotonic())

    seen, unseen = group[:10], [*group[10:20], *singles[:5]]
    finishing = time.monotonic()
    for job_id in seen:
        held_sandbox.finish(job_id)
    # The triggerer knows of these, and its knowledge dies with it.
    wait_until_asked_for(airflow, held_sandbox, seen, since=finishing)
    airflow.kill("triggerer")
    for job_id in unseen:
        held_sandbox.finish(job_id)
    states = {task["state"] for task in airflow.task_instances(DAG, run_id) if task["task_id"] != "singles"}
    assert states == {"deferred"}

    killed = time.monotonic()
    airflow.launch("triggerer-2")
    # The second triggerer has taken all over.
    wait_until_asked_for(airflow, held_sandbox, [*group[20:], *singles[5:]], since=killed)
    held_sandbox.finish_all()

    assert airflow.wait_for_run(DAG, run_id, PATIENCE) == "success"
    assert airflow.xcom(DAG, run_id, "group") == urls_of(held_sandbox, group)
    for index, job_id in enumerate(singles):
        assert airflow.xcom(DAG, run_id, "single", map_index=index) == urls_of(held_sandbox, [job_id])
    records = airflow.xcom(DAG, run_id, "group", "jobs")
    assert [(record["id"], record["status"]) for record in records] == [(str(job_id), "success") for job_id in group]
    assert {task["try_number"] for task in airflow.task_instances(DAG, run_id)} == {1}
    # Resumed once. (Airflow's own "Trigger fired event" comes, now and then, in the triggerer's log instead.)
    assert airflow.task_log(DAG, run_id, "group").count("40 of 40 jobs succeeded, with 40 outputs") == 1
    assert airflow.database.sql("SELECT count(*) AS left_over FROM trigger") == [{"left_over": 0}]
