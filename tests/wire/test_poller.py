"""The poller shared by all triggers of an event loop: one session, one budget, fair turns."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_modelslab._http import async_transport
from airflow_provider_modelslab._http.connection import MAX_CONNECTIONS
from airflow_provider_modelslab._http.fingerprint import fingerprint_of
from airflow_provider_modelslab._polling.clock import DEFAULT_PACING
from airflow_provider_modelslab._polling.poller import pollers
from airflow_provider_modelslab._polling.schedule import DurationModel
from airflow_provider_modelslab._polling.statistics import PollerStatistics
from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab._tasks.events import read_event
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.faults import RequestLimit
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger
from tests.support.pacing import FAST, SimulatedClock, set_policy, simulated
from tests.support.raw_server import RawServer, reply, stalling
from tests.support.shared_account import Session, shares
from tests.support.simulated_loop import run_simulated
from tests.support.triggers import aevent_of, make_trigger
from tests.support.waiting import await_until

DEFAULT = "modelslab_default"


def submitted(sandbox: Sandbox, count: int) -> list[dict]:
    jobs = [sandbox.submit("v6/video/text2video", {"prompt": "a fox"})["id"] for _ in range(count)]
    return [{"id": str(job), "endpoint": "v6/video"} for job in jobs]


async def outcome(jobs: list[dict], poke_interval: float | None = 0.01, seconds: float = 60.0) -> dict:
    return await aevent_of(make_trigger(jobs, seconds, poke_interval=poke_interval))


def limit(monkeypatch: pytest.MonkeyPatch, server: Sandbox | RawServer, requests_per_second: float) -> None:
    connection = json.loads(server.connection)
    connection["extra"] = {"requests_per_second": requests_per_second}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))


def fetches(sandbox: Sandbox) -> int:
    return sandbox.state()["requests"].get("fetch", 0)


@pytest.fixture
def opened_sessions(monkeypatch) -> list:
    opened = []
    original = async_transport.Session

    def record(*args):
        opened.append(original(*args))
        return opened[-1]

    monkeypatch.setattr(async_transport, "Session", record)
    return opened


def test_all_triggers_share_one_session_and_one_look_up(sandbox: Sandbox, opened_sessions, monkeypatch):
    looked_up = []
    original = ModelsLabHook.aoptions
    monkeypatch.setattr(ModelsLabHook, "aoptions", lambda *args: looked_up.append(1) or original(*args))
    jobs = submitted(sandbox, 30)

    async def scenario() -> list[dict]:
        running = [asyncio.create_task(outcome([job])) for job in jobs]
        await await_until(lambda: fetches(sandbox) > 60)
        sandbox.finish_all()
        return await asyncio.gather(*running)

    assert [event["status"] for event in asyncio.run(scenario())] == ["finished"] * 30
    assert len(looked_up) == len(opened_sessions) == 1
    assert opened_sessions[0].client.closed


def test_the_session_survives_the_cancellation_of_the_trigger_that_opened_it(sandbox: Sandbox, opened_sessions):
    first, second = submitted(sandbox, 2)

    async def scenario() -> dict:
        opener = asyncio.create_task(outcome([first]))
        await await_until(lambda: fetches(sandbox) > 3)
        other = asyncio.create_task(outcome([second]))
        await await_until(lambda: any(request.path.endswith(second["id"]) for request in sandbox.requests))
        opener.cancel()
        await asyncio.gather(opener, return_exceptions=True)
        assert not opened_sessions[0].client.closed
        sandbox.finish(second["id"])
        return await other

    assert asyncio.run(scenario())["status"] == "finished"
    assert len(opened_sessions) == 1
    assert opened_sessions[0].client.closed


def test_nothing_is_left_when_the_last_has_gone(sandbox: Sandbox, opened_sessions):
    (job,) = submitted(sandbox, 1)

    async def scenario() -> None:
        for so_far in (0, 100):
            running = asyncio.create_task(outcome([job]))
            await await_until(lambda: fetches(sandbox) > so_far)  # noqa: B023
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    assert [session.client.closed for session in opened_sessions] == [True, True]


def test_the_ceiling_holds_for_all_triggers_together(sandbox: Sandbox, monkeypatch):
    limit(monkeypatch, sandbox, 50)
    jobs = submitted(sandbox, 40)

    async def scenario() -> None:
        running = [asyncio.create_task(outcome([job])) for job in jobs[:20]]
        running.append(asyncio.create_task(outcome(jobs[20:])))
        await await_until(lambda: fetches(sandbox) >= 100)
        sandbox.finish_all()
        await asyncio.gather(*running)

    sent = departures(monkeypatch)
    asyncio.run(scenario())
    assert len(sent) >= 100
    # A busy event loop may bring one request late, to leave together with the next, and no more than one.
    assert all(later - earlier >= 0.97 for earlier, later in zip(sent, sent[50:], strict=False))


def departures(monkeypatch) -> list[float]:
    """Return the list to which the moment of each request is added."""
    sent: list[float] = []
    original = async_transport.Session.send

    async def record(*args, **options):
        sent.append(time.monotonic())
        return await original(*args, **options)

    monkeypatch.setattr(async_transport.Session, "send", record)
    return sent


def test_a_trigger_with_many_jobs_does_not_keep_one_with_a_single_job_waiting(sandbox: Sandbox, monkeypatch):
    """At any time at most a few polls of the others come between two polls at the single job."""
    limit(monkeypatch, sandbox, 200)
    many, (single,) = submitted(sandbox, 300), submitted(sandbox, 1)

    async def scenario() -> None:
        crowd = asyncio.create_task(outcome(many))
        await await_until(lambda: fetches(sandbox) > 50)
        alone = asyncio.create_task(outcome([single]))
        await await_until(lambda: sum(request.path.endswith(single["id"]) for request in sandbox.requests) >= 20)
        sandbox.finish_all()
        await asyncio.gather(crowd, alone)

    asyncio.run(scenario())
    turns = [index for index, request in enumerate(sandbox.requests) if request.path.endswith(single["id"])][:20]
    assert max(later - earlier for earlier, later in pairwise(turns)) <= 20


def test_a_rate_limit_amid_500_waits_pauses_every_trigger_of_the_connection(monkeypatch):
    sent: list[float] = []
    limited: list[float] = []
    original = async_transport.Session.send

    async def record(*args, **options):
        sent.append(time.monotonic())
        received = await original(*args, **options)
        if isinstance(received, HttpReply) and b"Rate limit" in received.body:
            limited.append(time.monotonic())
        return received

    monkeypatch.setattr(async_transport.Session, "send", record)

    async def scenario(sandbox: Sandbox, jobs: list[dict]) -> None:
        running = [asyncio.create_task(outcome(waits)) for waits in [*([job] for job in jobs[:250]), jobs[250:]]]
        await await_until(lambda: fetches(sandbox) > 600)
        sandbox.script("fetch", ["rate_limit"])
        await await_until(lambda: bool(limited) and sent[-1] > limited[0])
        sandbox.finish_all()
        await asyncio.gather(*running)

    with Sandbox(duration=float("inf"), queue_limit=None, retry_after=2) as sandbox:
        limit(monkeypatch, sandbox, 10_000)
        asyncio.run(scenario(sandbox, submitted(sandbox, 500)))
    assert next(moment for moment in sent if moment > limited[0]) >= limited[0] + 2


def test_a_deadline_is_kept_while_no_connection_is_free(raw_server: RawServer, monkeypatch):
    """Replies that do not come, on all connections at once, hold up neither a deadline nor those who do not wait there."""
    raw_server.answer(*[stalling()] * MAX_CONNECTIONS)
    limit(monkeypatch, raw_server, 10_000)
    jobs = [{"id": str(number), "endpoint": "v6/video"} for number in range(MAX_CONNECTIONS)]

    async def scenario() -> dict:
        busy = asyncio.create_task(outcome(jobs, seconds=1e6))
        await await_until(lambda: len(raw_server.requests) == MAX_CONNECTIONS)
        waited = await outcome([{"id": "late", "endpoint": "v6/video"}], seconds=0.2)
        assert len(raw_server.requests) == MAX_CONNECTIONS  # the request_timeout of the others is far away
        busy.cancel()
        return waited

    assert asyncio.run(scenario())["status"] == "timeout"


def test_a_rotated_key_is_picked_up(raw_server: RawServer, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(
        reply({"status": "processing"}),
        reply({"status": "error", "message": "Invalid API key"}, 401),
        reply({"status": "success", "output": ["https://cdn/a"]}),
    )

    async def scenario() -> dict:
        running = asyncio.create_task(outcome([{"id": "1", "endpoint": "v6/video"}], poke_interval=0.2))
        await await_until(lambda: len(raw_server.requests) == 1)
        rotated = raw_server.connection.replace("the-api-key", "the-new-key")
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", rotated)
        return await running

    assert asyncio.run(scenario())["status"] == "finished"
    assert [b"the-new-key" in request for request in raw_server.requests] == [False, False, True]


def test_many_jobs_refused_at_the_same_time_all_get_the_new_key(sandbox: Sandbox, monkeypatch):
    """The first that is refused looks the connection up again; the others must not take that for a refusal of the new key."""
    jobs = submitted(sandbox, 30)

    async def scenario() -> list[dict]:
        running = [asyncio.create_task(outcome([job])) for job in jobs]
        await await_until(lambda: fetches(sandbox) > 60)
        sandbox.rotate_key("the-rotated-key")
        limit(monkeypatch, sandbox, 10_000)
        so_far = fetches(sandbox)
        await await_until(lambda: fetches(sandbox) > so_far + 60)
        sandbox.finish_all()
        return await asyncio.gather(*running)

    assert [event["status"] for event in asyncio.run(scenario())] == ["finished"] * 30


def test_durations_are_learned(sandbox: Sandbox):
    jobs = submitted(sandbox, 3)

    async def median() -> float:
        async with pollers().joined(DEFAULT, None, ModelsLabHook().aoptions, DEFAULT_PACING) as poller:
            return poller.durations["v6/video"].expected_duration(None)[0]

    async def scenario() -> tuple[float, float]:
        before = await median()
        running = asyncio.create_task(outcome(jobs))
        await await_until(lambda: fetches(sandbox) > 30)
        sandbox.finish_all()
        await running
        return before, await median()

    before, after = asyncio.run(scenario())
    assert after < before


@pytest.mark.parametrize("known", [{}, {"submitted": 1}, {"submitted": time.time() - 86_400}])
def test_jobs_that_were_done_before_teach_nothing(sandbox: Sandbox, known: dict):
    jobs = [{**job, "eta": 20.0, **known} for job in submitted(sandbox, 20)]
    sandbox.finish_all()

    async def scenario() -> tuple[tuple[float, float], tuple[float, float]]:
        async with pollers().joined(DEFAULT, None, ModelsLabHook().aoptions, DEFAULT_PACING) as poller:
            before = poller.durations["v6/video"].expected_duration(20.0)
            assert (await outcome(jobs))["status"] == "finished"
            return before, poller.durations["v6/video"].expected_duration(20.0)

    before, after = asyncio.run(scenario())
    assert after == before


def test_a_job_is_done_even_if_nothing_can_be_learned_from_it(sandbox: Sandbox, log, monkeypatch):
    def broken(*_: object) -> None:
        raise ValueError("math domain error")

    monkeypatch.setattr(DurationModel, "observe", broken)
    jobs = submitted(sandbox, 2)

    async def scenario() -> dict:
        running = asyncio.create_task(outcome(jobs))
        await await_until(lambda: fetches(sandbox) > 10)
        sandbox.finish_all()
        return await running

    event = asyncio.run(scenario())
    assert (event["status"], [job["status"] for job in event["jobs"]]) == ("finished", ["success"] * 2)
    assert "The duration of job v6/video" in log.text


def test_pollers_and_closed_event_loops_are_forgotten(sandbox: Sandbox):
    jobs = submitted(sandbox, 2)
    sandbox.finish_all()
    loops, known = [], []

    async def scenario() -> None:
        loops.append(asyncio.get_running_loop())  # as Airflow keeps them, too
        assert (await outcome(jobs))["status"] == "finished"
        known.append(weakref.ref(pollers()))

    for _ in range(3):
        asyncio.run(scenario())
    gc.collect()
    assert [each() is None for each in known] == [True, True, False]


# --- the pace after rate limits, on simulated time ---


def busy(conn_id: str, clock: SimulatedClock, seconds: float) -> ModelsLabJobTrigger:
    """Return a trigger that always has a job to poll."""
    jobs = [{"id": str(number), "endpoint": "v6/video"} for number in range(100)]
    now = clock.wall()
    trigger = make_trigger(jobs, modelslab_conn_id=conn_id, started=now, deadline=now + seconds, poke_interval=1.0)
    trigger.pacing = simulated(clock)  # type: ignore[misc]
    return trigger


def test_after_a_rate_limit_polls_pause_resume_at_half_the_pace_and_climb_back(raw_server: RawServer, monkeypatch):
    clock = SimulatedClock()
    began = clock.monotonic()
    asked: list[float] = []

    def answer(request: bytes) -> bytes:
        asked.append(clock.monotonic() - began)
        if len(asked) == 100:
            return reply({"status": "error", "message": "Too Many Attempts.", "retry_after": 30}, 429)
        return reply({"status": "processing"})

    raw_server.answer_to = answer
    limit(monkeypatch, raw_server, 5)
    assert run_simulated(clock, aevent_of(busy(DEFAULT, clock, seconds=300.0)))["status"] == "timeout"
    refused, resumed = asked[99], asked[100]
    assert refused == pytest.approx(100 / 5, abs=2)
    assert resumed >= refused + 30

    def pace(after: float) -> float:
        return sum(resumed + after <= moment < resumed + after + 20 for moment in asked) / 20

    assert 2.5 <= pace(0) <= 4.0
    assert pace(60) == pytest.approx(0.9 * 5, abs=0.15)
    assert pace(160) == pytest.approx(0.9 * 5, abs=0.15)


def test_the_pace_after_a_rate_limit_outlives_the_triggers(raw_server: RawServer, monkeypatch):
    """As where each task has a trigger of its own: the pause counts for the one that comes next, too."""
    clock = SimulatedClock()
    asked: list[float] = []

    def answer(request: bytes) -> bytes:
        asked.append(clock.monotonic())
        return reply({"status": "error", "message": "Too Many Attempts.", "retry_after": 30}, 429)

    async def one_after_the_other() -> None:
        for seconds in (5.0, 5.0, 60.0):
            await aevent_of(busy(DEFAULT, clock, seconds))

    raw_server.answer_to = answer
    limit(monkeypatch, raw_server, 5)
    run_simulated(clock, one_after_the_other())
    assert len(asked) >= 2
    assert all(later - earlier >= 30 for earlier, later in pairwise(asked))


def test_two_pollers_share_an_account_fairly(raw_server: RawServer, monkeypatch):
    """Real pollers over real sockets, for three hours of simulated time, of which the first is not counted."""
    clock, per_second = SimulatedClock(), 2.0
    began = clock.monotonic()
    account, sessions = RequestLimit(per_second), {b"key-of-one": Session(), b"key-of-two": Session()}

    def answer(request: bytes) -> bytes:
        now = clock.monotonic()
        session = next(session for key, session in sessions.items() if key in request)
        admitted = account.admits(now)
        (session.accepted if admitted else session.refused).append(now - began)
        return reply(
            {"status": "processing"} if admitted else {"message": "Too Many Attempts."}, 200 if admitted else 429
        )

    raw_server.answer_to = answer
    for conn_id, key in (("one", "key-of-one"), ("two", "key-of-two")):
        connection = {
            **json.loads(raw_server.connection),
            "password": key,
            "extra": {"requests_per_second": per_second},
        }
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    async def both() -> None:
        await asyncio.gather(*(aevent_of(busy(conn_id, clock, 3 * 3600.0)) for conn_id in ("one", "two")))

    run_simulated(clock, both())
    outcome = shares(list(sessions.values()), per_second, begin=3600.0, end=3 * 3600.0)
    assert outcome.used >= 0.9
    assert outcome.refused <= 0.02
    assert outcome.ratio <= 2.0
    assert outcome.longest_gap <= 70.0


# --- statistics ---


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that only the event loop may ask."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition did not come true")


def test_a_poller_tells_what_it_has_done_and_what_is_next(raw_server: RawServer, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(
        reply({"status": "processing"}),
        reply({"status": "error", "message": "Internal server error."}, 500),
        reply({"status": "error", "message": "Rate limit exceeded", "retry_after": 2000}, 429),
    )

    async def scenario() -> list[PollerStatistics]:
        async with pollers().joined(DEFAULT, None, ModelsLabHook().aoptions, DEFAULT_PACING) as poller:
            states = [poller.statistics()]
            jobs = [{"id": str(number), "endpoint": "v6/video"} for number in range(3)]
            waits = [asyncio.create_task(outcome(jobs[:2], poke_interval=1000))]
            await until(lambda: poller.statistics().waiting == 2)
            states.append(poller.statistics())
            waits.append(asyncio.create_task(outcome(jobs[2:])))
            await until(lambda: poller.statistics().rate_limits == 1 and poller.statistics().waiting == 3)
            states.append(poller.statistics())
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            states.append(poller.statistics())
            return states

    opened, waiting, limited, left = asyncio.run(scenario())
    assert (opened.polls, opened.triggers, opened.waiting, opened.next_due) == (0, 0, 0, None)
    assert (waiting.polls, waiting.triggers, waiting.waiting, waiting.due) == (0, 1, 2, 0)
    assert waiting.next_due is not None
    assert 0 < waiting.next_due <= 58  # shortly before the deadline, whatever the interval
    assert (limited.polls, limited.faults, limited.rate_limits, limited.triggers) == (3, 1, 1, 2)
    assert limited.paused == pytest.approx(2000)
    assert (left.polls, left.triggers, left.waiting, left.next_due) == (3, 0, 0, None)
    assert limited.replies == {Verdict.PROCESSING: 1, Verdict.TRANSIENT: 1, Verdict.RATE_LIMITED: 1}


@pytest.mark.parametrize(("gap", "lines"), [(3600.0, 1), (0.0, 30)])
def test_the_statistics_are_logged_at_debug_level_and_not_too_often(sandbox: Sandbox, monkeypatch, log, gap, lines):
    set_policy(monkeypatch, statistics_gap=gap)
    log.set_level("DEBUG", "airflow_provider_modelslab")
    jobs = submitted(sandbox, 30)
    sandbox.finish_all()
    assert asyncio.run(outcome(jobs))["status"] == "finished"
    told = [record.getMessage() for record in log.records if "polls" in record.getMessage()]
    assert len(told) == lines
    assert told[0].startswith(f"Polling {sandbox.url}: 1 polls, 0 faults, 0 rate limits")
    assert sandbox.key not in str(told)


# --- a wait belongs to the connection that it was started with ---


def connect(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, **extra: object) -> None:
    connection = {**json.loads(sandbox.connection), "extra": {"requests_per_second": 10_000, **extra}}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))


def deferred(jobs: list[dict], seconds: float = 60.0) -> ModelsLabJobTrigger:
    """Return the trigger of a task that is deferred now."""
    return make_trigger(jobs, seconds, fingerprint=asdict(fingerprint_of(ModelsLabHook().options)))


@pytest.fixture
def other_sandbox() -> Iterator[Sandbox]:
    with Sandbox(duration=float("inf"), key="the-key-of-another-account", seed=2) as other:
        yield other


def test_a_wait_keeps_its_host_when_the_connection_gets_another_one(
    sandbox: Sandbox, other_sandbox: Sandbox, monkeypatch
):
    """Both sandboxes have a job of the same id: each wait must end with the picture of its own."""
    (first,), (second,) = submitted(sandbox, 1), submitted(other_sandbox, 1)
    assert first == second

    async def scenario() -> list[dict]:
        before = asyncio.create_task(aevent_of(deferred([first])))
        await await_until(lambda: fetches(sandbox) > 3)
        connect(monkeypatch, other_sandbox)
        after = asyncio.create_task(aevent_of(deferred([second])))
        await await_until(lambda: fetches(other_sandbox) > 3)
        sandbox.finish_all()
        other_sandbox.finish_all()
        return await asyncio.gather(before, after)

    events = asyncio.run(scenario())
    assert [event["status"] for event in events] == ["finished", "finished"]
    for event, its in zip(events, (sandbox, other_sandbox), strict=True):
        assert event["jobs"][0]["outputs"][0].startswith(its.url)


def test_a_wait_whose_connection_leads_to_another_host_says_so(sandbox: Sandbox, other_sandbox: Sandbox, monkeypatch):
    """As after a restart of the triggerer: the former host is known from the fingerprint only."""
    set_policy(monkeypatch, **FAST)
    trigger = deferred(submitted(sandbox, 1))
    connect(monkeypatch, other_sandbox)
    event = asyncio.run(aevent_of(trigger))
    assert event["status"] == "error"
    assert f"submitted to {sandbox.url}, and the connection now leads to {other_sandbox.url}" in event["message"]
    assert "Put the host back into connection 'modelslab_default'" in event["message"]
    assert not fetches(other_sandbox)
    assert isinstance(read_event(event).error("modelslab_default"), AirflowFailException)


def test_a_host_that_the_connection_lost_for_a_moment_ends_no_wait(sandbox: Sandbox, other_sandbox, monkeypatch):
    """As when a secrets backend is away, and the environment stands in."""
    set_policy(monkeypatch, **{**FAST, "max_backoff": 0.5})
    trigger = deferred(submitted(sandbox, 1))
    right = os.environ["AIRFLOW_CONN_MODELSLAB_DEFAULT"]
    connect(monkeypatch, other_sandbox)

    async def scenario() -> dict:
        waiting = asyncio.create_task(aevent_of(trigger))
        await asyncio.sleep(0)
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", right)
        await await_until(lambda: fetches(sandbox) > 0)
        sandbox.finish_all()
        return await waiting

    assert asyncio.run(scenario())["status"] == "finished"


@pytest.mark.parametrize("triggers", [1, 50])
def test_a_changed_option_is_looked_up_once_and_serves_the_new_waits(
    sandbox: Sandbox, opened_sessions, monkeypatch, triggers
):
    jobs = submitted(sandbox, 2 * triggers)
    look_ups = look_ups_of_connections(monkeypatch)

    async def scenario() -> None:
        running = [asyncio.create_task(aevent_of(deferred([job]))) for job in jobs[:triggers]]
        await await_until(lambda: fetches(sandbox) > triggers)
        connect(monkeypatch, sandbox, request_timeout=7)
        waiting = [deferred([job]) for job in jobs[triggers:]]
        look_ups.clear()
        running += [asyncio.create_task(aevent_of(trigger)) for trigger in waiting]
        await await_until(lambda: any(request.path.endswith(jobs[-1]["id"]) for request in sandbox.requests))
        sandbox.finish_all()
        await asyncio.gather(*running)

    asyncio.run(scenario())
    assert len(look_ups) == 1
    assert [session.timeout for session in opened_sessions] == [30.0, 7.0]


def test_waits_of_former_options_go_on_with_those_of_now_after_one_look_up(
    sandbox: Sandbox, opened_sessions, monkeypatch
):
    """As after a restart of the triggerer."""
    jobs = submitted(sandbox, 40)
    former = [deferred([job]) for job in jobs[:20]]
    connect(monkeypatch, sandbox, request_timeout=7)
    triggers = [*former, *(deferred([job]) for job in jobs[20:])]
    look_ups = look_ups_of_connections(monkeypatch)
    sandbox.finish_all()

    async def scenario() -> list[dict]:
        return await asyncio.gather(*map(aevent_of, triggers))

    assert {event["status"] for event in asyncio.run(scenario())} == {"finished"}
    assert len(look_ups) == 2  # one for each fingerprint
    assert [session.timeout for session in opened_sessions] == [7.0]


def look_ups_of_connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which each look-up of a connection is added."""
    looked_up: list[str] = []
    original = ModelsLabHook.get_connection

    def record(conn_id: str):
        looked_up.append(conn_id)
        return original(conn_id)

    async def arecord(conn_id: str):
        looked_up.append(conn_id)
        return original(conn_id)

    monkeypatch.setattr(ModelsLabHook, "get_connection", staticmethod(record))
    monkeypatch.setattr(ModelsLabHook, "aget_connection", staticmethod(arecord), raising=False)
    return looked_up


def test_a_wait_whose_key_was_rotated_finds_the_new_one(sandbox: Sandbox, monkeypatch):
    """Before and after a restart of the triggerer."""
    set_policy(monkeypatch, **FAST)
    jobs = submitted(sandbox, 2)
    triggers = [deferred([job]) for job in jobs]

    async def scenario() -> list[dict]:
        running = [asyncio.create_task(aevent_of(triggers[0]))]
        await await_until(lambda: fetches(sandbox) > 3)
        sandbox.rotate_key("the-rotated-key")
        connect(monkeypatch, sandbox)
        sandbox.finish_all()
        return [await running[0], await aevent_of(triggers[1])]

    assert [event["status"] for event in asyncio.run(scenario())] == ["finished", "finished"]


def test_a_job_that_another_key_does_not_know_says_that_the_key_has_changed(raw_server: RawServer, monkeypatch):
    set_policy(monkeypatch, **FAST, inconclusive_grace=0.05)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    trigger = deferred([{"id": "1", "endpoint": "v6/video"}])
    raw_server.answer(reply({"status": "failed", "id": "", "message": "Request not found", "output": ""}))
    monkeypatch.setenv(
        "AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection.replace("the-api-key", "the-key-of-another-account")
    )
    (job,) = asyncio.run(aevent_of(trigger))["jobs"]
    assert job["status"] == "failed"
    assert "The key of connection 'modelslab_default' has changed since the wait began" in job["message"]


def test_no_key_can_be_told_from_a_fingerprint(sandbox: Sandbox, monkeypatch):
    before = fingerprint_of(ModelsLabHook().options)
    connect(monkeypatch, sandbox, request_timeout=7)
    after = fingerprint_of(ModelsLabHook().options)
    assert (before.host, before.key) == (after.host, after.key) == (sandbox.url, before.key)
    assert before.options != after.options
    assert sandbox.key not in str(before)
    assert len(before.key) * 4 <= 24  # bits: many keys have the same
