"""Trainings and workflow runs over real sockets: hook, sensor and operator, on both transports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, redact

from airflow_provider_modelslab.exceptions import (
    ModelsLabArgumentError,
    ModelsLabAuthError,
    ModelsLabJobFailed,
    ModelsLabRequestError,
    ModelsLabTimeout,
)
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger
from tests.support.pacing import FAST, set_policy, simulate
from tests.support.raw_server import RawServer, reply
from tests.support.tasks import RecordingTaskInstance, StateStore, deferral_of, event_after, run
from tests.support.triggers import event_of, make_trigger
from tests.support.waiting import wait_until

KINDS = [
    ("v6/trainer/train", "v6/trainer"),
    ("v3/lora_fine_tune", "v3/lora_fine_tune"),
    ("v1/workflows/w-1/run", "v1/workflows/w-1"),
]
STARTS = [start for start, _ in KINDS]
UUID = "9b2f6c1e-4d3a-4f8e-a1b2-3c4d5e6f7a8b"

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


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_cancelled_run_is_not_submitted_once_more(sandbox: Sandbox, context, deferrable):
    """``retry_failed`` repeats what has failed by itself."""

    def cancel_elsewhere() -> None:
        wait_until(lambda: bool(sandbox.jobs))
        (run_id,) = sandbox.jobs
        ModelsLabHook().cancel(str(run_id), "v1/workflows/w-1")

    operator = ModelsLabGenerateOperator(
        task_id="run",
        endpoint="v1/workflows/w-1/run",
        payload={},
        retry_failed=1,
        deferrable=deferrable,
        timeout=300,
    )
    with ThreadPoolExecutor() as pool:
        cancelled = pool.submit(cancel_elsewhere)
        with pytest.raises(ModelsLabJobFailed, match="The run is cancelled"):
            run(operator, context)
        cancelled.result()
    assert len(sandbox.jobs) == 1


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


# --- what is no file, and what is secret ---


def test_output_path_is_refused_where_there_are_no_files(sandbox: Sandbox, context, tmp_path):
    folder = str(tmp_path)
    with pytest.raises(ModelsLabArgumentError, match="output_path has no effect on a training"):
        ModelsLabGenerateOperator(task_id="train", endpoint="v6/trainer/train", payload={}, output_path=folder)
    with pytest.raises(ModelsLabArgumentError, match="output_path has no effect on a training"):
        ModelsLabJobSensor(task_id="wait", jobs=UUID, endpoint="v6/trainer", output_path=folder)
    job = ModelsLabHook().submit("v3/lora_fine_tune", {}).to_dict()
    with pytest.raises(ModelsLabArgumentError, match="output_path has no effect on a training"):
        ModelsLabJobSensor(task_id="wait", jobs=job, output_path=folder).execute(context)


@pytest.mark.usefixtures("quick")
def test_the_outputs_of_a_run_are_stored(sandbox: Sandbox, context, tmp_path):
    operator = ModelsLabGenerateOperator(
        task_id="run", endpoint="v1/workflows/w-1/run", payload={}, output_path=str(tmp_path), deferrable=True
    )
    run(operator, context, lambda deferrals: sandbox.finish_all())
    (work,) = sandbox.jobs.values()
    assert (tmp_path / f"v1.workflows.w-1.{work.id}-0.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_training_that_outlasts_its_task_goes_on_and_the_log_says_how_to_stop_it(
    sandbox: Sandbox, context, log, deferrable, monkeypatch
):
    simulate(monkeypatch)
    tasks = [
        ModelsLabGenerateOperator(
            task_id="t", endpoint="v6/trainer/train", payload={}, timeout=0.5, deferrable=deferrable
        ),
        ModelsLabJobSensor(
            task_id="w",
            jobs=ModelsLabHook().submit("v6/trainer/train", {}).to_dict(),
            timeout=0.5,
            poke_interval=0.1,
            deferrable=deferrable,
        ),
    ]
    for task in tasks:
        log.clear()
        with pytest.raises(ModelsLabTimeout):
            run(task, context)
        assert "goes on, and is billed by the hour. To stop it, call ModelsLabHook" in log.text


TOKEN = f"hf_{'x1Y2z3' * 6}"
SECRETS = {"prompt": "a fox", "hf_token": TOKEN, "upload": {"password": "correct horse"}}


def check_nothing_is_kept(context: dict[str, Any], *texts: str) -> None:
    kept = json.dumps([context["ti"].xcoms, context["task_state_store"].texts, texts])
    assert TOKEN not in kept
    assert "correct horse" not in kept


@pytest.mark.usefixtures("quick")
def test_a_secret_parameter_reaches_modelslab_and_is_kept_nowhere(sandbox: Sandbox, context, log):
    operator = ModelsLabGenerateOperator(task_id="t", endpoint="v6/trainer/train", payload=SECRETS, deferrable=True)
    deferred = deferral_of(operator, context)
    sandbox.finish_all()
    event = event_after(deferred)
    operator.execute_complete(context, event)
    (training,) = sandbox.jobs.values()
    assert training.request.meta == SECRETS
    assert event["jobs"][0]["meta"]["config"] == {"prompt": "a fox", "hf_token": "***", "upload": {"password": "***"}}
    check_nothing_is_kept(context, log.text, json.dumps(event), json.dumps(deferred.trigger.serialize()))


@pytest.mark.usefixtures("quick")
def test_an_error_that_quotes_a_token_is_told_without_it(sandbox: Sandbox, context, log):
    operator = ModelsLabGenerateOperator(task_id="t", endpoint="v6/trainer/train", payload=SECRETS, deferrable=True)
    deferred = deferral_of(operator, context)
    sandbox.fail(max(sandbox.jobs), f"401 Unauthorized: {TOKEN}")
    event = event_after(deferred)
    with pytest.raises(ModelsLabJobFailed, match=r"401 Unauthorized: \*\*\*") as caught:
        operator.execute_complete(context, event)
    check_nothing_is_kept(context, log.text, json.dumps(event), str(caught.value))


@pytest.mark.usefixtures("quick")
def test_a_batch_with_secrets_stays_on_its_worker_until_all_is_submitted(monkeypatch, context, log):
    with Sandbox(duration=0.5) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", sandbox.connection)
        operator = ModelsLabGenerateOperator(
            task_id="t",
            endpoint="v6/trainer/train",
            payloads={"a": SECRETS, "b": {**SECRETS, "seed": 2}},
            deferrable=True,
            max_in_flight=1,
        )
        submitted: list[int] = []
        run(operator, context, lambda deferrals: submitted.append(len(sandbox.jobs)))
    assert submitted == [2]
    shown = [item["payload"]["hf_token"] for item in context["ti"].xcoms["manifest"]["items"]]
    assert shown == ["***", "***"]
    check_nothing_is_kept(context, log.text)


def submit_secret(hook: ModelsLabHook, secret: str = "correct-horse") -> None:
    hook.submit("v6/trainer/train", {"hf_token": secret})


def asubmit_secret(hook: ModelsLabHook, secret: str = "correct-horse") -> None:
    asyncio.run(hook.asubmit("v6/trainer/train", {"hf_token": secret}))


@pytest.mark.parametrize("start", [submit_secret, asubmit_secret])
def test_a_secret_parameter_is_masked_in_logs(sandbox: Sandbox, start):
    secret = f"correct-horse-of-{start.__name__}"
    start(ModelsLabHook(), secret)
    assert redact(f"the token is {secret}") == "the token is ***"


@pytest.mark.parametrize("start", [submit_secret, asubmit_secret])
def test_a_refusal_that_quotes_a_secret_is_told_without_it(raw_server: RawServer, monkeypatch, log, start):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply({"status": "error", "message": "hf_token: correct-horse is not valid"}, 400))
    with pytest.raises(ModelsLabRequestError, match=r"\*\*\* is not valid") as caught:
        start(ModelsLabHook())
    assert "correct-horse" not in str(caught.value) + log.text


# --- kills ---


@pytest.mark.parametrize("start", [start for start, _ in KINDS])
def test_the_log_of_a_killed_wait_says_that_the_work_goes_on_and_how_to_stop_it(sandbox: Sandbox, log, start):
    job = ModelsLabHook().submit(start, {})
    asyncio.run(make_trigger([job.to_compact_dict()]).on_kill())
    (line,) = [record.getMessage() for record in log.records if "goes on" in record.getMessage()]
    assert {
        "v6/trainer/train": f"The training {job} goes on, and is billed by the hour. To stop it, call "
        f"ModelsLabHook('modelslab_default').cancel('{job.id}', 'v6/trainer')",
        "v3/lora_fine_tune": f"The training {job} goes on, and is paid for. ModelsLab has no request that stops it",
        "v1/workflows/w-1/run": f"The workflow run {job} goes on, and is paid for. To stop it, call "
        f"ModelsLabHook('modelslab_default').cancel('{job.id}', 'v1/workflows/w-1')",
    }[start] == line
    assert not any(work.stopped for work in sandbox.jobs.values())


def test_the_log_of_a_killed_generation_says_nothing_of_that(sandbox: Sandbox, log):
    job = ModelsLabHook().submit("v6/images/text2img", {"prompt": "a fox"})
    asyncio.run(make_trigger([job.to_compact_dict()]).on_kill())
    assert "goes on" not in log.text


def test_a_killed_deferred_task_cancels_its_work_where_that_is_asked_for(sandbox: Sandbox, context, log):
    operator = ModelsLabGenerateOperator(
        task_id="train", endpoint="v6/trainer/train", payload={}, deferrable=True, cancel_on_kill=True
    )
    trigger = ModelsLabJobTrigger(**json.loads(json.dumps(deferral_of(operator, context).trigger.serialize()[1])))
    asyncio.run(trigger.on_kill())
    (training,) = sandbox.jobs.values()
    assert training.stopped
    assert "goes on" not in log.text


def test_a_wait_that_cannot_cancel_says_why_and_that_the_work_goes_on(sandbox: Sandbox, log):
    job = ModelsLabHook().submit("v6/trainer/train", {})
    sandbox.finish_all()
    asyncio.run(make_trigger([job.to_compact_dict()], cancel_on_kill=True).on_kill())
    assert f"Job {job} was not cancelled" in log.text
    assert "goes on" in log.text


@contextmanager
def killing(task: Any, sandbox: Sandbox, after: int) -> Iterator[None]:
    """Do what Airflow does to a task on its worker once it has polled so many times; then its work is finished."""

    def kill() -> None:
        wait_until(lambda: sandbox.state()["requests"]["fetch"] >= after)
        task.on_kill()
        sandbox.finish_all()

    with ThreadPoolExecutor() as pool:
        killed = pool.submit(kill)
        yield
        killed.result()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_a_killed_worker_cancels_its_work_or_says_that_it_goes_on(sandbox: Sandbox, context, log, cancel_on_kill):
    operator = ModelsLabGenerateOperator(
        task_id="run",
        endpoint="v1/workflows/w-1/run",
        payload={},
        cancel_on_kill=cancel_on_kill,
        deferrable=False,
        retry_failed=1,  # of what has failed by itself
        timeout=60,
    )
    with killing(operator, sandbox, after=1):
        if cancel_on_kill:
            with pytest.raises(ModelsLabJobFailed, match="The run is cancelled"):
                operator.execute(context)
        else:
            operator.execute(context)
    (work,) = sandbox.jobs.values()
    assert work.stopped == cancel_on_kill
    assert ("goes on" in log.text) != cancel_on_kill


def test_a_worker_that_is_killed_while_it_re_attaches_says_that_the_work_goes_on(
    raw_server: RawServer, monkeypatch, context, log
):
    def operator() -> ModelsLabGenerateOperator:
        return ModelsLabGenerateOperator(task_id="train", endpoint="v6/trainer/train", payload={}, deferrable=True)

    def kill(request: bytes) -> bytes:
        task.on_kill()
        return reply(PROCESSING["v6/trainer"])

    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply({"status": "success", "training_id": UUID}))
    deferral_of(operator(), context)
    task, raw_server.answer_to = operator(), kill
    deferral_of(task, {**context, "ti": RecordingTaskInstance(retries=1)})
    assert "goes on, and is billed by the hour" in log.text


@pytest.mark.usefixtures("quick")
def test_a_killed_poking_sensor_says_that_the_work_goes_on(sandbox: Sandbox, context, log):
    job = ModelsLabHook().submit("v6/trainer/train", {})
    sensor = ModelsLabJobSensor(task_id="wait", jobs=job.to_dict(), poke_interval=0.05, deferrable=False)
    with killing(sensor, sandbox, after=2):
        sensor.execute(context)
    assert "goes on, and is billed by the hour" in log.text


@pytest.mark.parametrize("endpoint", ["v3/lora_fine_tune", "v6/images/text2img"])
def test_cancel_on_kill_is_refused_where_nothing_can_be_cancelled(endpoint):
    with pytest.raises(ModelsLabArgumentError, match=f"cancel_on_kill has no effect on '{endpoint}'"):
        ModelsLabGenerateOperator(task_id="t", endpoint=endpoint, payload={"prompt": "x"}, cancel_on_kill=True)


def test_cancel_on_kill_is_refused_before_anything_is_paid_for_where_the_endpoint_comes_late(sandbox: Sandbox, context):
    operator = ModelsLabGenerateOperator(task_id="t", endpoint="{{ x }}", payload={"prompt": "x"}, cancel_on_kill=True)
    operator.endpoint = "v6/images/text2img"
    with pytest.raises(ModelsLabArgumentError, match="cancel_on_kill"):
        operator.execute(context)
    assert not sandbox.jobs
