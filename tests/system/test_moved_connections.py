"""A connection that is changed while tasks are deferred, with a real triggerer."""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_instance import AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import (
    check_run,
    jobs_of_prompt,
    urls_of_prompt,
    wait_for_end,
    wait_for_log,
    wait_until_asked_for,
    wait_until_parked,
)

DAG, CONNECTION = "moves", "modelslab_moving"


def test_each_run_gets_the_outputs_of_the_host_that_it_was_started_with(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]
):
    """Both hosts number their jobs alike, so that a poll of the wrong one brings another picture."""
    runs = {}
    for prompt in ("on the first host", "on the second host"):
        sandbox = connected_sandbox(CONNECTION, duration=float("inf"), key=f"key {prompt}")
        run_id = airflow.trigger(DAG, {"prompt": prompt})
        runs[run_id] = sandbox, prompt
        wait_until_parked(airflow, DAG, run_id, "generate")
        # Since then the trigger polls, so that it has looked the connection up: from now on that may change.
        wait_until_asked_for(airflow, sandbox, jobs_of_prompt(sandbox, prompt), since=time.monotonic())
    for sandbox, _ in runs.values():
        sandbox.finish_all()
    for run_id, (sandbox, prompt) in runs.items():
        check_run(airflow, DAG, run_id)
        assert airflow.xcom(DAG, run_id, "generate") == urls_of_prompt(sandbox, prompt)


def test_a_wait_of_a_host_that_the_connection_has_left_says_so(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]
):
    """The triggerer dies meanwhile: the next one knows the former host from the fingerprint only."""
    first = connected_sandbox(CONNECTION, duration=float("inf"), key="the key of the first host")
    run_id = airflow.trigger(DAG, {"prompt": "left behind"})
    wait_until_parked(airflow, DAG, run_id, "generate")
    airflow.kill("triggerer")
    second = connected_sandbox(CONNECTION, duration=float("inf"), key="the key of the second host")
    airflow.launch("triggerer-2")
    first.finish_all()
    task = wait_for_end(airflow, DAG, run_id, "generate")
    assert task["state"] == "failed"
    said = f"submitted to {first.url}, and the connection now leads to {second.url}"
    wait_for_log(airflow, DAG, run_id, "generate", said)
    assert not second.state()["requests"].get("fetch", 0)
