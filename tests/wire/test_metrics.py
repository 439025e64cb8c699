"""What hook, operator and triggers count, over real requests; ``tests/system`` sends it over a real socket."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

import pytest

from airflow_provider_modelslab._http.fingerprint import fingerprint_of
from airflow_provider_modelslab.exceptions import (
    ModelsLabAmbiguousSubmission,
    ModelsLabCreditsError,
    ModelsLabJobFailed,
    ModelsLabRateLimited,
)
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.metrics import RecordedStats, record_metrics, undocumented
from tests.support.pacing import set_policy, simulate
from tests.support.raw_server import RawServer, path_of, reply
from tests.support.storing import PNG, job, picture, save_outputs
from tests.support.tasks import RecordingTaskInstance
from tests.support.triggers import aevent_of, event_of, make_trigger
from tests.support.waiting import await_until

PROCESSING = {"status": "processing", "message": "try again later."}
DONE = {"status": "success", "output": ["https://example.com/1.png"]}
FAILED = {"status": "failed", "message": "Failed, Try Again", "output": ""}
ACCEPTED = {**PROCESSING, "id": 147, "eta": 5}
QUEUE_FULL = {"status": "error", "message": "Rate limit exceeded. Maximum 5 queued requests allowed.", "retry_after": 2}
VIDEO = "v6/video/text2video"


@pytest.fixture
def stats(monkeypatch) -> RecordedStats:
    recorded = RecordedStats()
    record_metrics(monkeypatch, recorded)
    return recorded


@pytest.fixture
def server(raw_server: RawServer, monkeypatch) -> RawServer:
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    return raw_server


def trigger_for(*job_ids: int, endpoint: str = "v6/video", **arguments: Any) -> Any:
    return make_trigger([{"id": str(job_id), "endpoint": endpoint} for job_id in job_ids], **arguments)


# --- submissions ---


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("answer", "error", "counted"),
    [
        (reply(ACCEPTED), None, {"jobs.submitted": {("v6/video",): 1}}),
        (
            reply({**DONE, "id": 147}),
            None,
            {"jobs.submitted": {("v6/video",): 1}, "jobs.succeeded": {("v6/video",): 1}},
        ),
        (
            reply({**FAILED, "id": 147}),
            ModelsLabJobFailed,
            {"jobs.submitted": {("v6/video",): 1}, "jobs.failed": {("v6/video", "failed"): 1}},
        ),
        (
            reply({"status": "error", "message": "Insufficient credits"}, 402),
            ModelsLabCreditsError,
            {"submissions.refused": {("v6/video", "no_credits"): 1}},
        ),
        (reply(QUEUE_FULL, 429), ModelsLabRateLimited, {"submissions.refused": {("v6/video", "rate_limited"): 1}}),
        (b"", ModelsLabAmbiguousSubmission, {"submissions.ambiguous": {("v6/video",): 1}}),
    ],
    ids=["accepted", "done at once", "failed at once", "no credits", "queue full", "no reply"],
)
def test_a_submission_is_counted_once_as_what_became_of_it(
    server: RawServer, stats: RecordedStats, answer, error, counted, asynchronous
):
    server.answer(answer)
    hook = ModelsLabHook()

    def submit() -> Any:
        if asynchronous:
            return asyncio.run(hook.asubmit(VIDEO, {"prompt": "a fox"}, queue_timeout=0))
        return hook.submit(VIDEO, {"prompt": "a fox"}, queue_timeout=0)

    if error is None:
        submit()
    else:
        with pytest.raises(error):
            submit()
    assert undocumented(stats.samples) == []
    assert stats.all_totals() == counted


def test_each_try_and_each_pause_of_a_submission_counts(server: RawServer, stats: RecordedStats):
    server.answer(reply(QUEUE_FULL, 429), reply(QUEUE_FULL, 429), reply(ACCEPTED))
    ModelsLabHook().submit(VIDEO, {"prompt": "a fox"})
    assert stats.totals("submissions.refused") == {("v6/video", "rate_limited"): 2}
    assert stats.totals("jobs.submitted") == {("v6/video",): 1}
    assert stats.totals("paused_seconds")[("submissions",)] >= 4


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [("v9/future/make", "other"), ("v6/trainer/train", "v6/trainer"), ("v1/workflows/my-own/run", "v1/workflows")],
)
def test_no_endpoint_has_a_name_of_its_own_that_users_or_modelslab_may_make_up(
    server: RawServer, stats: RecordedStats, path, endpoint
):
    server.answer(reply({**ACCEPTED, "execution_id": "e1", "training_id": "t1"}))
    ModelsLabHook().submit(path, {"prompt": "a fox"})
    assert stats.totals("jobs.submitted") == {(endpoint,): 1}


# --- waits on a worker ---


def test_a_wait_on_a_worker_counts_each_poll_and_the_end_of_its_job(server: RawServer, stats: RecordedStats):
    server.answer(reply(PROCESSING), reply(PROCESSING), reply(DONE))
    ModelsLabHook().wait("147", "v6/video", poke_interval=0.01)
    assert stats.totals("polls") == {("processing",): 2, ("success",): 1}
    assert stats.totals("jobs.succeeded") == {("v6/video",): 1}
    assert undocumented(stats.samples) == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_fetch_counts_as_polls_and_ends_no_job(server: RawServer, stats: RecordedStats, asynchronous):
    server.answer(reply(DONE))
    hook = ModelsLabHook()
    if asynchronous:
        asyncio.run(hook.afetch("147", "v6/video"))
    else:
        hook.fetch("147", "v6/video")
    assert stats.all_totals() == {"polls": {("success",): 1}}


def test_the_times_of_a_job_add_up_to_what_the_wait_took(server: RawServer, stats: RecordedStats, monkeypatch):
    clock = simulate(monkeypatch)
    server.answer(reply(PROCESSING), reply(PROCESSING), reply(DONE))
    submitted = clock.wall()
    record = {"id": "147", "endpoint": "v6/video", "submitted": submitted}
    ModelsLabHook().wait(record, poke_interval=30)
    (ready,), (notice,) = stats.values("jobs.time_to_ready"), stats.values("jobs.time_to_notice")
    assert 30 < ready < 60
    assert ready + notice == pytest.approx(60)
    assert clock.wall() - submitted == pytest.approx(60)


def test_pokes_in_processes_of_their_own_count_each_job_once(server: RawServer, stats: RecordedStats):
    answers = {1: DONE, 2: PROCESSING}
    server.answer_to = lambda request: reply(answers[int(path_of(request)[-1])])

    def poke() -> bool:
        task = ModelsLabJobSensor(task_id="wait", jobs=[1, 2], endpoint="v6/video", mode="reschedule")
        return bool(task.poke({"ti": RecordingTaskInstance()}))

    assert [poke(), poke(), poke()] == [False] * 3
    answers[2] = FAILED
    with pytest.raises(ModelsLabJobFailed):
        poke()
    assert stats.totals("jobs.succeeded") == {("v6/video",): 1}
    assert stats.totals("jobs.failed") == {("v6/video", "failed"): 1}


def test_a_task_that_is_cleared_after_its_success_counts_nothing_again(
    server: RawServer, stats: RecordedStats, tmp_path
):
    server.answer(reply(ACCEPTED), reply(DONE))
    for clears in range(2):
        task = ModelsLabGenerateOperator(
            task_id="task", endpoint=VIDEO, payload={"prompt": "a fox"}, ledger_path=str(tmp_path), poke_interval=0.01
        )
        task.execute({"ti": RecordingTaskInstance(clears=clears), "task": task})
    assert stats.totals("jobs.submitted") == {("v6/video",): 1}
    assert stats.totals("jobs.succeeded") == {("v6/video",): 1}


def test_a_pause_of_polls_on_a_worker_counts_once_however_many_meet_it(
    server: RawServer, stats: RecordedStats, monkeypatch
):
    simulate(monkeypatch)
    server.answer(reply({"status": "error", "message": "Too Many Attempts.", "retry_after": 100}, 429))
    jobs = [Job(str(number), "v6/video") for number in range(30)]
    ModelsLabHook().poller.poll_many(jobs)
    assert stats.totals("paused_seconds") == {("polls",): 100}


# --- waits in the triggerer ---


def test_a_triggerer_reports_what_its_polls_have_said(server: RawServer, stats: RecordedStats):
    server.answer(reply(PROCESSING), reply(PROCESSING), reply(DONE), reply(FAILED))
    assert event_of(trigger_for(1, 2))["status"] == "finished"
    assert stats.totals("polls") == {("processing",): 2, ("success",): 1, ("failed",): 1}
    assert stats.totals("jobs.succeeded") == {("v6/video",): 1}
    assert stats.totals("jobs.failed") == {("v6/video", "failed"): 1}
    assert undocumented(stats.samples) == []


def test_a_triggerer_reports_how_much_is_waited_for_and_in_the_end_that_it_is_nothing(
    server: RawServer, stats: RecordedStats, monkeypatch
):
    set_policy(monkeypatch, metrics_gap=0.01)

    async def scenario() -> None:
        waits = [asyncio.create_task(aevent_of(trigger_for(1, 2, 3))), asyncio.create_task(aevent_of(trigger_for(4)))]
        await await_until(lambda: 4 in stats.values("triggerer.jobs") and 2 in stats.values("triggerer.waits"))
        server.answer(reply(DONE))
        await asyncio.gather(*waits)

    asyncio.run(scenario())
    assert stats.values("triggerer.waits")[-1] == stats.values("triggerer.jobs")[-1] == 0


def test_a_pause_of_all_polls_counts_once_however_many_meet_it(server: RawServer, stats: RecordedStats, monkeypatch):
    simulate(monkeypatch)
    server.together = 5
    server.answer(reply({**QUEUE_FULL, "retry_after": 100}, 429))
    event_of(trigger_for(1, 2, 3, 4, 5, seconds=1.0))
    assert stats.totals("paused_seconds") == {("polls",): 100}


def test_polls_of_a_triggerer_are_reported_together(server: RawServer, stats: RecordedStats, monkeypatch):
    simulate(monkeypatch)
    server.answer(*[reply(PROCESSING)] * 100, reply(DONE))
    event_of(trigger_for(147))
    assert [sample.value for sample in stats.samples if sample.tags.get("verdict") == "processing"] == [100]


def test_each_poll_and_each_pause_of_a_triggerer_counts_once_in_however_many_reports(
    server: RawServer, stats: RecordedStats, monkeypatch
):
    set_policy(monkeypatch, metrics_gap=0.01)
    server.answer(*[reply(PROCESSING)] * 50, reply({**QUEUE_FULL, "retry_after": 1}, 429), reply(DONE))
    event_of(trigger_for(147))
    assert len(stats.values("triggerer.jobs")) > 1
    assert stats.totals("polls") == {("processing",): 50, ("rate_limited",): 1, ("success",): 1}
    assert stats.totals("paused_seconds") == {("polls",): 1}
    assert stats.totals("jobs.succeeded") == {("v6/video",): 1}


def test_a_triggerer_that_takes_over_counts_no_job_again(server: RawServer, stats: RecordedStats):
    first_done = [reply(DONE), reply(PROCESSING)]

    async def killed() -> None:
        server.answer(*first_done)
        wait = asyncio.create_task(aevent_of(trigger_for(1, 2)))
        await await_until(lambda: len(server.requests) > 4)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)

    asyncio.run(killed())
    server.answer(reply(DONE))
    event_of(trigger_for(1, 2))
    assert stats.totals("jobs.succeeded") == {("v6/video",): 2}


def test_a_deferral_that_fills_queue_slots_counts_only_what_has_finished_in_it(server: RawServer, stats: RecordedStats):
    server.answer(reply(DONE))
    finished = {"id": "1", "endpoint": "v6/video", "status": "success", "outputs": ["https://example.com/1.png"]}
    event_of(make_trigger([finished, {"id": "2", "endpoint": "v6/video"}]))
    assert stats.totals("jobs.succeeded") == {("v6/video",): 1}


def test_a_training_that_counts_as_done_because_its_model_is_exported_elsewhere_has_succeeded(
    server: RawServer, stats: RecordedStats, monkeypatch
):
    completed = {"status": "success", "data": {"status": "training_completed", "inference": {"status": "pending"}}}
    server.answer(reply(completed))
    set_policy(monkeypatch, unusable_limit=0.05)
    event = event_of(trigger_for(1, endpoint="v6/trainer"))
    assert [job["status"] for job in event["jobs"]] == ["success"]
    ModelsLabHook().wait("1", "v6/trainer", poke_interval=0.01)
    assert stats.totals("jobs.succeeded") == {("v6/trainer",): 2}
    assert stats.totals("jobs.failed") == {}


def test_a_pause_counts_once_when_waits_with_the_former_key_and_with_the_new_one_share_it(
    server: RawServer, stats: RecordedStats, monkeypatch
):
    set_policy(monkeypatch, metrics_gap=0.01)

    async def scenario() -> None:
        server.answer(reply(PROCESSING))
        waits = [asyncio.create_task(aevent_of(trigger_for(1)))]
        await await_until(lambda: len(server.requests) > 2)
        other_key = {**json.loads(server.connection), "password": "another-api-key-0123456789"}
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(other_key))
        fingerprint = asdict(fingerprint_of(ModelsLabHook().options))
        waits.append(asyncio.create_task(aevent_of(trigger_for(2, fingerprint=fingerprint))))
        await await_until(lambda: any(b"another-api-key" in request for request in server.requests))
        server.answer(reply({**QUEUE_FULL, "retry_after": 100}, 429))
        await await_until(lambda: bool(stats.totals("paused_seconds")))
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    asyncio.run(scenario())
    # Each refusal that comes later adds the time by which it is later.
    assert stats.totals("paused_seconds") == {("polls",): pytest.approx(100, abs=90)}


class BrokenStats:
    """Stands in for a backend of metrics that always fails."""

    def __getattr__(self, name: str) -> Any:
        raise OSError("no metrics today")


def test_a_metric_that_cannot_be_emitted_ends_nothing(server: RawServer, monkeypatch, tmp_path):
    record_metrics(monkeypatch, BrokenStats())
    set_policy(monkeypatch, metrics_gap=0.01)
    server.answer(reply(ACCEPTED), reply(PROCESSING), reply(DONE))
    submitted = ModelsLabHook().submit(VIDEO, {"prompt": "a fox"})
    assert event_of(trigger_for(int(submitted.id)))["status"] == "finished"
    server.answer(picture())
    assert len(save_outputs([job(f"{server.url}/1.png")], str(tmp_path))) == 1


# --- files ---


def test_stored_files_and_their_bytes_count_and_those_that_were_there_do_not(
    server: RawServer, stats: RecordedStats, tmp_path
):
    server.answer(picture())
    jobs = [job(f"{server.url}/1.png", f"{server.url}/2.png")]
    for _ in range(2):
        save_outputs(jobs, str(tmp_path))
    assert stats.all_totals() == {"outputs.files": {(): 2}, "outputs.bytes": {(): 2 * len(PNG)}}
