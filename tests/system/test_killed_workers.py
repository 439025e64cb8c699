"""What a worker that is killed costs: no second submission, whenever it dies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from airflow_instance import AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import PATIENCE, REMEMBERS, asked_for, urls_of_prompt, wait_for_end

DAG = "killed_workers"

TASKS = ("waiting", "submitting", "between")

FOREVER = float("inf")


@pytest.mark.skipif(not REMEMBERS, reason="before Airflow 3.3 a task knows nothing of its earlier tries")
def test_no_retry_after_a_killed_worker_pays_twice(airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]):
    waiting = connected_sandbox("modelslab_killed_waiting", duration=FOREVER)
    # Replies that a worker never lives to see: the jobs exist, and are paid for.
    submitting = connected_sandbox("modelslab_killed_submitting", duration=FOREVER, slow_seconds=600)
    submitting.script("submit", ["slow"])
    between = connected_sandbox("modelslab_killed_between", duration=FOREVER, slow_seconds=600)
    between.script("submit", [None, "slow"])
    run_id = airflow.trigger(DAG)

    def kill(task_id: str, when: Callable[[], object]) -> None:
        airflow.wait_until(when, PATIENCE, f"task {task_id!r} has not come to where it is to be killed")
        airflow.kill_worker(DAG, run_id, task_id)

    kill("submitting", lambda: submitting.jobs)
    kill("between", lambda: len(between.jobs) == 2)
    kill("waiting", lambda: asked_for(waiting, since=0.0))

    def tried_again(task_id: str) -> Callable[[], bool]:
        return lambda: airflow.task_instance(DAG, run_id, task_id)["try_number"] == 2

    for task_id in ("waiting", "between"):
        airflow.wait_until(tried_again(task_id), PATIENCE, f"task {task_id!r} is not tried again")
    waiting.finish_all()
    between.finish_all()

    states = {task_id: wait_for_end(airflow, DAG, run_id, task_id)["state"] for task_id in TASKS}
    logs = {task_id: airflow.task_log(DAG, run_id, task_id, try_number=2) for task_id in TASKS}
    assert states == {"waiting": "success", "submitting": "failed", "between": "failed"}, logs

    assert airflow.xcom(DAG, run_id, "waiting") == urls_of_prompt(waiting, "waiting")
    assert "ModelsLabAmbiguousSubmission: This may have been billed" in logs["submitting"]
    items = airflow.xcom(DAG, run_id, "between", "manifest")["items"]
    assert [(item["name"], item["status"], item["outputs"]) for item in items] == [
        ("first", "success", urls_of_prompt(between, "first")),
        ("second", "failed", []),
    ]
    assert "This may have been billed" in items[1]["message"]
    counted = [sandbox.state()["requests"]["submit"] for sandbox in (waiting, submitting, between)]
    assert counted == [1, 1, 2]
