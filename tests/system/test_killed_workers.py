"""What a worker that is killed costs: no second submission, whenever it dies and wherever the memory is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import Memory, asked_for, urls_of_prompt, wait_for_end

DAG = "killed_workers"

TASKS = ("waiting", "submitting", "between")

FOREVER = float("inf")


@pytest.mark.selection(provokes_errors=True)
def test_no_retry_after_a_killed_worker_pays_twice(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox], memories: list[Memory]
):
    memories = [memory for memory in memories if memory.outlives_retries]
    # Replies that a worker never lives to see: the jobs exist, and are paid for.
    faults: dict[str, list[str | None]] = {"waiting": [], "submitting": ["slow"], "between": [None, "slow"]}
    sandboxes: dict[tuple[str, str], Sandbox] = {}
    for memory in memories:
        for task_id in TASKS:
            name = f"modelslab_{task_id}_{memory.name}"
            sandbox = connected_sandbox(name, extra=memory.extra, duration=FOREVER, slow_seconds=600)
            sandbox.script("submit", faults[task_id])
            sandboxes[memory.name, task_id] = sandbox
    runs = {memory.name: airflow.trigger(DAG, {"memory": memory.name}) for memory in memories}

    is_there: dict[str, Callable[[Sandbox], object]] = {
        "waiting": partial(asked_for, since=0.0),
        "submitting": lambda sandbox: sandbox.jobs,
        "between": lambda sandbox: len(sandbox.jobs) == 2,
    }
    killed: dict[tuple[str, str], dict[str, Any]] = {}

    def all_tried_again() -> bool:
        """Kill what has come to where it is to be killed; Airflow has four workers, and misses the dead ones."""
        for name, task_id in sandboxes.keys() - killed.keys():
            sandbox = sandboxes[name, task_id]
            if is_there[task_id](sandbox):
                killed[name, task_id] = airflow.kill_worker(DAG, runs[name], task_id)
                sandbox.finish_all()  # before the next try polls: it need not be deferred
        for task in killed.values():
            airflow.expire_heartbeat(task)
        cases = sandboxes.keys() if len(killed) == len(sandboxes) else ()
        tries = [airflow.task_instance(DAG, runs[name], task_id)["try_number"] for name, task_id in cases]
        return min(tries, default=1) > 1

    airflow.wait_until(all_tried_again, 3 * PATIENCE, "not all tasks are killed and tried again")

    for memory in memories:
        run_id = runs[memory.name]
        ends = {task_id: wait_for_end(airflow, DAG, run_id, task_id) for task_id in TASKS}
        states = {task_id: task["state"] for task_id, task in ends.items()}
        logs = {task_id: airflow.task_log(DAG, run_id, task_id, task["try_number"]) for task_id, task in ends.items()}
        assert states == {"waiting": "success", "submitting": "failed", "between": "failed"}, logs
        waiting, between = sandboxes[memory.name, "waiting"], sandboxes[memory.name, "between"]
        assert airflow.xcom(DAG, run_id, "waiting") == urls_of_prompt(waiting, "waiting")
        assert "ModelsLabAmbiguousSubmission: Look into the account's history" in logs["submitting"]
        items = airflow.xcom(DAG, run_id, "between", "manifest")["items"]
        assert [(item["name"], item["status"], item["outputs"]) for item in items] == [
            ("first", "success", urls_of_prompt(between, "first")),
            ("second", "failed", []),
        ]
        assert "this may have been billed" in items[1]["message"]
    counted = {case: sandbox.state()["requests"]["submit"] for case, sandbox in sandboxes.items()}
    assert counted == {case: 2 if case[1] == "between" else 1 for case in sandboxes}

    # Told that it may have been billed, the user clears all. Only what is in doubt is submitted.
    for run_id in runs.values():
        airflow.clear_run(DAG, run_id)

    def ended_well() -> bool:
        for sandbox in sandboxes.values():
            sandbox.finish_all()
        return all(airflow.run_state(DAG, run_id) == "success" for run_id in runs.values())

    airflow.wait_until(ended_well, 2 * PATIENCE, "not all runs end well once they are cleared")
    counted = {case: sandbox.state()["requests"]["submit"] for case, sandbox in sandboxes.items()}
    assert counted == {case: {"waiting": 1, "submitting": 2, "between": 3}[case[1]] for case in sandboxes}
