"""Trainings and workflow runs over real sockets: hook, sensor and operator, on both transports."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_modelslab.exceptions import (
    ModelsLabArgumentError,
    ModelsLabAuthError,
    ModelsLabJobFailed,
    ModelsLabRequestError,
)
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.pacing import FAST, set_policy
from tests.support.raw_server import RawServer, reply
from tests.support.tasks import RecordingTaskInstance, StateStore, deferral_of, run
from tests.support.triggers import event_of, make_trigger

KINDS = [
    ("v6/trainer/train", "v6/trainer"),
    ("v3/lora_fine_tune", "v3/lora_fine_tune"),
    ("v1/workflows/w-1/run", "v1/workflows/w-1"),
]
STARTS = [start for start, _ in KINDS]

PROCESSING = {
    "v6/trainer": {"status": "success", "message": "training_started", "data": {"status": "training_started"}},
    "v3/lora_fine_tune": {"status": "success", "messege": "deploying_gpu"},
    "v1/workflows/w-1": {"status": "success", "execution": {"status": "running"}},
}


def fetch(hook: ModelsLabHook, job: Job) -> Job:
    return hook.fetch(job.id, job.endpoint)


def afetch(hook: ModelsLabHook, job: Job) -> Job:
    return asyncio.run(hook.afetch(job.id, job.endpoint))


def submit(hook: ModelsLabHook, path: str) -> Job:
    return hook.submit(path, {"steps": 5})


def asubmit(hook: ModelsLabHook, path: str) -> Job:
    return asyncio.run(hook.asubmit(path, {"steps": 5}))


def cancel(hook: ModelsLabHook, job: Job) -> None:
    hook.cancel(job)


def acancel(hook: ModelsLabHook, job: Job) -> None:
    asyncio.run(hook.acancel(job))


fetches = pytest.mark.parametrize("ask", [fetch, afetch])
submits = pytest.mark.parametrize("start", [submit, asubmit])
cancels = pytest.mark.parametrize("stop", [cancel, acancel])


@pytest.fixture
def quick(monkeypatch):
    """Poll long work without delay."""
    set_policy(monkeypatch, **FAST, min_long_delay=0.01, max_long_delay=0.02)


@pytest.fixture
def context() -> dict[str, Any]:
    return {"ti": RecordingTaskInstance(), "task_state_store": StateStore()}


def expected_outputs(sandbox: Sandbox, path: str) -> list[str]:
    (work,) = sandbox.jobs.values()
    return {
        "v6/trainer/train": [f"lora-{work.token[:8]}"],
        "v3/lora_fine_tune": [work.public_id],
        "v1/workflows/w-1/run": [f"{sandbox.url}/files/generations/{work.token}-0.png"],
    }[path]


# --- the hook ---


@submits
@fetches
@pytest.mark.parametrize(("path", "endpoint"), KINDS)
def test_work_is_started_and_asked_for(sandbox: Sandbox, start, ask, path, endpoint):
    hook = ModelsLabHook()
    job = start(hook, path)
    assert (job.endpoint, job.status) == (endpoint, "processing")
    assert ask(hook, job).status == "processing"
    sandbox.finish_all()
    done = ask(hook, job)
    assert (done.status, done.outputs) == ("success", expected_outputs(sandbox, path))
    assert len(sandbox.jobs) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("path", "endpoint"), KINDS)
def test_the_hook_waits_for_work(sandbox: Sandbox, path, endpoint):
    hook = ModelsLabHook()
    job = hook.submit(path, {})
    sandbox.finish_all()
    assert hook.wait(job.id, endpoint).outputs == expected_outputs(sandbox, path)


@fetches
def test_a_run_is_asked_for_with_get_under_the_connections_host(raw_server: RawServer, monkeypatch, ask):
    connection = json.loads(raw_server.connection)
    connection["host"] += "/gateway"
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    raw_server.answer(reply(PROCESSING["v1/workflows/w-1"]))
    assert ask(ModelsLabHook(), Job(id="12345", endpoint="v1/workflows/w-1")).status == "processing"
    (request,) = raw_server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"GET /gateway/api/v1/workflows/w-1/runs/12345 HTTP/1.1\r\n")
    assert b"\r\nkey: the-api-key" in head
    assert body == b""


@submits
def test_a_run_is_started_without_the_key_in_its_parameters(raw_server: RawServer, monkeypatch, start):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply({"status": "success", "execution_id": 12345}, 202))
    assert start(ModelsLabHook(), "v1/workflows/w-1/run").id == "12345"
    (request,) = raw_server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/workflows/w-1/run HTTP/1.1\r\n")
    assert b"\r\nkey: the-api-key" in head
    assert json.loads(body) == {"steps": 5}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@fetches
def test_no_redirect_gets_the_key_of_a_header(raw_server: RawServer, monkeypatch, log, ask, status):
    with RawServer() as elsewhere:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
        raw_server.answer(reply({}, status, {"Location": f"{elsewhere.url}/api/v1/workflows/w-1/runs/1"}))
        with pytest.raises(AirflowException) as caught:
            ask(ModelsLabHook(), Job(id="1", endpoint="v1/workflows/w-1"))
        assert not elsewhere.requests
        assert "the-api-key" not in str(caught.value) + log.text


@fetches
@pytest.mark.parametrize(("path", "endpoint"), KINDS)
def test_a_wrong_key_is_said_so(sandbox: Sandbox, monkeypatch, ask, path, endpoint):
    job = ModelsLabHook().submit(path, {})
    connection = {**json.loads(sandbox.connection), "password": "a-wrong-key-of-enough-length"}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    with pytest.raises(ModelsLabAuthError):
        ask(ModelsLabHook(), job)


@fetches
def test_a_key_that_a_reply_echoes_is_taken_out(raw_server: RawServer, monkeypatch, log, ask):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    echo = {"status": "failed", "error": "bad header key: the-api-key"}
    raw_server.answer(
        reply({"status": "success", "execution": echo, "error": "the-api-key", "steps": [{"name": "the-api-key"}]})
    )
    job = ask(ModelsLabHook(), Job(id="1", endpoint="v1/workflows/w-1"))
    assert job.status == "failed"
    assert "the-api-key" not in json.dumps(job.to_dict()) + log.text


@cancels
@pytest.mark.parametrize("path", ["v6/trainer/train", "v1/workflows/w-1/run"])
def test_work_is_cancelled_once(sandbox: Sandbox, stop, path):
    hook = ModelsLabHook()
    job = hook.submit(path, {})
    stop(hook, job)
    (work,) = sandbox.jobs.values()
    assert work.stopped
    with pytest.raises(ModelsLabRequestError, match=f"cancelling {job}.*already finished"):
        stop(hook, job)


def test_a_cancelled_run_has_failed(sandbox: Sandbox):
    hook = ModelsLabHook()
    job = hook.submit("v1/workflows/w-1/run", {})
    hook.cancel(job.id, job.endpoint)
    assert (hook.fetch(job.id, job.endpoint).status, sandbox.state()["requests"]["cancel"]) == ("failed", 1)


@cancels
def test_what_cannot_be_cancelled_sends_nothing(sandbox: Sandbox, stop):
    hook = ModelsLabHook()
    for path in ("v3/lora_fine_tune", "v6/images/text2img"):
        job = hook.submit(path, {"prompt": "a fox"})
        with pytest.raises(ModelsLabArgumentError, match=f"{job.id} cannot be cancelled"):
            stop(hook, job)
    assert sandbox.state()["requests"]["cancel"] == sandbox.state()["requests"]["other"] == 0


# --- sensor and operator ---


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize(("path", "endpoint"), KINDS)
def test_the_sensor_waits_for_work_in_every_mode(sandbox: Sandbox, context, path, endpoint, deferrable):
    job = ModelsLabHook().submit(path, {})
    waiting = ModelsLabJobSensor(
        task_id="wait", jobs=job.id, endpoint=endpoint, deferrable=deferrable, poke_interval=0.01
    )
    if deferrable:
        outputs = run(waiting, context, lambda deferrals: sandbox.finish_all())
    else:
        sandbox.finish_all()
        outputs = waiting.execute(context)
    assert outputs == expected_outputs(sandbox, path)
    (record,) = context["ti"].xcoms["jobs"]
    assert (record["id"], record["endpoint"], record["status"]) == (job.id, endpoint, "success")


def test_a_sensors_first_poll_is_immediate_and_the_next_one_comes_after_a_minute(sandbox: Sandbox, context):
    job = ModelsLabHook().submit("v6/trainer/train", {})
    deferred = deferral_of(ModelsLabJobSensor(task_id="wait", jobs=job.to_dict(), deferrable=True), context)
    assert sandbox.state()["requests"]["fetch"] == 1
    trigger = deferred.trigger

    async def listen() -> None:
        async for _ in trigger.run():
            pass

    async def scenario() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(listen(), 2.0)

    asyncio.run(scenario())
    assert sandbox.state()["requests"]["fetch"] == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("path", STARTS)
def test_the_operator_starts_work_once_and_returns_its_result(sandbox: Sandbox, context, path):
    operator = ModelsLabGenerateOperator(task_id="train", endpoint=path, payload={"steps": 5}, deferrable=True)
    assert run(operator, context, lambda deferrals: sandbox.finish_all()) == expected_outputs(sandbox, path)
    (record,) = context["ti"].xcoms["jobs"]
    assert record["status"] == "success"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("path", STARTS)
def test_a_retry_re_attaches_to_work_of_an_earlier_try(sandbox: Sandbox, context, path):
    operator = ModelsLabGenerateOperator(task_id="train", endpoint=path, payload={"steps": 5}, deferrable=True)
    deferral_of(operator, context)
    sandbox.finish_all()
    again = ModelsLabGenerateOperator(task_id="train", endpoint=path, payload={"steps": 5}, deferrable=True)
    assert run(again, context) == expected_outputs(sandbox, path)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("path", ["v6/trainer/train", "v1/workflows/w-1/run"])
def test_work_that_fails_fails_the_task_with_its_reason(sandbox: Sandbox, context, path):
    operator = ModelsLabGenerateOperator(task_id="train", endpoint=path, payload={}, deferrable=True)
    with pytest.raises(ModelsLabJobFailed, match="CUDA out of memory"):
        run(operator, context, lambda deferrals: sandbox.fail(max(sandbox.jobs), "CUDA out of memory"))


@pytest.mark.usefixtures("quick")
def test_a_wait_for_work_survives_faults(sandbox: Sandbox):
    job = ModelsLabHook().submit("v1/workflows/w-1/run", {})
    sandbox.script("fetch", ["http_502", "drop", "html", "http_500"])
    sandbox.finish_all()
    (record,) = event_of(make_trigger([job.to_compact_dict()]))["jobs"]
    assert record["outputs"] == expected_outputs(sandbox, "v1/workflows/w-1/run")
