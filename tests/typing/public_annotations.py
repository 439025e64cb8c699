"""
What type checkers see of the public names; mypy reads this file (``make types``), and nothing runs it.

A line that must be refused has a ``type: ignore``, which mypy reports as unused when it is not refused any more.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, XComArg
from typing_extensions import assert_type

from airflow_provider_modelslab.endpoints import FetchEndpoint
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabJobFailed, ModelsLabRateLimited
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job, JobStatus, Output
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger

PATH = "v6/images/text2img"


def the_hook() -> None:
    hook = ModelsLabHook("modelslab_default")
    assert_type(hook.submit(PATH, {"prompt": "a fox"}), Job)
    assert_type(hook.fetch(1, "v3"), Job)
    assert_type(hook.fetch("1", FetchEndpoint.V3_IMAGES), Job)
    assert_type(hook.wait(Job("1", "v3"), timeout=60), Job)
    assert_type(hook.wait({"id": 1}, "v3"), Job)
    assert_type(hook.balance(), float)
    assert_type(hook.test_connection(), tuple[bool, str])
    hook.fetch(1.5, "v3")  # type: ignore[arg-type]
    assert_type(hook.fetch(Job("1", "v3")), Job)
    hook.submit(PATH, "a fox")  # type: ignore[arg-type]


async def the_hook_on_an_event_loop(hook: ModelsLabHook) -> None:
    assert_type(await hook.afetch(1, "v3"), Job)
    assert_type(await hook.asubmit(PATH, {"prompt": "a fox"}), Job)


def a_job(job: Job) -> None:
    assert_type(job.id, str)
    assert_type(job.status, JobStatus)
    assert_type(job.outputs, list[Output])
    assert_type(job.eta, float | None)
    assert_type(job.to_dict(), dict[str, Any])
    Job("1", "v3", "done")  # type: ignore[arg-type]
    job.status = "failed"  # type: ignore[misc]


def the_sensor(upstream: XComArg) -> None:
    ModelsLabJobSensor(task_id="ids", jobs=[1, "2"], endpoint=FetchEndpoint.V3_IMAGES, timeout=timedelta(hours=1))
    ModelsLabJobSensor(task_id="upstream", jobs=upstream, output_path="s3://bucket/", if_exists="overwrite")
    ModelsLabJobSensor(task_id="refused", jobs=1, if_exists="sometimes")  # type: ignore[arg-type]
    ModelsLabJobSensor([1], task_id="refused")  # type: ignore[call-arg]


def the_operator(upstream: XComArg) -> None:
    ModelsLabGenerateOperator(task_id="one", endpoint=PATH, payload={"prompt": "a fox"}, deferrable=True)
    ModelsLabGenerateOperator(task_id="many", endpoint=PATH, payloads={"fox": {"prompt": "a fox"}}, max_in_flight=3)
    ModelsLabGenerateOperator(task_id="upstream", endpoint=PATH, payloads=upstream)
    ModelsLabGenerateOperator(task_id="template", endpoint=PATH, payload="{{ params.payload }}")
    ModelsLabGenerateOperator(task_id="refused", endpoint=PATH, payload=["a fox"])  # type: ignore[arg-type]
    ModelsLabGenerateOperator(task_id="refused", payload={})  # type: ignore[call-arg]


def the_trigger(trigger: ModelsLabJobTrigger) -> None:
    assert_type(trigger.serialize(), tuple[str, dict[str, Any]])


def errors() -> list[type[AirflowFailException]]:
    """A failure that a retry cannot mend is one of Airflow's; a full queue tells when to come back."""
    try:
        ModelsLabHook().submit(PATH, {}, queue_timeout=0)
    except ModelsLabRateLimited as error:
        assert_type(error.retry_after, float | None)
    return [ModelsLabArgumentError, ModelsLabJobFailed]


def the_sandbox() -> None:
    with Sandbox(duration=1.0) as sandbox:
        assert_type(sandbox, Sandbox)
        assert_type(sandbox.url, str)
        assert_type(sandbox.connection, str)
