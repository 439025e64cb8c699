"""The poller shared by all triggers of an event loop: one session, one budget, fair turns."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from collections.abc import Iterator
from itertools import pairwise

import pytest

from airflow_provider_modelslab._http import async_transport
from airflow_provider_modelslab._http.connection import MAX_CONNECTIONS
from airflow_provider_modelslab._polling.clock import DEFAULT_PACING
from airflow_provider_modelslab._polling.poller import pollers
from airflow_provider_modelslab._polling.schedule import DurationModel
from airflow_provider_modelslab._polling.statistics import PollerStatistics
from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.faults import RequestLimit
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger
from tests.support.pacing import SimulatedClock, set_policy, simulate, simulated
from tests.support.raw_server import RawServer, reply, stalling
from tests.support.shared_account import Session, shares
from tests.support.simulated_loop import run_simulated
from tests.support.triggers import aevent_of, fetches, make_trigger, submitted
from tests.support.waiting import await_until

DEFAULT = "modelslab_default"


async def outcome(jobs: list[dict], poke_interval: float | None = 0.01, seconds: float = 3600.0) -> dict:
    return await aevent_of(make_trigger(jobs, seconds, poke_interval=poke_interval))


def limit(monkeypatch: pytest.MonkeyPatch, server: Sandbox | RawServer, requests_per_second: float) -> None:
    connection = json.loads(server.connection)
    connection["extra"] = {"requests_per_second": requests_per_second, "request_timeout": 300}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))


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
    clock = simulate(monkeypatch)
    many, (single,) = submitted(sandbox, 300), submitted(sandbox, 1)

    async def scenario() -> None:
        crowd = asyncio.create_task(outcome(many))
        await asyncio.sleep(1)
        alone = asyncio.create_task(outcome([single]))
        await asyncio.sleep(1)
        sandbox.finish_all()
        await asyncio.gather(crowd, alone)

    run_simulated(clock, scenario())
    turns = [index for index, request in enumerate(sandbox.requests) if request.path.endswith(single["id"])]
    assert len(turns) > 20
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
    rotated = raw_server.connection.replace("the-api-key", "the-new-key")

    def answers() -> Iterator[bytes]:
        yield reply({"status": "processing"})
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", rotated)
        yield reply({"status": "error", "message": "Invalid API key"}, 401)
        yield reply({"status": "success", "output": ["https://cdn/a"]})

    answer = answers()
    raw_server.answer_to = lambda request: next(answer)
    assert asyncio.run(outcome([{"id": "1", "endpoint": "v6/video"}]))["status"] == "finished"
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


def test_durations_are_learned(sandbox: Sandbox, monkeypatch):
    clock = simulate(monkeypatch)
    jobs = submitted(sandbox, 3)

    async def median() -> float:
        async with pollers().joined(DEFAULT, None, ModelsLabHook().aoptions, ModelsLabHook.pacing) as poller:
            return poller.durations["v6/video"].expected_duration(None)[0]

    async def scenario() -> tuple[float, float]:
        before = await median()
        running = asyncio.create_task(outcome(jobs, poke_interval=1))
        await asyncio.sleep(10)
        sandbox.finish_all()
        await running
        return before, await median()

    before, after = run_simulated(clock, scenario())
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
    clock = simulate(monkeypatch)
    jobs = submitted(sandbox, 2)

    async def scenario() -> dict:
        running = asyncio.create_task(outcome(jobs, poke_interval=1))
        await asyncio.sleep(10)
        sandbox.finish_all()
        return await running

    event = run_simulated(clock, scenario())
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
            waits = [asyncio.create_task(outcome(jobs[:2], poke_interval=10_000))]
            await await_until(lambda: poller.statistics().waiting == 2)
            states.append(poller.statistics())
            waits.append(asyncio.create_task(outcome(jobs[2:])))
            await await_until(lambda: poller.statistics().rate_limits == 1 and poller.statistics().waiting == 3)
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
    assert 0 < waiting.next_due <= 3598  # shortly before the deadline, whatever the interval
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
