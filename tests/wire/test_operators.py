"""The operator's own steps: submission, memory, queue slots, batches, errors. Waiting itself is tested with the sensor."""

from __future__ import annotations

import json
import re
import shutil
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from types import MappingProxyType
from typing import Any
from unittest.mock import MagicMock

import pytest
import requests
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    Asset,
    AssetAlias,
    BaseOperator,
)

from airflow_provider_modelslab._tasks.events import write_error
from airflow_provider_modelslab.exceptions import (
    ModelsLabAmbiguousSubmission,
    ModelsLabArgumentError,
    ModelsLabAuthError,
    ModelsLabCreditsError,
    ModelsLabJobFailed,
    ModelsLabRequestError,
    ModelsLabSaveError,
    ModelsLabTimeout,
)
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.state import PRICE
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.conftest import unhurried
from tests.support.pacing import FAST, set_policy, simulate
from tests.support.raw_server import RawServer, path_of, reply
from tests.support.tasks import RecordingTaskInstance, StateStore, deferral_of, event_after, run
from tests.support.waiting import wait_until

PATH = "v6/images/text2img"
PNG = b"\x89PNG\r\n\x1a\n"
BOTH_WAYS = pytest.mark.parametrize("deferrable", [True, False])


def new_try(store: StateStore | None = None, clears: int = 0, retries: int = 0) -> Any:
    context = {"ti": RecordingTaskInstance(clears, retries)}
    return context if store is None else {**context, "task_state_store": store}


@pytest.fixture
def context() -> Any:
    return new_try(StateStore())


@pytest.fixture
def quick_sandbox(monkeypatch):
    """A sandbox with two queue slots, whose jobs finish after half a second."""
    with Sandbox(duration=0.5, queue_limit=2, retry_after=1) as quick:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", unhurried(quick.connection))
        yield quick


def operator(**kwargs) -> ModelsLabGenerateOperator:
    if "payloads" not in kwargs:
        kwargs.setdefault("payload", {"prompt": "a lighthouse"})
    return ModelsLabGenerateOperator(
        **{"task_id": "generate", "endpoint": PATH, "deferrable": True, "timeout": 3600, **kwargs}
    )


def prompts(count: int) -> list[dict]:
    return [{"prompt": f"picture {number}"} for number in range(count)]


def submissions_at(sandbox: Sandbox) -> list[dict]:
    """The payloads that arrived at the generation endpoint, refused ones included."""
    return [request.json for request in sandbox.requests if request.path == f"/api/{PATH}"]


def job_of(sandbox: Sandbox, prompt: str) -> int:
    (job_id,) = [job_id for job_id, job in sandbox.jobs.items() if job.request.meta["prompt"] == prompt]
    return job_id


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.touch()


@contextmanager
def when_submitted(sandbox: Sandbox, count: int, action: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as so many jobs have been accepted, while the block runs."""

    def act() -> None:
        wait_until(lambda: len(sandbox.jobs) >= count)
        action()

    thread = Thread(target=act)
    thread.start()
    yield
    thread.join()


# --- one generation ---


@BOTH_WAYS
def test_one_generation_hands_on_what_the_sensor_would(quick_sandbox: Sandbox, context, deferrable):
    urls = run(operator(deferrable=deferrable), context)
    (job,) = quick_sandbox.jobs.values()
    (record,) = context["ti"].xcoms["jobs"]
    by_sensor = run(ModelsLabJobSensor(task_id="wait", jobs=[record["id"]], endpoint=record["endpoint"]), new_try())
    assert urls == record["outputs"] == by_sensor
    assert (record["id"], record["status"]) == (str(job.id), "success")
    assert "manifest" not in context["ti"].xcoms


def test_the_job_is_known_while_the_task_is_deferred(sandbox: Sandbox, context):
    deferral_of(operator(), context)
    (record,) = context["ti"].xcoms["jobs"]
    assert (record["status"], int(record["id"])) == ("processing", next(iter(sandbox.jobs)))


def test_without_waiting_the_record_is_returned_and_the_sensor_takes_it(sandbox: Sandbox, context):
    record = operator(wait_for_completion=False).execute(context)
    sandbox.finish_all()
    assert run(ModelsLabJobSensor(task_id="wait", jobs=record), new_try())
    records = operator(payloads=prompts(2), wait_for_completion=False).execute(new_try())
    assert [job["status"] for job in records] == ["processing", "processing"]


@BOTH_WAYS
def test_a_failed_generation_fails_the_task(sandbox: Sandbox, context, deferrable):
    with (
        when_submitted(sandbox, 1, lambda: sandbox.fail(next(iter(sandbox.jobs)), "No GPU left")),
        pytest.raises(ModelsLabJobFailed, match="No GPU left"),
    ):
        run(operator(deferrable=deferrable, poke_interval=0.2), context)
    assert context["ti"].xcoms["jobs"][0]["status"] == "failed"


# --- never twice ---


@BOTH_WAYS
def test_the_next_try_goes_on_with_the_same_job(sandbox: Sandbox, deferrable):
    store = StateStore()
    deferral_of(operator(), new_try(store))  # and the worker dies
    sandbox.finish_all()
    context = new_try(store)
    assert run(operator(deferrable=deferrable), context) == context["ti"].xcoms["jobs"][0]["outputs"]
    assert len(submissions_at(sandbox)) == 1


def test_a_cleared_task_returns_what_is_there(quick_sandbox: Sandbox):
    store = StateStore()
    first = run(operator(), new_try(store))
    assert run(operator(), new_try(store, clears=1)) == first
    assert len(submissions_at(quick_sandbox)) == 1


def test_what_is_not_durable_is_submitted_again(sandbox: Sandbox):
    store = StateStore()
    for _ in range(2):
        deferral_of(operator(durable=False), new_try(store))
    assert (len(submissions_at(sandbox)), store.texts) == (2, {})


def test_a_changed_payload_is_submitted(sandbox: Sandbox):
    store = StateStore()
    deferral_of(operator(), new_try(store))
    deferral_of(operator(payload={"prompt": "a fox"}), new_try(store))
    assert [payload["prompt"] for payload in submissions_at(sandbox)] == ["a lighthouse", "a fox"]


def test_a_failed_generation_is_repeated_when_the_task_is_cleared(sandbox: Sandbox):
    store = StateStore()
    deferral_of(operator(), new_try(store))
    sandbox.fail(next(iter(sandbox.jobs)))
    deferral_of(operator(), new_try(store, clears=1))
    assert len(submissions_at(sandbox)) == 2


def test_a_poll_that_is_refused_does_not_lead_to_a_second_generation_when_the_task_is_cleared(
    raw_server: RawServer, monkeypatch
):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    running = reply({"status": "processing", "id": 7, "eta": 60})
    raw_server.answer(running, reply(b"", 400), running)
    store = StateStore()
    deferral_of(operator(), new_try(store))
    with pytest.raises(ModelsLabJobFailed, match="answered the poll with a refusal"):
        operator().execute(new_try(store, clears=1))
    assert sum(path_of(request) == f"/api/{PATH}" for request in raw_server.requests) == 1


def test_a_submission_whose_reply_was_lost_fails_the_task_once(sandbox: Sandbox):
    store = StateStore()
    sandbox.script("submit", ["drop"])
    with pytest.raises(ModelsLabAmbiguousSubmission, match="may have been billed"):
        operator().execute(new_try(store))
    deferral_of(operator(), new_try(store, clears=1))  # by somebody who has looked into the account
    assert len(sandbox.jobs) == 2


class Killed(BaseException):
    """What a process that is killed comes to in a test: nothing is tidied up."""


class DyingStore(StateStore):
    """Its task is killed as soon as it has written its intent."""

    def set(self, key: str, value: object) -> None:
        super().set(key, value)
        raise Killed


def test_a_worker_that_died_while_submitting_does_not_lead_to_a_second_payment(sandbox: Sandbox):
    dying = DyingStore()
    with pytest.raises(Killed):
        operator().execute(new_try(dying))
    store = StateStore(dying.texts)
    for retries in (1, 2):
        with pytest.raises(ModelsLabAmbiguousSubmission, match="may have been billed"):
            operator().execute(new_try(store, retries=retries))
    assert not submissions_at(sandbox)
    deferral_of(operator(), new_try(store, clears=1))
    assert len(submissions_at(sandbox)) == 1


def test_a_killed_task_submits_no_further_item_while_its_process_still_runs(quick_sandbox: Sandbox):
    """Airflow 3 tells the task, and ends its process some seconds later."""
    task, context = operator(payload=None, payloads=prompts(5), deferrable=False), new_try(StateStore())
    with (
        when_submitted(quick_sandbox, 2, task.on_kill),
        pytest.raises(AirflowException, match="Clear the task to submit what is left"),
    ):
        task.execute(context)
    assert len(context["ti"].xcoms["jobs"]) == len(quick_sandbox.jobs) < 5
    assert (
        len(run(operator(payload=None, payloads=prompts(5)), {**context, "ti": RecordingTaskInstance(clears=1)})) == 5
    )
    assert len(quick_sandbox.jobs) == 5


@BOTH_WAYS
def test_a_forgotten_job_is_generated_again_in_the_same_try(quick_sandbox: Sandbox, log, monkeypatch, deferrable):
    set_policy(monkeypatch, **FAST, inconclusive_grace=0.05)
    store = StateStore()
    run(operator(), new_try(store))
    quick_sandbox.reset()
    context = new_try(store)
    urls = run(operator(deferrable=deferrable), context)
    assert requests.get(urls[0], timeout=120).ok
    assert len(quick_sandbox.jobs) == 1
    assert any(message.startswith("The generation is submitted again: job v6/images:") for message in log.messages)


def test_outputs_that_are_gone_are_generated_again_when_the_task_is_cleared(
    raw_server: RawServer, monkeypatch, context, tmp_path
):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    done = reply({"status": "success", "id": 7, "output": [f"{raw_server.url}/a.png"]})
    gone = reply(b"", 410)
    raw_server.answer_to = lambda request: gone if path_of(request) == "/a.png" else done
    task = operator(output_path=tmp_path)
    with pytest.raises(ModelsLabSaveError, match="paid for"):  # of this try: the next one stores what is missing
        run(task, context)
    with pytest.raises(AirflowFailException, match="Clear the task to generate 1 job again"):
        run(task, context)
    with pytest.raises(ModelsLabSaveError):
        run(task, new_try(clears=1))
    assert sum(path_of(request) == f"/api/{PATH}" for request in raw_server.requests) == 2


def test_a_remembered_job_is_polled_again_for_its_urls(quick_sandbox: Sandbox):
    store = StateStore()
    first = run(operator(), new_try(store))
    before = quick_sandbox.state()["requests"]["fetch"]
    assert run(operator(), new_try(store)) == first
    assert quick_sandbox.state()["requests"]["fetch"] == before + 1


def test_jobs_of_another_account_are_not_taken(sandbox: Sandbox, log, monkeypatch):
    store = StateStore()
    deferral_of(operator(), new_try(store))
    with Sandbox(duration=float("inf")) as other:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", other.connection)
        deferral_of(operator(), new_try(store))
        assert len(submissions_at(other)) == 1
    assert any(message.startswith("Not re-attaching to job v6/images:") for message in log.messages)


@pytest.fixture
def other_sandbox() -> Iterator[Sandbox]:
    """Another host, whose jobs have the same ids."""
    with Sandbox(duration=float("inf")) as other:
        yield other


def test_a_task_that_resumes_submits_nothing_to_another_host_and_keeps_what_was_paid_for(
    sandbox: Sandbox, other_sandbox: Sandbox, monkeypatch
):
    store = StateStore()
    context = new_try(store)
    task = operator(payload=None, payloads=prompts(3), max_in_flight=2)
    deferred = deferral_of(task, context)
    sandbox.finish(min(sandbox.jobs))
    event = event_after(deferred)
    assert event["status"] == "partial"
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", other_sandbox.connection)
    with pytest.raises(ModelsLabArgumentError, match=f"Put the host back .*{re.escape(other_sandbox.url)}"):
        task.execute_complete(context, event)
    assert not other_sandbox.requests
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", sandbox.connection)
    deferral_of(operator(payload=None, payloads=prompts(3)), new_try(store))
    assert submissions_at(sandbox) == [{**payload, "key": sandbox.key} for payload in prompts(3)]


def test_what_has_finished_is_returned_though_the_connection_got_another_host(
    sandbox: Sandbox, other_sandbox: Sandbox, context, monkeypatch
):
    task = operator()
    deferred = deferral_of(task, context)
    sandbox.finish_all()
    event = event_after(deferred)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", other_sandbox.connection)
    assert task.execute_complete(context, event)[0].startswith(sandbox.url)
    assert not other_sandbox.requests


def test_a_store_that_cannot_be_written_loses_no_job(sandbox: Sandbox, context):
    class FullStore(StateStore):
        def set(self, key, value):
            if any(record["job"] for record in value.values()):
                raise OSError("disk full")
            super().set(key, value)

    context = new_try(FullStore())
    deferral_of(operator(), context)
    assert context["ti"].xcoms["jobs"]


# --- queue slots ---


@BOTH_WAYS
def test_a_full_queue_is_waited_out(context, deferrable, monkeypatch):
    with Sandbox(duration=0.8, durations={"v6/interior": float("inf")}, queue_limit=1, retry_after=1) as full:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", unhurried(full.connection))
        full.submit("v6/interior/make", {"prompt": "somebody else's"})
        leaving = Thread(target=leave_when_refused, args=(full,))
        leaving.start()
        assert run(operator(deferrable=deferrable), context)
        leaving.join()
        assert len(full.jobs) == 2


def leave_when_refused(sandbox: Sandbox) -> None:
    wait_until(lambda: sandbox.state()["submissions"]["rejected"] > 0)
    sandbox.finish_all()


def test_a_requested_pause_is_kept_without_a_worker(sandbox: Sandbox, context):
    sandbox.script("submit", ["rate_limit"])
    before = time.time()
    trigger = deferral_of(operator(), context).trigger
    assert trigger.jobs == []
    assert before + 30 <= trigger.deadline <= time.time() + 30 * 1.25


def test_a_queue_that_stays_full_ends_with_the_timeout(context, monkeypatch):
    simulate(monkeypatch)
    with Sandbox(duration=float("inf"), queue_limit=0, retry_after=1) as full:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", unhurried(full.connection))
        with pytest.raises(ModelsLabTimeout, match="not submitted yet"):
            run(operator(timeout=2), context)


@BOTH_WAYS
def test_a_batch_keeps_within_its_queue_slots(quick_sandbox: Sandbox, context, deferrable):
    urls = run(operator(payloads=prompts(5), max_in_flight=2, deferrable=deferrable, poke_interval=0.2), context)
    assert [payload["prompt"] for payload in submissions_at(quick_sandbox)] == [f"picture {n}" for n in range(5)]
    assert [record["outputs"] for record in context["ti"].xcoms["jobs"]] == [[url] for url in urls]
    assert len(set(urls)) == 5


@BOTH_WAYS
@pytest.mark.parametrize("slots", [5, 15])
def test_a_batch_fills_the_queue_by_itself_while_somebody_else_uses_it(context, deferrable, slots, monkeypatch):
    """Somebody else holds three of the slots, until a third of the batch is done."""
    with Sandbox(duration=float("inf"), queue_limit=slots, retry_after=1) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", unhurried(sandbox.connection))
        foreign = [sandbox.submit("v6/interior/make", {"prompt": "a sofa"})["id"] for _ in range(3)]
        working = Thread(target=work_off, args=(sandbox, foreign, 60))
        working.start()
        urls = run(operator(payloads=prompts(60), deferrable=deferrable, poke_interval=0.1), context)
        working.join()
        assert len(set(urls)) == 60
        assert len(sandbox.jobs) == 63
        assert sandbox.state()["max_in_flight"] == slots
        assert sandbox.state()["submissions"]["rejected"] <= 2 * 2


def work_off(sandbox: Sandbox, foreign: Sequence[int], count: int) -> None:
    """Finish a batch of so many jobs, 15 a second, once all slots were full; the foreign ones when a third is done."""
    wait_until(lambda: sandbox.state()["submissions"]["rejected"] > 0)
    work = Event()
    for done in range(count):
        work.wait(1 / 15)
        wait_until(lambda: bool(unfinished(sandbox) - {*foreign}))
        sandbox.finish(min(unfinished(sandbox) - {*foreign}))
        if done == count // 3:
            for job_id in foreign:
                sandbox.finish(job_id)


def unfinished(sandbox: Sandbox) -> set[int]:
    return {job_id for job_id, job in sandbox.jobs.items() if job.status == "processing"}


@BOTH_WAYS
def test_an_item_that_is_refused_again_and_again_does_not_block_the_others(
    raw_server: RawServer, context, deferrable, monkeypatch
):
    """The first two are taken only when all others have been."""
    set_policy(monkeypatch, **FAST)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", unhurried(raw_server.connection))
    accepted: list[str] = []

    def answer(request: bytes) -> bytes:
        if b"/fetch/" in request:
            return reply({"status": "success", "output": ["https://cdn/a"]})
        prompt = json.loads(request.partition(b"\r\n\r\n")[2])["prompt"]
        if prompt in ("picture 0", "picture 1") and len(accepted) < 3:
            return reply({"status": "error", "message": "Rate limit exceeded", "retry_after": 0.1}, 429)
        accepted.append(prompt)
        return reply({"status": "processing", "id": len(accepted), "eta": 0.1})

    raw_server.answer_to = answer
    assert len(run(operator(payloads=prompts(5), deferrable=deferrable), context)) == 5
    assert sorted(accepted[:3]) == ["picture 2", "picture 3", "picture 4"]


# --- batches ---


@BOTH_WAYS
@pytest.mark.parametrize("tolerant", [True, False])
def test_results_travel_with_their_payload(sandbox: Sandbox, context, deferrable, tolerant):
    named = {f"item {number}": {"prompt": f"picture {number}"} for number in range(20)}
    bad = ["picture 3", "picture 11", "picture 19"]

    def end_all() -> None:
        for prompt in bad:
            sandbox.fail(job_of(sandbox, prompt), f"no GPU for {prompt}")
        sandbox.finish_all()

    task = operator(
        payloads=named, max_in_flight=20, fail_on_partial_error=not tolerant, deferrable=deferrable, poke_interval=0.5
    )
    with when_submitted(sandbox, 20, end_all):
        if tolerant:
            assert len(run(task, context)) == 17
        else:
            with pytest.raises(ModelsLabJobFailed, match="3 of 20 jobs failed"):
                run(task, context)
    manifest = context["ti"].xcoms["manifest"]
    assert (manifest["total"], manifest["succeeded"], manifest["failed"]) == (20, 17, 3)
    assert [item["payload"]["prompt"] for item in manifest["items"] if item["status"] == "failed"] == bad
    for item in manifest["items"]:
        assert item["payload"] == named[item["name"]]
        assert int(item["job_id"]) == job_of(sandbox, item["payload"]["prompt"])
        if item["status"] == "failed":
            assert item["message"] == f"no GPU for {item['payload']['prompt']}"
        else:
            assert len(item["outputs"]) == 1


def test_a_cleared_batch_generates_only_what_failed(sandbox: Sandbox):
    store = StateStore()
    task = operator(payloads=prompts(3), fail_on_partial_error=False, poke_interval=0.2)
    with when_submitted(sandbox, 3, lambda: (sandbox.fail(job_of(sandbox, "picture 1")), sandbox.finish_all())):
        assert len(run(task, new_try(store))) == 2
    with when_submitted(sandbox, 4, sandbox.finish_all):
        assert len(run(task, new_try(store, clears=1))) == 3
    assert [payload["prompt"] for payload in submissions_at(sandbox)].count("picture 1") == 2


def test_refused_items_do_not_stop_the_others(sandbox: Sandbox, context):
    sandbox.script("submit", [None, "dict_message", "drop", None])
    task = operator(payloads=prompts(4), fail_on_partial_error=False, poke_interval=0.2)
    with when_submitted(sandbox, 3, sandbox.finish_all):
        assert len(run(task, context)) == 2
    statuses = [item["status"] for item in context["ti"].xcoms["manifest"]["items"]]
    assert statuses == ["success", "failed", "failed", "success"]
    assert "may have been billed" in context["ti"].xcoms["manifest"]["items"][2]["message"]


@BOTH_WAYS
def test_the_manifest_is_there_as_soon_as_all_is_submitted(sandbox: Sandbox, context, deferrable):
    task = operator(payloads={"owl": {"prompt": "a"}, "fox": {"prompt": "b"}}, deferrable=deferrable)
    early: list[dict[str, Any]] = []

    def finish() -> None:
        wait_until(lambda: "manifest" in context["ti"].xcoms)
        early.append(context["ti"].xcoms["manifest"])
        sandbox.finish_all()

    with when_submitted(sandbox, 2, finish):
        run(task, context)
    assert {name: early[0][name] for name in ("total", "succeeded", "failed")} == {
        "total": 2,
        "succeeded": 0,
        "failed": 0,
    }
    items = context["ti"].xcoms["manifest"]["items"]
    assert [(item["name"], item["status"]) for item in early[0]["items"]] == [
        ("owl", "processing"),
        ("fox", "processing"),
    ]
    assert [item["job_id"] for item in early[0]["items"]] == [item["job_id"] for item in items]
    assert [item["status"] for item in items] == ["success", "success"]


def test_names_of_items_are_one_line_for_people_and_stay_as_they_are_for_tasks(sandbox: Sandbox, context, log):
    name = "a\n::group::b\x1b[31m"
    sandbox.script("submit", ["dict_message"])
    with pytest.raises(ModelsLabJobFailed) as caught:
        run(operator(payloads={name: {"prompt": "a"}}), context)
    assert "item a (group)b [31m" in str(caught.value)
    assert [record.getMessage() for record in log.records if name in record.getMessage()] == []
    assert context["ti"].xcoms["manifest"]["items"][0]["name"] == name


def test_a_name_of_any_length_is_short_where_it_is_shown(quick_sandbox: Sandbox, context, log):
    name = "an owl" + "!" * 1_000_000
    quick_sandbox.set_faults({"failed": 1.0})
    task = operator(payloads={name: {"prompt": "a"}}, deferrable=True)
    assert len(json.dumps(deferral_of(task, context).trigger.serialize()[1])) < 5000
    with pytest.raises(ModelsLabJobFailed, match=r"item an owl!+… \(Failed"):
        run(task, context)
    assert max(len(record.getMessage()) for record in log.records) < 1000
    assert context["ti"].xcoms["manifest"]["items"][0]["name"] == name


def test_a_name_of_any_length_is_short_in_an_error_about_its_payload():
    with pytest.raises(ModelsLabArgumentError) as caught:
        operator(payloads={"x" * 1_000_000: {"prompt": object()}})
    assert len(str(caught.value)) < 1000


def test_a_template_for_the_name_of_a_mapped_task_may_render_to_anything(quick_sandbox: Sandbox, context):
    """As it does in a DAG with ``render_template_as_native_obj``."""
    quick_sandbox.set_faults({"failed": 1.0})
    with DAG("dag", schedule=None, render_template_as_native_obj=True):
        task = operator(payload={"prompt": "a"}, map_index_template="{{ [7] }}", deferrable=False)
    with pytest.raises(ModelsLabJobFailed, match=r"1 of 1 job failed: \[7\] \(Failed"):
        run(task, {**context, "task": task})


def test_an_account_that_runs_dry_stops_a_batch_and_loses_nothing(monkeypatch):
    store = StateStore()
    with Sandbox(duration=float("inf"), balance=1.5 * PRICE) as poor:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", unhurried(poor.connection))
        for _ in range(2):
            context = new_try(store)
            with pytest.raises(ModelsLabCreditsError):
                run(operator(payloads=prompts(3)), context)
            assert [record["status"] for record in context["ti"].xcoms["jobs"]] == ["processing"]
        sent = [payload["prompt"] for payload in submissions_at(poor)]
        assert sent == ["picture 0", *["picture 1"] * 4]  # each try asks twice, which costs nothing


@BOTH_WAYS
def test_an_empty_batch_is_no_outputs(sandbox: Sandbox, context, deferrable):
    assert run(operator(payloads=[], deferrable=deferrable), context) == []
    assert context["ti"].xcoms["manifest"] == {"total": 0, "succeeded": 0, "failed": 0, "items": []}


def test_a_manifest_holds_no_pictures(quick_sandbox: Sandbox, context):
    run(operator(payloads=[{"prompt": "a fox", "init_image": ["data:image/png;base64," + "A" * 100_000]}]), context)
    (item,) = context["ti"].xcoms["manifest"]["items"]
    assert item["payload"]["prompt"] == "a fox"
    assert len(item["payload"]["init_image"][0]) < 300


# --- stored outputs ---


@BOTH_WAYS
def test_outputs_are_stored_and_reported(quick_sandbox: Sandbox, context, deferrable, tmp_path):
    payloads = {name: {"prompt": name, "samples": 2} for name in ("fox", "owl")}
    urls = run(operator(payloads=payloads, deferrable=deferrable, output_path=str(tmp_path), max_in_flight=2), context)
    files = context["ti"].xcoms["files"]
    assert [requests.get(url, timeout=120).content for url in urls] == [Path(file).read_bytes() for file in files]
    assert [item["files"] for item in context["ti"].xcoms["manifest"]["items"]] == [files[:2], files[2:]]


def test_the_paths_of_files_may_be_the_result(quick_sandbox: Sandbox, context, tmp_path):
    files = run(operator(output_path=tmp_path, return_files=True), context)
    assert files == context["ti"].xcoms["files"]
    assert all(Path(file).is_file() for file in files)


def test_a_folder_that_cannot_be_written_to_is_refused_before_paying(sandbox: Sandbox, context):
    with pytest.raises(ModelsLabArgumentError, match="Correct output_path '/dev/null/outputs', or allow writing there"):
        operator(output_path="/dev/null/outputs").execute(context)
    with pytest.raises(
        ModelsLabArgumentError,
        match="Correct output_path 'gopher://x/outputs', or add the provider or connection that it needs",
    ):
        operator(output_path="gopher://x/outputs").execute(context)
    assert not submissions_at(sandbox)


def test_a_probe_leaves_nothing_behind(sandbox: Sandbox, context, tmp_path):
    deferral_of(operator(output_path=tmp_path, durable=False), context)
    assert not list(tmp_path.iterdir())


def test_a_retry_of_storing_generates_nothing(quick_sandbox: Sandbox, tmp_path):
    store = StateStore()
    outputs = tmp_path / "outputs"
    task = operator(output_path=outputs)
    with pytest.raises(ModelsLabSaveError):
        run(task, new_try(store), lambda deferrals: replace_by_a_file(outputs))
    outputs.unlink()
    context = new_try(store)
    run(task, context)
    assert all(Path(file).stat().st_size for file in context["ti"].xcoms["files"])
    assert len(submissions_at(quick_sandbox)) == 1


def test_storing_is_not_retried_where_a_retry_would_generate_again(quick_sandbox: Sandbox, tmp_path):
    outputs = tmp_path / "outputs"
    context = new_try()
    with pytest.raises(AirflowFailException, match="ModelsLabJobSensor"):
        run(operator(output_path=outputs, durable=False), context, lambda deferrals: replace_by_a_file(outputs))
    sensor = ModelsLabJobSensor(task_id="wait", jobs=context["ti"].xcoms["jobs"], output_path=str(tmp_path / "new"))
    context = new_try()
    run(sensor, context)
    assert [Path(file).parent for file in context["ti"].xcoms["files"]] == [tmp_path / "new"]


# --- what Airflow renders again, and what it stores ---


@BOTH_WAYS
def test_a_task_goes_on_with_what_was_rendered_when_it_began(quick_sandbox: Sandbox, context, deferrable, tmp_path):
    arguments = {"deferrable": deferrable, "max_in_flight": 1, "poke_interval": 0.2}
    named = {name: {"prompt": name} for name in ("owl", "hare")}
    first = operator(payloads=named, output_path=tmp_path / "first", **arguments)
    rendered_again = operator(payloads={"fox": {"prompt": "fox"}}, endpoint="v6/video/text2video", **arguments)
    run(first, context, resumed=rendered_again)
    assert [payload["prompt"] for payload in submissions_at(quick_sandbox)] == ["owl", "hare"]
    for item in context["ti"].xcoms["manifest"]["items"]:
        assert item["payload"] == {"prompt": item["name"]}
        assert int(item["job_id"]) == job_of(quick_sandbox, item["name"])
        assert [Path(file).parent for file in item["files"]] == [tmp_path / "first"]


def test_a_thousand_payloads_are_stored_once_and_not_in_the_trigger(sandbox: Sandbox, context):
    payloads = [{"prompt": f"{number} ".ljust(2000, "x")} for number in range(1000)]
    trigger = deferral_of(operator(payloads=payloads, max_in_flight=1), context).trigger
    assert len(json.dumps(trigger.serialize())) < 5_000
    assert 2_000_000 < len(json.dumps(context["ti"].xcoms["items"])) < 2_200_000


def test_a_picture_in_a_payload_is_not_stored(quick_sandbox: Sandbox, context):
    picture = "data:image/png;base64," + "A" * 5_000_000
    deferrals: list[int] = []
    task = operator(
        payloads=[{"prompt": "a"}, {"prompt": "b", "init_image": picture}], max_in_flight=1, poke_interval=0.2
    )
    assert len(run(task, context, deferrals.append)) == 2
    assert deferrals == [1]  # not while the picture was to be submitted
    assert submissions_at(quick_sandbox)[1]["init_image"] == picture
    assert len(json.dumps(context["ti"].xcoms)) < 10_000


@BOTH_WAYS
def test_outputs_that_are_data_go_into_files_and_not_into_the_database(
    raw_server: RawServer, monkeypatch, context, deferrable, tmp_path
):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    picture = b64encode(PNG + bytes(3_000_000)).decode()
    queued = reply({"status": "processing", "id": 7, "eta": 0.1})
    done = reply({"status": "success", "id": 7, "output": [picture], "meta": {"init_image": picture}})
    raw_server.answer_to = lambda request: queued if path_of(request) == f"/api/{PATH}" else done
    arguments = {"deferrable": deferrable, "poke_interval": 0.1}
    with pytest.raises(ModelsLabArgumentError, match=r"Pass an output_path, .* output 0 of job v6/images:7 is data"):
        run(operator(**arguments), context)
    assert len(json.dumps(context["ti"].xcoms)) < 10_000
    assert len(json.dumps(list(context["task_state_store"].texts.values()))) < 2_000
    (path,) = run(operator(output_path=tmp_path, **arguments), context)
    assert Path(path).read_bytes() == PNG + bytes(3_000_000)
    assert context["ti"].xcoms["jobs"][0]["outputs"] == context["ti"].xcoms["files"] == [path]
    assert len(json.dumps(context["ti"].xcoms)) < 10_000
    assert sum(path_of(request) == f"/api/{PATH}" for request in raw_server.requests) == 1


def transcript(words: int) -> dict[str, Any]:
    return {
        "text": "a walk",
        "timestamps": [{"word": "walk", "start": n / 2, "end": n / 2 + 0.4} for n in range(words)],
    }


@BOTH_WAYS
@pytest.mark.parametrize("words", [3, 500, 3000], ids=["short", "long", "too long for an XCom"])
def test_a_transcript_is_returned_and_stored_whole(
    raw_server: RawServer, monkeypatch, context, deferrable, words, tmp_path
):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    output = transcript(words)
    queued = reply({"status": "processing", "id": 7, "eta": 0.1})
    done = reply({"status": "success", "id": 7, "output": output})
    raw_server.answer_to = lambda request: queued if path_of(request) == f"/api/{PATH}" else done
    arguments = {"payload": None, "payloads": {"a": {"prompt": "a"}}, "deferrable": deferrable, "poke_interval": 0.1}
    if words == 3000:
        with pytest.raises(ModelsLabArgumentError, match="Pass an output_path"):
            run(operator(**arguments), context)
    else:
        assert run(operator(**arguments), context) == [output]
        (shown,) = context["ti"].xcoms["jobs"][0]["outputs"]
        (item,) = context["ti"].xcoms["manifest"]["items"]
        assert item["outputs"] == [shown]
        assert shown == output if words == 3 else str(shown).endswith(")")
    (returned,) = run(operator(output_path=tmp_path, **arguments), context)
    (path,) = context["ti"].xcoms["files"]
    assert returned == (output if words == 3 else path)
    assert json.loads(Path(path).read_text()) == output
    assert Path(path).suffix == ".json"
    assert len(json.dumps(context["ti"].xcoms)) < 10_000


def test_a_skipped_upstream_is_left_out(quick_sandbox: Sandbox, context, log):
    task: Any = operator(payloads="{{ x }}")
    task.payloads = {"owl": {"prompt": "owl"}, "hare": None}
    assert len(run(task, context)) == 1
    assert [item["name"] for item in context["ti"].xcoms["manifest"]["items"]] == ["owl"]
    assert "Left out 1 of 2 payloads: skipped upstream tasks" in log.messages
    for argument, rendered in [("payloads", [None]), ("payload", None)]:
        task = operator(**{argument: "{{ x }}"})
        setattr(task, argument, rendered)
        with pytest.raises(AirflowSkipException, match="all payloads were skipped"):
            task.execute(context)


class OutletEvents(dict[Any, Any]):
    """Stands where Airflow's outlet events do; it knows no asset of the name "unknown"."""

    def __getitem__(self, outlet: Any) -> Any:
        name = getattr(outlet, "name", None) or outlet.uri  # Airflow 2 knows assets by their URI only
        if name == "unknown":
            raise LookupError(outlet)
        return self.setdefault(name, MagicMock())


def test_asset_events_carry_what_was_generated(quick_sandbox: Sandbox, context, tmp_path):
    references = [Asset.ref(name="reference"), Asset.ref(name="unknown")] if hasattr(Asset, "ref") else []
    task = operator(outlets=[Asset("plain"), AssetAlias("alias"), *references], output_path=tmp_path)
    context |= {"task": task, "outlet_events": OutletEvents()}
    urls = run(task, context)
    carried = {"urls": urls, "files": context["ti"].xcoms["files"]}
    events = dict(context["outlet_events"])
    assert events["plain"].extra == carried
    events["alias"].add.assert_called_once_with(Asset("alias"), extra=carried)
    if references:
        assert events["reference"].extra == carried


# --- account, time, arguments ---


def test_what_is_refused_fails_at_once(sandbox: Sandbox):
    sandbox.script("submit", ["dict_message"])
    with pytest.raises(ModelsLabRequestError, match="prompt"):
        operator().execute(new_try(StateStore()))
    sandbox.rotate_key("another-key-123456")
    with pytest.raises(ModelsLabAuthError):
        operator().execute(new_try(StateStore()))
    assert not sandbox.jobs


def test_too_low_a_balance_stops_before_paying(sandbox: Sandbox, context):
    with pytest.raises(ModelsLabCreditsError, match="min_balance"):
        operator(min_balance=1000.0).execute(context)
    assert not submissions_at(sandbox)
    deferral_of(operator(min_balance=1.0), context)
    assert len(submissions_at(sandbox)) == 1


def test_a_balance_that_is_not_told_stops_a_whole_batch_before_paying(raw_server: RawServer, monkeypatch, context):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply({"status": "success", "data": {}}))
    with pytest.raises(ModelsLabArgumentError, match=r"Leave out min_balance, .*: ModelsLab does not tell"):
        operator(payloads=prompts(3), min_balance=1.0).execute(context)
    assert {path_of(request) for request in raw_server.requests} == {"/api/wallet_balance"}


def test_too_low_a_balance_stops_a_later_try_too(sandbox: Sandbox):
    store = StateStore()
    deferral_of(operator(payloads=prompts(1)), new_try(store))
    with pytest.raises(ModelsLabCreditsError, match="min_balance"):
        operator(payloads=prompts(3), min_balance=1000.0).execute(new_try(store, retries=1))
    assert len(submissions_at(sandbox)) == 1


def test_too_low_a_balance_stops_a_later_try_after_its_deferral_too(quick_sandbox: Sandbox):
    arguments = {"payloads": prompts(2), "max_in_flight": 1, "min_balance": quick_sandbox.state()["balance"]}
    context = new_try(StateStore())
    deferral_of(operator(**arguments), context)
    with pytest.raises(ModelsLabCreditsError, match="min_balance"):
        run(operator(**arguments), {**context, "ti": RecordingTaskInstance(retries=1)})
    assert len(submissions_at(quick_sandbox)) == 1


def test_too_low_a_balance_stops_a_try_after_a_worker_that_died_while_submitting_too(sandbox: Sandbox):
    dying = DyingStore()
    with pytest.raises(Killed):
        operator(payloads=prompts(2)).execute(new_try(dying))
    with pytest.raises(ModelsLabCreditsError, match="min_balance"):
        operator(payloads=prompts(2), min_balance=1000.0).execute(new_try(StateStore(dying.texts), retries=1))
    assert not submissions_at(sandbox)


@pytest.mark.parametrize("durable", [True, False])
def test_no_retry_after_an_error_in_the_triggerer_pays_twice(sandbox: Sandbox, context, durable):
    task = operator(durable=durable)
    trigger: Any = deferral_of(task, context).trigger
    event = write_error("The wait broke off", trigger.jobs, trigger.state)
    with pytest.raises(AirflowException, match="The wait broke off") as caught:
        task.execute_complete(context, event)
    assert isinstance(caught.value, AirflowFailException) is not durable
    assert durable or "ModelsLabJobSensor" in str(caught.value)


@BOTH_WAYS
def test_the_end_of_the_time_says_how_to_go_on(sandbox: Sandbox, monkeypatch, deferrable):
    simulate(monkeypatch)
    for durable, advice in [(True, "Clear the task"), (False, "ModelsLabJobSensor")]:
        with pytest.raises(ModelsLabTimeout, match=advice):
            run(operator(timeout=1, durable=durable, deferrable=deferrable), new_try(StateStore()))


def test_the_execution_timeout_counts_too(sandbox: Sandbox, context):
    trigger = deferral_of(operator(execution_timeout=timedelta(seconds=60)), context).trigger
    assert trigger.deadline - trigger.started <= 60


def test_an_error_in_the_triggerer_fails_the_task_and_keeps_the_jobs(sandbox: Sandbox, context):
    deferred = deferral_of(operator(), context)
    sandbox.rotate_key("another-key-123456")
    task = operator()
    with pytest.raises(ModelsLabAuthError):
        task.execute_complete(context, event_after(deferred))
    assert context["ti"].xcoms["jobs"]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"endpoint": "../x"}, "endpoint"),
        ({"payload": None, "payloads": None}, "payload or payloads"),
        ({"payload": {}, "payloads": []}, "payload or payloads"),
        ({"payload": {"key": "abc"}}, "payload must not hold 'key'"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_in_flight": 1.5}, "max_in_flight"),
        ({"max_in_flight": "all"}, "max_in_flight must be 'auto' or"),
        ({"max_in_flight": None}, "max_in_flight"),
        ({"timeout": "60"}, "timeout"),
        ({"poke_interval": 0}, "poke_interval"),
        ({"poke_interval": "5"}, "poke_interval"),
        ({"min_balance": "10"}, "min_balance"),
        ({"endpoint": "v6/images"}, "begins with 'v6/images/'"),
        ({"if_exists": "replace"}, "if_exists"),
        ({"output_path": "out/today"}, "output_path"),
        ({"output_path": Path("out")}, "output_path"),
        ({"output_path": "file://tmp/out"}, "output_path"),
        ({"output_path": "/tmp/out", "wait_for_completion": False}, "output_path needs wait_for_completion"),
        ({"return_files": True}, "return_files needs an output_path"),
        ({"payload": None, "payloads": [{"key": "abc"}]}, "payloads[0] must not hold 'key'"),
        (
            {"payload": None, "payloads": {"fox": {"prompt": "{{ x }}", "key": "a"}}},
            "payloads['fox'] must not hold 'key'",
        ),
        ({"payload": None, "payloads": ({} for _ in range(2))}, "payloads is an iterator"),
        ({"payload": None, "payloads": {"a": {}, 1: {}}}, "names of several types"),
        ({"payload": {"prompt": b"x"}}, "payload['prompt'] is a bytes"),
        ({"payload": {"prompt": {"x": [Path("/x")]}}}, "payload['prompt']['x'][0] is a PosixPath"),
        ({"payload": {"seed": float("nan")}}, "payload['seed'] is nan"),
        ({"payload": {1: "x"}}, "names of parameters are strings"),
        ({"payload": {"prompt": BaseOperator(task_id="up")}}, "payload['prompt'] is the task 'up' itself"),
        ({"payload": None, "payloads": {"a": BaseOperator(task_id="up")}}, "payloads['a'] is the task 'up' itself"),
        ({"timeout": 1e15}, "timeout"),
        ({"endpoint": "None"}, "generation endpoint"),
    ],
)
def test_bad_arguments_are_refused_when_the_dag_is_parsed(arguments, name):
    with pytest.raises(ModelsLabArgumentError, match=re.escape(name)):
        ModelsLabGenerateOperator(**{"task_id": "generate", "endpoint": PATH, "payload": {"prompt": "x"}, **arguments})


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"payload": "no JSON"}, "payload"),
        ({"payload": [1]}, "payload"),
        ({"payloads": 5}, "payloads"),
        ({"payloads": [{"prompt": "a"}, 7]}, "payloads[1]"),
        ({"payloads": {"fox": "x"}}, "payloads['fox']"),
        ({"payload": {"prompt": {1, 2}}}, "payload['prompt'] is a set"),
        ({"payloads": [{"prompt": "a"}, {"key": "b"}]}, "'key'"),
    ],
)
def test_bad_payloads_are_refused_before_anything_is_submitted(sandbox: Sandbox, context, arguments, name):
    with pytest.raises(ModelsLabArgumentError, match=re.escape(name)) as caught:
        operator(**arguments).execute(context)
    assert isinstance(caught.value, AirflowFailException)
    assert not submissions_at(sandbox)


class Outputs(Sequence[Any]):
    """Stands where Airflow puts the outputs of a mapped upstream, which are read when they are asked for."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


def test_the_outputs_of_a_mapped_upstream_may_stand_in_a_payload(sandbox: Sandbox, context):
    rendered: Any = {"prompt": "x", "images": Outputs("a", "b"), "more": MappingProxyType({"c": 1})}
    deferral_of(operator(payload=MappingProxyType(rendered)), context)
    assert submissions_at(sandbox)[0] | {"images": ["a", "b"], "more": {"c": 1}} == submissions_at(sandbox)[0]


def test_a_payload_may_be_json_by_the_time_it_is_rendered(sandbox: Sandbox, context):
    deferral_of(operator(payload='{"prompt": "a lighthouse"}'), context)
    assert submissions_at(sandbox)[0]["prompt"] == "a lighthouse"
