"""More prompts than the account has queue slots, under a real scheduler."""

from __future__ import annotations

from collections.abc import Callable

from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import (
    ENDS,
    check_run,
    urls_of_prompt,
    wait_for_end,
    wait_until_all_parked,
)

SLOTS = 5

PROMPTS = 40

FOREIGN = "v6/video"
"""The family of the foreign client's jobs, which do not end by themselves."""


def outputs_of_prompts(sandbox: Sandbox, count: int) -> list[list[str]]:
    return [urls_of_prompt(sandbox, f"prompt {number}") for number in range(count)]


def start(airflow: AirflowInstance, dag_id: str, connection: str, prompts: int) -> str:
    return airflow.trigger(dag_id, {"connection": connection, "prompts": prompts})


def test_forty_prompts_pass_a_queue_of_five_slots(airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]):
    pooled = connected_sandbox("modelslab_pooled", duration=float("inf"), queue_limit=SLOTS)
    batched = connected_sandbox("modelslab_batched", duration=1.0, queue_limit=SLOTS)
    shared = connected_sandbox(
        "modelslab_shared", duration=1.0, durations={FOREIGN: float("inf")}, queue_limit=SLOTS, retry_after=2
    )
    foreign = [shared.submit("v6/video/text2video", {"prompt": "not ours"})["id"] for _ in range(SLOTS)]
    airflow.cli("pools", "set", "modelslab", str(SLOTS), "queue slots of the account", "--include-deferred")

    # All three at once: they have nothing in common but the machine.
    refused_run = start(airflow, "generations_batch", "modelslab_shared", 10)
    batch_run = start(airflow, "generations_batch", "modelslab_batched", PROMPTS)
    mapped_run = start(airflow, "generations_mapped", "modelslab_pooled", PROMPTS)

    # Refused, and refused again, it waits without holding a worker.
    airflow.wait_until(lambda: shared.state()["submissions"]["rejected"] >= 2, PATIENCE, "nothing is refused")
    airflow.wait_for_state("generations_batch", refused_run, "generate", "deferred")
    wait_until_all_parked(airflow, "generations_mapped", mapped_run, SLOTS)
    for job_id in foreign:
        shared.finish(job_id)

    assert wait_for_end(airflow, "generations_batch", refused_run, "generate")["state"] == "success"
    # All that time the pool has kept back the other mapped tasks: the jobs of the five that are deferred go on.
    assert pooled.state()["submissions"] == {"accepted": SLOTS, "rejected": 0}

    def mapped_run_ends() -> bool:
        pooled.finish_all()
        return airflow.run_state("generations_mapped", mapped_run) in ENDS

    airflow.wait_until(mapped_run_ends, 3 * PATIENCE, "the mapped tasks have not ended")
    assert wait_for_end(airflow, "generations_batch", batch_run, "generate")["state"] == "success"

    for sandbox, run_id, count in ((shared, refused_run, 10), (batched, batch_run, PROMPTS)):
        outputs = outputs_of_prompts(sandbox, count)
        assert airflow.xcom("generations_batch", run_id, "generate") == [url for urls in outputs for url in urls]
        manifest = airflow.xcom("generations_batch", run_id, "generate", "manifest")
        assert (manifest["total"], manifest["succeeded"]) == (count, count)
        assert [item["outputs"] for item in manifest["items"]] == outputs
    for index, urls in enumerate(outputs_of_prompts(pooled, PROMPTS)):
        assert airflow.xcom("generations_mapped", mapped_run, "generate", map_index=index) == urls

    # The pool, and the batch by itself, kept within the slots; each prompt was submitted once.
    for sandbox in (pooled, batched):
        assert sandbox.state()["submissions"] == {"accepted": PROMPTS, "rejected": 0}
    assert shared.state()["submissions"]["accepted"] == SLOTS + 10


def test_25_tasks_without_retries_pass_a_queue_of_five_slots(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]
):
    sandbox = connected_sandbox("modelslab_plain", duration=float("inf"), queue_limit=SLOTS, retry_after=1)
    run_id = start(airflow, "generations_plain", "modelslab_plain", 25)
    # Five jobs are accepted, and go on until a sixth was refused, however slowly the tasks start.
    airflow.wait_until(lambda: sandbox.state()["submissions"]["rejected"] > 0, PATIENCE, "the queue is never full")

    def run_ends() -> bool:
        sandbox.finish_all()
        return airflow.run_state("generations_plain", run_id) in ENDS

    airflow.wait_until(run_ends, 3 * PATIENCE, "the tasks have not ended")
    check_run(airflow, "generations_plain", run_id)
    assert airflow.xcom("generations_plain", run_id, "wait") == [
        url for urls in outputs_of_prompts(sandbox, 25) for url in urls
    ]
    assert sandbox.state()["submissions"]["accepted"] == 25
