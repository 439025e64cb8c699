"""``@task.modelslab``: what a function may return, and that it is judged before anything is stored or paid for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_modelslab.exceptions import ModelsLabArgumentError
from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.tasks import RecordingTaskInstance, run

PATH = "v6/images/text2img"


@pytest.fixture(autouse=True)
def instant_sandbox(monkeypatch):
    with Sandbox(instant=1.0) as instant:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", instant.connection)
        yield instant


@pytest.fixture
def context() -> Any:
    return {"ti": RecordingTaskInstance(), "animal": "fox"}


def operator_of(function: Callable[..., Any], **arguments: Any) -> Any:
    with DAG("decorated", schedule=None):
        decorate: Any = task.modelslab(endpoint=PATH, task_id="draw", **arguments)
        return decorate(function)().operator


async def a_fox() -> dict[str, str]:
    return {"prompt": "a fox"}


def prompts():
    yield {"prompt": "a fox"}


def test_an_async_function_is_awaited(instant_sandbox: Sandbox, context):
    assert len(run(operator_of(a_fox), context)) == 1


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        (lambda: {"prompt": "x", "key": "my-very-secret-key"}, "must not hold 'key'"),
        (lambda: [{"prompt": "x"}, {"key": "my-very-secret-key"}], r"payloads\[1\] must not hold 'key'"),
        (prompts, "not generator"),
        (lambda: {"a": {"prompt": "x"}}.values(), "not dict_values"),
        (lambda: None, "not NoneType"),
        (lambda: {"init_image": Path("/tmp/a.png")}, r"payload\['init_image'\] is a PosixPath"),
        (lambda: {"init_image": b"abc"}, r"payload\['init_image'\] is a bytes"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_it_is_stored(instant_sandbox: Sandbox, context, returned, complaint):
    with pytest.raises(ModelsLabArgumentError, match=complaint):
        operator_of(returned).execute(context)
    assert "my-very-secret-key" not in json.dumps(context["ti"].xcoms)
    assert not instant_sandbox.jobs


def test_texts_are_rendered_as_templates(instant_sandbox: Sandbox, context):
    run(operator_of(lambda: [{"prompt": "a {{ animal }}"}]), context)
    assert [job.request.meta["prompt"] for job in instant_sandbox.jobs.values()] == ["a fox"]


@pytest.mark.parametrize("multiple_outputs", [True, False])
def test_multiple_outputs_does_not_break_the_dag(multiple_outputs):
    operator_of(a_fox, multiple_outputs=multiple_outputs)
    with DAG("decorated", schedule=None):
        decorate: Any = task.modelslab(endpoint=PATH)
        assert (
            decorate(a_fox).override(multiple_outputs=multiple_outputs, task_id="other")().operator.task_id == "other"
        )
