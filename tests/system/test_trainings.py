"""Trainings and workflow runs in a real Airflow: hours of waiting, a killed triggerer, and a task that is cleared."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS
from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import ENDS, check_run, wait_until_all_parked, wait_until_parked

HOUR = 3600.0


def asks_since(sandbox: Sandbox, moment: float) -> set[str]:
    """Return the kinds of work that have been asked for since a moment of ``time.monotonic()``."""
    kinds = {"/api/v6/trainer/status/": "training", "/api/v1/workflows/w-1/runs/": "run"}
    paths = [request.path for request in sandbox.requests if request.at > moment]
    return {name for path, name in kinds.items() for each in paths if each.startswith(path)}


def test_hours_of_training_and_a_run_are_paid_for_once_though_the_triggerer_is_killed(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]
):
    sandbox = connected_sandbox("modelslab_trainings", duration=2 * HOUR)
    run_id = airflow.trigger("trainings", {})
    wait_until_all_parked(airflow, "trainings", run_id, 2)
    sandbox.skip(HOUR)
    moment = time.monotonic()
    airflow.wait_until(lambda: len(asks_since(sandbox, moment)) == 2, PATIENCE, "not both are asked for")

    airflow.kill("triggerer")
    sandbox.skip(0.7 * HOUR)  # The training is completed meanwhile, and its model not ready.
    killed = time.monotonic()
    airflow.launch("triggerer-2")
    airflow.wait_until(lambda: len(asks_since(sandbox, killed)) == 2, PATIENCE, "not both are asked for again")
    sandbox.skip(0.3 * HOUR)

    check_run(airflow, "trainings", run_id)
    training, run = sandbox.jobs.values()
    if training.request.endpoint != "v6/trainer":
        training, run = run, training
    assert sandbox.state()["submissions"] == {"accepted": 2, "rejected": 0}
    assert airflow.xcom("trainings", run_id, "wait_training") == [f"lora-{training.token[:8]}"]
    (record,) = airflow.xcom("trainings", run_id, "wait_training", "jobs")
    assert record["meta"]["inference"]["status"] == "ready"
    assert record["meta"]["config"]["hf_token"] == "***"
    assert airflow.xcom("trainings", run_id, "wait_run") == [f"{sandbox.url}/files/generations/{run.token}-0.png"]
    assert {task["try_number"] for task in airflow.task_instances("trainings", run_id)} == {1}


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="earlier triggerers tell no trigger that its task was cleared")
def test_the_log_of_a_cleared_training_says_that_it_goes_on(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]
):
    sandbox = connected_sandbox("modelslab_trainings", duration=2 * HOUR)
    run_id = airflow.trigger("killed_training", {})
    wait_until_parked(airflow, "killed_training", run_id, "train")
    moment = time.monotonic()
    airflow.wait_until(lambda: asks_since(sandbox, moment), PATIENCE, "the triggerer does not ask")
    airflow.clear("killed_training", run_id, "train")

    def told() -> bool:
        logs = airflow.task_log("killed_training", run_id, "train"), airflow.component_log("triggerer")
        return any("goes on, and is billed by the hour" in log for log in logs)

    airflow.wait_until(told, PATIENCE, "no log says that the training goes on")

    def run_ends() -> bool:
        sandbox.finish_all()  # Where a clear forgets the training, another one is started.
        return airflow.run_state("killed_training", run_id) in ENDS

    airflow.wait_until(run_ends, PATIENCE, "the cleared task does not end")
    check_run(airflow, "killed_training", run_id)
