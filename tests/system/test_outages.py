"""What becomes of waits while ModelsLab is down, or its key is another one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from airflow_instance import PATIENCE, AirflowInstance, free_port

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import (
    check_run,
    submit,
    urls_of,
    urls_of_prompt,
    wait_until_all_parked,
    wait_until_asked_for,
)

DAG = "restarts"

OUTAGE = float(os.environ.get("OUTAGE_SECONDS", "20"))
"""How long ModelsLab is down."""

LATE = 40.0
"""Seconds after which a wait is older than "Request not found" must have persisted to be believed."""


def start_waits(airflow: AirflowInstance, connection: str, group: list[int], singles: list[int]) -> str:
    conf = {"connection": connection, "group": json.dumps(group), "singles": json.dumps(singles)}
    return airflow.trigger(DAG, conf)


def check_waits(airflow: AirflowInstance, run_id: str, sandbox: Sandbox, group: list[int], singles: list[int]) -> None:
    """Wait until a run ends well, and see to it that each task got what is its own, in its first try."""
    check_run(airflow, DAG, run_id)
    assert airflow.xcom(DAG, run_id, "group") == urls_of(sandbox, group)
    for index, job_id in enumerate(singles):
        assert airflow.xcom(DAG, run_id, "single", map_index=index) == urls_of(sandbox, [job_id])
    assert {task["try_number"] for task in airflow.task_instances(DAG, run_id)} == {1}


def test_an_outage_fails_no_task(airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]):
    # Nobody else may get its port while it is down.
    sandbox = connected_sandbox("modelslab_down", duration=float("inf"), queue_limit=None, port=free_port())
    group, singles = submit(sandbox, 20), submit(sandbox, 5)
    late_group, late_singles = submit(sandbox, 3), submit(sandbox, 1)
    before = start_waits(airflow, "modelslab_down", group, singles)
    wait_until_all_parked(airflow, DAG, before, 1 + len(singles))
    wait_until_asked_for(airflow, sandbox, [*group, *singles], since=time.monotonic())

    sandbox.stop()
    end = time.monotonic() + OUTAGE
    # Waits and submissions that begin now do not fail either.
    amid = start_waits(airflow, "modelslab_down", late_group, late_singles)
    generations = airflow.trigger("generations_batch", {"connection": "modelslab_down", "prompts": 2})
    wait_until_all_parked(airflow, DAG, amid, 1 + len(late_singles))
    airflow.wait_for_state("generations_batch", generations, "generate", "deferred")
    airflow.wait_until(lambda: time.monotonic() >= end, OUTAGE + PATIENCE, "time stands still")
    for run_id, count in ((before, 1 + len(singles)), (amid, 1 + len(late_singles))):
        wait_until_all_parked(airflow, DAG, run_id, count)
    sandbox.finish_all()
    sandbox.start()

    check_waits(airflow, before, sandbox, group, singles)
    check_waits(airflow, amid, sandbox, late_group, late_singles)
    airflow.wait_until(lambda: sandbox.state()["jobs"]["processing"] == 2, PATIENCE, "nothing is submitted afterwards")
    sandbox.finish_all()
    check_run(airflow, "generations_batch", generations)
    urls = [url for number in range(2) for url in urls_of_prompt(sandbox, f"prompt {number}")]
    assert airflow.xcom("generations_batch", generations, "generate") == urls


def test_a_stray_not_found_late_in_a_wait_fails_no_task(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]
):
    """Longer after the start of the wait than such an answer must persist to be believed."""
    sandbox = connected_sandbox("modelslab_stray", duration=float("inf"))
    group, singles = submit(sandbox, 1), submit(sandbox, 1)
    run_id = start_waits(airflow, "modelslab_stray", group, singles)
    wait_until_all_parked(airflow, DAG, run_id, 1 + len(singles))
    wait_until_asked_for(airflow, sandbox, [*group, *singles], since=time.monotonic())
    late = time.monotonic() + LATE
    airflow.wait_until(lambda: time.monotonic() >= late, PATIENCE, "time stands still")

    sandbox.script("fetch", ["not_found"] * 2)  # for the next two polls: of both jobs, or of one
    wait_until_asked_for(airflow, sandbox, [*group, *singles], since=late)
    after = time.monotonic()
    wait_until_asked_for(airflow, sandbox, [*group, *singles], since=after)
    sandbox.finish_all()
    check_waits(airflow, run_id, sandbox, group, singles)
    logs = airflow.task_log(DAG, run_id, "group"), airflow.task_log(DAG, run_id, "single", map_index=0)
    assert any("may be in progress all the same" in log for log in logs)


def test_a_new_key_is_found_while_tasks_are_deferred(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]
):
    sandbox = connected_sandbox("modelslab_rotated", duration=float("inf"))
    group, singles = submit(sandbox, 10), submit(sandbox, 3)
    run_id = start_waits(airflow, "modelslab_rotated", group, singles)
    wait_until_all_parked(airflow, DAG, run_id, 1 + len(singles))
    wait_until_asked_for(airflow, sandbox, [*group, *singles], since=time.monotonic())

    old, new = sandbox.key, "another-key-of-the-sandbox"
    airflow.store_connection("modelslab_rotated", {**json.loads(sandbox.connection), "password": new})
    stored = time.monotonic()
    sandbox.rotate_key(new)

    def asked_with(key: str) -> bool:
        return any(request.json["key"] == key for request in sandbox.requests if request.at > stored)

    airflow.wait_until(lambda: asked_with(old), PATIENCE, "the connection is looked up at every poll")
    airflow.wait_until(lambda: asked_with(new), PATIENCE, "the new key is not found")
    wait_until_asked_for(airflow, sandbox, [*group, *singles], since=time.monotonic())
    sandbox.finish_all()
    check_waits(airflow, run_id, sandbox, group, singles)
