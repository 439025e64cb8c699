"""A wait belongs to the connection that it was started with: what it goes on with when that changes, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_modelslab._http.fingerprint import fingerprint_of
from airflow_provider_modelslab._tasks.events import read_event
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger
from tests.support.pacing import FAST, set_policy
from tests.support.raw_server import RawServer, reply
from tests.support.triggers import aevent_of, fetches, make_trigger, submitted
from tests.support.waiting import await_until


def connect(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, **extra: object) -> None:
    connection = {**json.loads(sandbox.connection), "extra": {"requests_per_second": 10_000, **extra}}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))


def deferred(jobs: list[dict]) -> ModelsLabJobTrigger:
    """Return the trigger of a task that is deferred now."""
    return make_trigger(jobs, fingerprint=asdict(fingerprint_of(ModelsLabHook().options)))


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
    ids = {job["id"] for job in jobs}
    former = [deferred([job]) for job in jobs[:20]]
    connect(monkeypatch, sandbox, request_timeout=7)
    triggers = [*former, *(deferred([job]) for job in jobs[20:])]
    look_ups = look_ups_of_connections(monkeypatch)

    async def scenario() -> list[dict]:
        waits = [asyncio.create_task(aevent_of(trigger)) for trigger in triggers]
        await await_until(lambda: {request.path.rpartition("/")[2] for request in sandbox.requests} >= ids)
        sandbox.finish_all()
        return await asyncio.gather(*waits)

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
