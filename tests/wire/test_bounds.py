"""What a triggerer holds of long replies: little, whatever they echo."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

import pytest

from airflow_provider_modelslab._client import LONG_BODY, AsyncClient
from airflow_provider_modelslab._http.connection import ClientOptions
from airflow_provider_modelslab._protocol import replies, sanitizing
from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab._protocol.replies import read_fetch_reply
from airflow_provider_modelslab._tasks.events import job_records
from airflow_provider_modelslab._tasks.results import xcom_records
from airflow_provider_modelslab.jobs import Job
from tests.support.pacing import FAST, set_policy
from tests.support.raw_server import RawServer, reply
from tests.support.transport_faults import job_id_of
from tests.support.triggers import event_of, make_trigger

JOBS = 1000

MEGABYTE = 10**6


def nested(depth: int) -> list:
    return [nested(depth - 1)] if depth else []


ECHOES: dict[str, dict[str, object]] = {
    "one long text": {"meta": {"init_image": "A" * MEGABYTE}},
    "a longer text than is read of a running job": {"meta": {"init_image": "A" * 2 * MEGABYTE}},
    "many medium fields": {"meta": {f"field {number}": "a prompt " * 100 for number in range(MEGABYTE // 900)}},
    "many keys": {"meta": {f"{number:x}": number for number in range(MEGABYTE // 16)}},
    "many empty lists": {"meta": {"lists": [[]] * 190_000}},
    "deep lists": {"meta": {str(number): nested(25) for number in range(5_000)}},
    "a long name": {"meta": {"A" * MEGABYTE: 1}},
    "a long name without letters": {"meta": {"_" * MEGABYTE: 1}},
    "another writing": {"meta": {"prompt": "\u72d0" * (MEGABYTE // 6)}},
    "a long message": {"message": "try again later, " * (MEGABYTE // 17)},
    "many links": {"proxy_links": [f"https://cdn.example/{number}.png" for number in range(MEGABYTE // 40)]},
    "a long link": {"proxy_links": ["https://cdn.example/" + "a" * MEGABYTE]},
    "many future links": {"future_links": [f"https://cdn.example/{number}.png" for number in range(900)]},
    "many ids": {f"number_{number}_id": "i" * 500 for number in range(MEGABYTE // 600)},
    "many flags": {"nsfw_content_detected": [False] * 150_000},
}
SUCCESS: dict[str, object] = {"status": "success", "output": ["https://cdn.example/a.png"]}
ENDS: dict[str, dict[str, object]] = {
    "running": {"status": "processing"},
    "done": SUCCESS,
    "failed": {"status": "failed"},
}


def memory(name: str) -> float:
    """Return a line of the kernel's account of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(value) / 1000


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's account of the process")
@pytest.mark.parametrize(
    ("echo", "last"),
    [
        pytest.param(ECHOES["one long text"], SUCCESS, id="one long text"),
        pytest.param(ECHOES["a longer text than is read of a running job"], SUCCESS, id="a longer text"),
        pytest.param({}, {"status": "success", "output": ["A" * MEGABYTE]}, id="outputs that are data"),
    ],
)
def test_a_thousand_running_jobs_with_long_echoes_need_little_memory(raw_server: RawServer, monkeypatch, echo, last):
    extra = {"requests_per_second": 10_000, "request_timeout": 120}
    connection = {"conn_type": "modelslab", "host": raw_server.url, "password": "the-api-key-of-a-test", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    set_policy(monkeypatch, **FAST)
    running, finished = reply({"status": "processing", **echo}), reply({**echo, **last})
    polls: Counter[str] = Counter()

    def answer_to(request: bytes) -> bytes:
        polls[job_id_of(request)] += 1
        return running if polls[job_id_of(request)] == 1 else finished

    raw_server.answer_to = answer_to
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now
    before = memory("VmRSS")
    event = event_of(make_trigger([{"id": str(number), "endpoint": "v6/images"} for number in range(JOBS)]))
    assert memory("VmHWM") - before < 200
    assert {job["status"] for job in event["jobs"]} == {last["status"]}
    assert len(json.dumps(event)) < 10**6


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_whatever_the_echo_little_is_kept_and_less_travels(echo, end):
    body = json.dumps({**echo, **end}).encode()
    job = read_fetch_reply(HttpReply(200, body), Job("1", "v6/images")).job
    assert size_of(job.to_dict()) < 100_000  # of a thousand: 100 MB
    records = job_records([job] * JOBS)
    assert len(json.dumps(records)) < 900_000
    assert len(json.dumps(xcom_records([job] * JOBS))) < 1_200_000  # with all fields, also the empty ones
    assert job_records([Job.from_dict(record) for record in records]) == records


def size_of(value: object) -> int:
    """Return the bytes that a JSON value takes in memory."""
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return sys.getsizeof(value) + sum(map(size_of, parts))


def document(filler: bytes) -> bytes:
    return b'{"status": "success", "output": ["' + filler + b'"]}'


HOSTILE = {
    "lists": lambda size: b'{"status": "processing", "meta": [' + b"[]," * (size // 3) + b"1]}",
    "tiny fields": lambda size: json.dumps({f"{number:x}": number for number in range(size // 14)}).encode(),
    "deep": lambda size: b'{"status": ' + b"[" * size,
    "backslashes": lambda size: document(b"\\\\" * (size // 2)),
    "percents": lambda size: document(b"%41" * (size // 3)),
    "parts of the key": lambda size: document(b"_" * size),
}


@pytest.mark.parametrize("filler", HOSTILE.values(), ids=HOSTILE)
def test_no_long_body_is_read_on_the_event_loop_and_one_at_a_time(raw_server: RawServer, filler):
    """Threads take turns within milliseconds; what a loop reads itself, or waits for, would hold up all its jobs."""
    reading = most = 0
    on_the_loop: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal reading, most
        if event in ("call", "return") and frame.f_code is read_fetch_reply.__code__:
            reading += 1 if event == "call" else -1
            most = max(most, reading)

    def note_on_the_loop(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_globals["__name__"] in (sanitizing.__name__, replies.__name__):
            on_the_loop.append(frame.f_code.co_name)

    async def poll(size: int) -> None:
        raw_server.answer(reply(filler(size)))
        async with AsyncClient(
            ClientOptions(key="_" * 40, base_url=raw_server.url, request_timeout=120.0), None
        ) as client:
            await asyncio.gather(*(client.poll(Job(str(number), "v6/video")) for number in range(4)))

    threading.setprofile(note)
    sys.setprofile(note_on_the_loop)
    try:
        asyncio.run(poll(2 * LONG_BODY))
        assert (most, reading, on_the_loop) == (1, 0, [])
        asyncio.run(poll(LONG_BODY // 2))
        assert 0 < len(on_the_loop) < 2 * LONG_BODY
    finally:
        threading.setprofile(None)
        sys.setprofile(None)
