"""What a clear costs: nothing is generated twice where a ledger remembers, and then only what had failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import (
    ENDS,
    Memory,
    check_run,
    jobs_of_prompt,
    urls_of,
    wait_for_end,
)

DAG = "clears"

TASKS = ("finished", "timed_out", "failed_item")

PROMPTS = ("finished", "timed out", "good", "bad")


@pytest.mark.selection(provokes_errors=True)
def test_a_clear_generates_only_what_failed_or_is_forgotten(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox], memories: list[Memory]
):
    # Where a retry pays again, one that Airflow itself brings about on a busy machine would be counted.
    memories = [memory for memory in memories if memory.outlives_retries]
    sandboxes = {
        memory.name: connected_sandbox(f"modelslab_clears_{memory.name}", extra=memory.extra, duration=float("inf"))
        for memory in memories
    }
    runs = {name: airflow.trigger(DAG, {"memory": name}) for name in sandboxes}

    def counted() -> dict[str, tuple[int, ...]]:
        """Return how many jobs each prompt has, by memory."""
        return {
            name: tuple(len(jobs_of_prompt(sandbox, prompt)) for prompt in PROMPTS)
            for name, sandbox in sandboxes.items()
        }

    def instances() -> dict[tuple[str, str], dict[str, Any]]:
        return {(name, task_id): airflow.task_instance(DAG, runs[name], task_id) for name in runs for task_id in TASKS}

    def end_all(before: dict[tuple[str, str], dict[str, Any]]) -> None:
        """Let all tasks end after they were cleared, with all the jobs that they have."""

        def ended() -> bool:
            tasks = instances()
            are_new = all(task["try_number"] > before[case]["try_number"] for case, task in tasks.items())
            if are_new and all(task["state"] in ENDS or airflow.is_parked(task) for task in tasks.values()):
                for sandbox in sandboxes.values():
                    sandbox.finish_all()
            return are_new and all(task["state"] in ENDS for task in tasks.values())

        airflow.wait_until(ended, 2 * PATIENCE, "not all cleared tasks end")

    def parked() -> bool:
        return all(airflow.is_parked(task) for (_, task_id), task in instances().items() if task_id != "timed_out")

    airflow.wait_until(parked, 2 * PATIENCE, "not all tasks wait")
    for sandbox in sandboxes.values():
        (finished,), (good,), (bad,) = (jobs_of_prompt(sandbox, prompt) for prompt in ("finished", "good", "bad"))
        sandbox.fail(bad, "No GPU left")
        sandbox.finish(finished)
        sandbox.finish(good)
    ends = {(name, task_id): wait_for_end(airflow, DAG, runs[name], task_id) for name in runs for task_id in TASKS}
    states = {"finished": "success", "timed_out": "failed", "failed_item": "failed"}
    assert {case: task["state"] for case, task in ends.items()} == {case: states[case[1]] for case in ends}
    assert counted() == dict.fromkeys(runs, (1, 1, 1, 1))

    for name, task_id in ends:
        airflow.clear(DAG, runs[name], task_id)
    end_all(before=ends)
    after_clears = {memory.name: (1, 1, 1, 2) if memory.outlives_clears else (2, 2, 2, 2) for memory in memories}
    assert counted() == after_clears
    for name, run_id in runs.items():
        jobs = jobs_of_prompt(sandboxes[name], "finished")
        assert airflow.xcom(DAG, run_id, "finished") == urls_of(sandboxes[name], jobs[-1:])

    # A clear of the whole run keeps the task state store.
    cleared = instances()
    for run_id in runs.values():
        airflow.clear_run(DAG, run_id)
    end_all(before=cleared)
    assert counted() == after_clears
    for run_id in runs.values():
        check_run(airflow, DAG, run_id)
