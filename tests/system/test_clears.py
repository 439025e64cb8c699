"""What a clear costs: nothing is generated twice where a ledger remembers, and then only what had failed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from airflow_instance import AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import (
    ENDS,
    PATIENCE,
    Memory,
    jobs_of_prompt,
    urls_of,
    wait_for_end,
    wait_until_parked,
)

DAG = "clears"

TASKS = ("finished", "timed_out", "failed_item")

PROMPTS = ("finished", "timed out", "good", "bad")


@pytest.mark.selection(provokes_errors=True)
def test_a_clear_generates_only_what_failed_or_is_forgotten(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox], memories: list[Memory]
):
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

    def end_all(try_number: int) -> None:
        """Let a try of every task end, with all the jobs that it has."""

        def ended() -> bool:
            tasks = [task for name in runs for task in airflow.task_instances(DAG, runs[name])]
            again = [task for task in tasks if task["try_number"] >= try_number]
            if len(again) == len(tasks) and all(task["state"] in ENDS or airflow.is_parked(task) for task in tasks):
                for sandbox in sandboxes.values():
                    sandbox.finish_all()
            return len(again) == len(tasks) and all(task["state"] in ENDS for task in tasks)

        airflow.wait_until(ended, 2 * PATIENCE, f"not all tasks end their try {try_number}")

    for name, run_id in runs.items():
        for task_id in ("finished", "failed_item"):
            wait_until_parked(airflow, DAG, run_id, task_id)
        (finished,), (good,), (bad,) = (jobs_of_prompt(sandboxes[name], p) for p in ("finished", "good", "bad"))
        sandboxes[name].fail(bad, "No GPU left")
        for job_id in (finished, good):
            sandboxes[name].finish(job_id)
    ends = {(name, task_id): wait_for_end(airflow, DAG, runs[name], task_id) for name in runs for task_id in TASKS}
    states = {"finished": "success", "timed_out": "failed", "failed_item": "failed"}
    assert {case: task["state"] for case, task in ends.items()} == {case: states[case[1]] for case in ends}
    assert counted() == dict.fromkeys(runs, (1, 1, 1, 1))

    for name, task_id in ends:
        airflow.clear(DAG, runs[name], task_id)
    end_all(try_number=2)
    after_clears = {memory.name: (1, 1, 1, 2) if memory.outlives_clears else (2, 2, 2, 2) for memory in memories}
    assert counted() == after_clears
    for name, run_id in runs.items():
        jobs = jobs_of_prompt(sandboxes[name], "finished")
        assert airflow.xcom(DAG, run_id, "finished") == urls_of(sandboxes[name], jobs[-1:])

    # A clear of the whole run keeps the task state store, where Airflow has one.
    for run_id in runs.values():
        airflow.clear_run(DAG, run_id)
    end_all(try_number=3)
    assert counted() == {
        memory.name: tuple(count + (not memory.outlives_retries) for count in after_clears[memory.name])
        for memory in memories
    }
    assert {airflow.run_state(DAG, run_id) for run_id in runs.values()} == {"success"}
