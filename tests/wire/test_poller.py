"""The poller shared by all triggers of an event loop: one session, one budget, fair turns."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise

import pytest

from airflow_provider_modelslab._http import async_transport
from airflow_provider_modelslab._http.connection import MAX_CONNECTIONS
from airflow_provider_modelslab._polling.clock import DEFAULT_PACING
from airflow_provider_modelslab._polling.poller import pollers
from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.raw_server import RawServer, reply, stalling
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
    original = ModelsLabHook._read_connection
    monkeypatch.setattr(ModelsLabHook, "_read_connection", lambda *args: looked_up.append(1) or original(*args))
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
    original = async_transport.Session.post

    async def record(*args):
        sent.append(time.monotonic())
        return await original(*args)

    monkeypatch.setattr(async_transport.Session, "post", record)
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
    original = async_transport.Session.post

    async def record(*args):
        sent.append(time.monotonic())
        received = await original(*args)
        if isinstance(received, HttpReply) and b"Rate limit" in received.body:
            limited.append(time.monotonic())
        return received

    monkeypatch.setattr(async_transport.Session, "post", record)

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
    """The first that is refused reads the connection anew; the others must not take that for a refusal of the new key."""
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
            return poller.durations_of("v6/video").expected_duration(None)[0]

    async def scenario() -> tuple[float, float]:
        before = await median()
        running = asyncio.create_task(outcome(jobs))
        await await_until(lambda: fetches(sandbox) > 30)
        sandbox.finish_all()
        await running
        return before, await median()

    before, after = asyncio.run(scenario())
    assert after < before
