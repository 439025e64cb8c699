"""The trigger against the sandbox over a real socket: one event, whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.serialization.serialized_objects import BaseSerialization

from airflow_provider_modelslab._client import AsyncClient
from airflow_provider_modelslab._polling.waits import JobWait
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger
from tests.support.pacing import FAST, set_policy, simulate
from tests.support.raw_server import RawServer, reply
from tests.support.transport_faults import job_id_of
from tests.support.triggers import aevent_of, event_of, fetches, make_trigger, submitted
from tests.support.waiting import await_until


def test_it_survives_serialisation():
    original = make_trigger([{"id": "1", "endpoint": "v6/video", "eta": 3.5}], poke_interval=None)
    path, kwargs = original.serialize()
    stored = json.loads(json.dumps(BaseSerialization.serialize(kwargs)))
    again = ModelsLabJobTrigger(**BaseSerialization.deserialize(stored))
    assert path == "airflow_provider_modelslab.triggers.ModelsLabJobTrigger"
    assert again.serialize() == original.serialize()


def test_jobs_come_back_in_the_users_order(sandbox: Sandbox):
    jobs = submitted(sandbox, 3)
    for job in jobs[1:]:
        sandbox.finish(job["id"])
    sandbox.fail(jobs[0]["id"], "No GPU left")
    event = event_of(make_trigger([*jobs, jobs[1]]))
    assert event["status"] == "finished"
    assert [job["id"] for job in event["jobs"]] == [job["id"] for job in [*jobs, jobs[1]]]
    assert [job["status"] for job in event["jobs"]] == ["failed", "success", "success", "success"]
    assert event["jobs"][0]["message"] == "No GPU left"
    assert event["jobs"][1]["outputs"] == event["jobs"][3]["outputs"] != event["jobs"][2]["outputs"]


def test_an_update_for_those_who_watch_ends_no_wait_when_it_fails(sandbox: Sandbox, monkeypatch):
    set_policy(monkeypatch, update_gap=0.0, update_spacing=0.0)
    jobs = submitted(sandbox, 2)

    async def scenario() -> dict:
        trigger = make_trigger(jobs)
        # Here is no supervisor that would take an XCom.
        ti: Any = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=-1, id="1")
        trigger.task_instance = ti
        waiting = asyncio.create_task(aevent_of(trigger))
        sandbox.finish(jobs[0]["id"])
        polls = len(sandbox.requests)
        await await_until(lambda: len(sandbox.requests) > polls + 4)
        sandbox.finish(jobs[1]["id"])
        return await waiting

    assert asyncio.run(scenario())["status"] == "finished"


def test_finished_jobs_are_not_polled(sandbox: Sandbox):
    done = {"id": "7", "endpoint": "v6/video", "status": "success", "outputs": ["https://cdn/a.gif"]}
    (waiting,) = submitted(sandbox, 1)
    sandbox.finish(waiting["id"])
    event = event_of(make_trigger([done, waiting]))
    assert event["jobs"][0] == done
    assert all(request.path.endswith(waiting["id"]) for request in sandbox.requests)


def test_it_waits_until_the_last_job_is_done(sandbox: Sandbox):
    first, second = submitted(sandbox, 2)

    async def scenario() -> dict:
        running = asyncio.create_task(aevent_of(make_trigger([first, second])))
        sandbox.finish(first["id"])
        await await_until(lambda: fetches(sandbox) > 10)
        assert not running.done()
        sandbox.finish(second["id"])
        return await running

    assert asyncio.run(scenario())["status"] == "finished"


def test_passing_faults_never_end_a_wait(sandbox: Sandbox, monkeypatch):
    set_policy(monkeypatch, inconclusive_grace=3600)
    jobs = submitted(sandbox, 20)
    sandbox.set_faults(
        dict.fromkeys(
            ["http_500", "http_502", "http_503", "html", "drop", "drop_midway", "truncated", "not_found"], 0.1
        )
    )

    async def scenario() -> dict:
        running = asyncio.create_task(aevent_of(make_trigger(jobs)))
        await await_until(lambda: fetches(sandbox) > 200)
        sandbox.finish_all()
        return await running

    event = asyncio.run(scenario())
    assert event["status"] == "finished"
    assert {job["status"] for job in event["jobs"]} == {"success"}


def test_an_outage_is_waited_out(sandbox: Sandbox):
    (job,) = submitted(sandbox, 1)
    waiting = make_trigger([job])

    async def scenario() -> dict:
        running = asyncio.create_task(aevent_of(waiting))
        await await_until(lambda: fetches(sandbox) > 2)
        await asyncio.to_thread(sandbox.stop)
        sandbox.finish(job["id"])
        await asyncio.to_thread(sandbox.start)
        return await running

    assert asyncio.run(scenario())["jobs"][0]["status"] == "success"


def test_the_deadline_ends_it_with_what_is_known(sandbox: Sandbox, log, monkeypatch):
    simulate(monkeypatch)
    first, second = submitted(sandbox, 2)
    sandbox.finish(first["id"])
    event = event_of(make_trigger([first, second], seconds=60.0, poke_interval=10))
    assert "Still waiting: 1 of 2 jobs done" in log.text
    assert event["status"] == "timeout"
    assert [job.get("status") for job in event["jobs"]] == ["success", None]


def test_a_trigger_that_comes_back_after_its_deadline_polls_once_more(sandbox: Sandbox, monkeypatch):
    simulate(monkeypatch)
    finished, unfinished = submitted(sandbox, 2)
    sandbox.finish(finished["id"])
    assert event_of(make_trigger([finished], seconds=-3600))["status"] == "finished"
    assert event_of(make_trigger([unfinished], seconds=-3600, poke_interval=1))["status"] == "timeout"


def test_a_stray_not_found_late_in_a_wait_is_not_believed(raw_server: RawServer, log, monkeypatch):
    """It comes when the wait has lasted longer than the grace; persistent ones end it."""
    simulate(monkeypatch)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    processing = reply({"status": "processing"})
    not_found = reply({"status": "failed", "id": "", "message": "Request not found", "output": ""})
    done = reply({"status": "success", "id": 1, "output": ["https://cdn/a"]})
    raw_server.answer(*[processing] * 6, not_found, processing, done)
    job = {"id": "1", "endpoint": "v6/video"}
    assert event_of(make_trigger([job], poke_interval=10))["jobs"][0]["status"] == "success"
    assert "Job v6/video:1 may be in progress all the same: ModelsLab answered 'Request not found'" in log.text
    raw_server.answer(processing, not_found)
    assert event_of(make_trigger([job], poke_interval=10))["jobs"][0]["status"] == "failed"


def test_polls_that_only_fail_show_in_the_log_and_at_the_end(raw_server: RawServer, log, monkeypatch):
    simulate(monkeypatch)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply(b"<html>no such page</html>", 404))
    event = event_of(make_trigger([{"id": "1", "endpoint": "v6/video"}], seconds=60, poke_interval=5))
    assert event["status"] == "timeout"
    assert "HTTP 404 with an HTML page" in event["jobs"][0]["message"]
    assert "failed polls in a row" in event["jobs"][0]["message"]
    assert log.text.count("Job v6/video:1 cannot be polled now: HTTP 404 with an HTML page (3 failed polls") == 1
    assert re.search(r"Still waiting: 0 of 1 job done, waiting for \d+ s; 1 cannot be polled now: HTTP 404", log.text)


def test_without_max_pending_it_waits_for_the_deadline(sandbox: Sandbox, monkeypatch):
    simulate(monkeypatch)
    jobs = submitted(sandbox, 1)
    sandbox.finish_all()
    event = event_of(make_trigger(jobs, seconds=1.0, max_pending=None))
    assert (event["status"], event["jobs"][0]["status"]) == ("timeout", "success")


def test_it_ends_when_few_enough_jobs_are_pending(sandbox: Sandbox, monkeypatch):
    simulate(monkeypatch)
    jobs = submitted(sandbox, 3)
    sandbox.finish(jobs[0]["id"])
    event = event_of(make_trigger(jobs, max_pending=2))
    assert (event["status"], [job.get("status") for job in event["jobs"]]) == ("partial", ["success", None, None])


def test_a_job_is_polled_once_more_just_before_the_deadline(sandbox: Sandbox, monkeypatch):
    """The pace of ten minutes would miss the job that is done long before the deadline."""
    simulate(monkeypatch)
    (job,) = submitted(sandbox, 1)
    sandbox.finish(job["id"])
    assert event_of(make_trigger([job], seconds=2.1, poke_interval=600))["status"] == "finished"


@pytest.mark.parametrize(
    ("status", "message", "verdict"),
    [
        (401, "Invalid API key", "INVALID_KEY"),
        (402, "Insufficient credits", "NO_CREDITS"),
        (403, "premium", "NOT_IN_PLAN"),
    ],
)
def test_a_refused_account_ends_it(raw_server: RawServer, monkeypatch, status, message, verdict):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply({"status": "error", "message": f"{message} the-api-key"}, status))
    event = event_of(make_trigger([{"id": "1", "endpoint": "v6/video"}, {"id": "2", "endpoint": "v6/video"}]))
    assert (event["status"], event["verdict"], event["message"]) == ("error", verdict, f"{message} ***")
    assert len(event["jobs"]) == 2


REFUSALS = [reply({"status": "error", "message": "Invalid API key"}, status) for status in (401, 402, 403, 200)]


def refusing(refused: Callable[[str, int], bool], refusal: bytes) -> Callable[[bytes], bytes]:
    """Return what answers polls: a refusal where that is asked for, else the job in progress twice and then done."""
    polls: Counter[str] = Counter()

    def answer(request: bytes) -> bytes:
        job_id = job_id_of(request)
        polls[job_id] += 1
        if refused(job_id, polls[job_id]):
            return refusal
        done = {"status": "success", "output": [f"https://cdn/{job_id}"]}
        return reply(done if polls[job_id] > 2 else {"status": "processing"})

    return answer


@pytest.mark.parametrize("refusal", REFUSALS)
def test_one_refusal_of_the_account_ends_no_wait(raw_server: RawServer, monkeypatch, refusal):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    set_policy(monkeypatch, **FAST)
    raw_server.answer_to = refusing(lambda job_id, polls: job_id == "1" and polls == 1, refusal)
    event = event_of(make_trigger([{"id": str(number), "endpoint": "v6/video"} for number in range(20)]))
    assert event["status"] == "finished"
    assert {job["status"] for job in event["jobs"]} == {"success"}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_job_that_is_always_refused_holds_up_no_other(raw_server: RawServer, monkeypatch, refusal):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    set_policy(monkeypatch, **FAST)
    raw_server.answer_to = refusing(lambda job_id, polls: job_id == "1", refusal)
    event = event_of(make_trigger([{"id": str(number), "endpoint": "v6/video"} for number in range(20)]))
    assert (event["status"], event["message"]) == ("error", "Invalid API key")
    assert [job["id"] for job in event["jobs"] if "outputs" not in job] == ["1"]


def test_after_a_refusal_another_job_is_polled_at_once(raw_server: RawServer, monkeypatch):
    """Its own first poll would come after the deadline of the wait."""
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(REFUSALS[0])
    now = simulate(monkeypatch).wall()
    old = {"id": "1", "endpoint": "v6/video", "submitted": now - 3600}
    fresh = {"id": "2", "endpoint": "v6/video", "submitted": now, "eta": 100_000.0}
    event = event_of(make_trigger([old, fresh], seconds=300, poke_interval=None))
    assert (event["status"], event["verdict"]) == ("error", "INVALID_KEY")
    assert [job_id_of(request) for request in raw_server.requests] == ["1", "2"]


def test_a_missing_connection_ends_it(monkeypatch):
    set_policy(monkeypatch, **FAST)
    event = event_of(make_trigger([{"id": "1", "endpoint": "v6/video"}]))
    assert event["status"] == "error"
    assert event["message"].startswith("In the triggerer: Add connection 'modelslab_default'")


@pytest.mark.parametrize(
    "error",
    [
        ModelsLabArgumentError("Connection 'modelslab_default' is not defined"),
        OSError("the metadata database of the-api-key is away"),
    ],
    ids=["seems undefined", "cannot be read"],
)
def test_a_connection_that_is_away_for_a_moment_is_looked_up_again(sandbox: Sandbox, monkeypatch, error):
    set_policy(monkeypatch, **FAST)
    (job,) = submitted(sandbox, 1)
    sandbox.finish(job["id"])
    look_up = ModelsLabHook.aoptions
    attempts = []

    async def flaky(self):
        attempts.append(1)
        if len(attempts) < 3:
            raise error
        return await look_up(self)

    monkeypatch.setattr(ModelsLabHook, "aoptions", flaky)
    assert event_of(make_trigger([job]))["status"] == "finished"


def test_a_connection_that_stays_away_ends_at_the_deadline(monkeypatch):
    async def away(self):
        raise OSError("no database")

    monkeypatch.setattr(ModelsLabHook, "aoptions", away)
    assert event_of(make_trigger([{"id": "1", "endpoint": "v6/video"}], seconds=0.1))["status"] == "timeout"


def test_a_look_up_that_hangs_ends_at_the_deadline(monkeypatch):
    async def hanging(self):
        await asyncio.Event().wait()

    monkeypatch.setattr(ModelsLabHook, "aoptions", hanging)
    assert event_of(make_trigger([{"id": "1", "endpoint": "v6/video"}], seconds=0.1))["status"] == "timeout"


def test_a_defect_is_an_event_without_the_text_of_the_exception(sandbox: Sandbox, monkeypatch):
    async def broken(self, job):
        raise RuntimeError("the-api-key")

    monkeypatch.setattr(AsyncClient, "poll", broken)
    event = event_of(make_trigger(submitted(sandbox, 1)))
    assert event["status"] == "error"
    assert "the-api-key" not in json.dumps(event)


def test_a_defect_in_taking_a_reply_does_not_leave_the_wait_hanging(sandbox: Sandbox, monkeypatch):
    def broken(self, reply):
        raise OverflowError("math range error")

    monkeypatch.setattr(JobWait, "take", broken)
    assert event_of(make_trigger(submitted(sandbox, 1)))["status"] == "error"


def test_cancellation_passes_through_and_leaves_nothing_behind(sandbox: Sandbox):
    async def scenario() -> None:
        running = asyncio.create_task(aevent_of(make_trigger(submitted(sandbox, 5))))
        await await_until(lambda: fetches(sandbox) > 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_a_hundred_jobs_share_one_session_and_are_polled_in_parallel(sandbox: Sandbox):
    jobs = submitted(sandbox, 100)
    sandbox.finish_all()
    threads_before = threading.active_count()
    event = event_of(make_trigger(jobs))
    assert [job["id"] for job in event["jobs"]] == [job["id"] for job in jobs]
    assert sandbox.state()["requests"]["fetch"] == 100
    assert threading.active_count() <= threads_before + 1


def lines_above_debug(log: pytest.LogCaptureFixture) -> list[str]:
    ours = (record for record in log.records if record.name.startswith("under_test"))
    return [record.getMessage() for record in ours if record.levelno > logging.DEBUG]


def test_its_log_tells_start_changes_and_progress_but_no_polls(sandbox: Sandbox, log, monkeypatch):
    set_policy(monkeypatch, first_progress_gap=0.05)
    jobs = submitted(sandbox, 2)

    async def scenario() -> None:
        running = asyncio.create_task(aevent_of(make_trigger(jobs)))
        await await_until(lambda: "Still waiting: 0 of 2 jobs done" in log.text)
        await await_until(lambda: fetches(sandbox) > 50)
        sandbox.finish(jobs[0]["id"])
        await await_until(lambda: "succeeded" in log.text)
        sandbox.fail(jobs[1]["id"], "No GPU left")
        await running

    asyncio.run(scenario())
    lines = lines_above_debug(log)
    assert lines[0].startswith("Waiting in the triggerer, until ")
    assert any(line.startswith(f"Job v6/video:{jobs[0]['id']} succeeded: 1 of 2 jobs done") for line in lines)
    assert f"Job v6/video:{jobs[1]['id']} failed (No GPU left): 2 of 2 jobs done" in lines
    assert len(lines) < 30


def test_many_changes_at_once_are_one_line(sandbox: Sandbox, log, monkeypatch):
    simulate(monkeypatch)
    jobs = submitted(sandbox, 40)
    sandbox.finish_all()
    event_of(make_trigger(jobs))
    lines = lines_above_debug(log)
    assert lines[-1].endswith("40 of 40 jobs done")
    assert len(lines) < 10
