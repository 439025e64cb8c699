"""
Every reply and every fault of the network, against every way of asking, over a real socket.

What each means is stated once, in :data:`OUTCOMES`. Where a wait is to go on, the fault is over after the first poll,
and the wait must end well.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import trustme

from airflow_provider_modelslab._http import async_transport, outcomes, sync_transport
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply
from airflow_provider_modelslab._protocol.replies import Reply, Verdict, read_fetch_reply
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.pacing import FAST, set_policy
from tests.support.raw_server import RESET, RawServer, Stream, reply, ssl_context_of
from tests.support.reply_table import REPLIES
from tests.support.tasks import RecordingTaskInstance
from tests.support.transport_faults import EARLY_HINTS, MIB, ODD_SUCCESSES, SUCCESS, TRANSPORT_FAULTS
from tests.support.triggers import event_of, make_trigger
from tests.support.waiting import wait_until

JOB = Job(id="1", endpoint="v6/video")


@dataclass(frozen=True)
class Outcome:
    """
    What a verdict leads to.

    :param fetch: the status of the job that ``hook.fetch`` returns, or the exception that it raises.
    :param sensor: the same of a poking sensor.
    :param trigger: the status of the job in the trigger's event, or the verdict of its error.
    :param fetch_repeats: whether ``hook.fetch`` asks again.
    :param waits_go_on: whether sensor and trigger ask again.
    """

    fetch: str
    sensor: str
    trigger: str
    fetch_repeats: bool = False
    waits_go_on: bool = False


PENDING = Outcome("processing", "success", "success", waits_go_on=True)

OUTCOMES = {
    "SUCCESS": Outcome("success", "success", "success"),
    "PROCESSING": PENDING,
    "NO_OUTPUT": PENDING,
    "EMPTY_ERROR": PENDING,
    "RATE_LIMITED": PENDING,
    "NOT_FOUND": Outcome("failed", "success", "success", waits_go_on=True),
    "TRANSIENT": Outcome("success", "success", "success", fetch_repeats=True, waits_go_on=True),
    "FAILED": Outcome("failed", "ModelsLabJobFailed", "failed"),
    "REFUSED": Outcome("ModelsLabRequestError", "ModelsLabJobFailed", "failed"),
    "INVALID_KEY": Outcome("ModelsLabAuthError", "success", "success", waits_go_on=True),
    "NO_CREDITS": Outcome("ModelsLabCreditsError", "success", "success", waits_go_on=True),
    "NOT_IN_PLAN": Outcome("ModelsLabPlanError", "success", "success", waits_go_on=True),
}


ENDINGS = {
    "INVALID_KEY": "ModelsLabAuthError",
    "NO_CREDITS": "ModelsLabCreditsError",
    "NOT_IN_PLAN": "ModelsLabPlanError",
}
"""How a sensor ends when the account is refused."""


# --- ways of asking ---


def fetch() -> str:
    return _ending(lambda: ModelsLabHook().fetch(JOB.id, JOB.endpoint).status)


def afetch() -> str:
    return _ending(lambda: asyncio.run(ModelsLabHook().afetch(JOB.id, JOB.endpoint)).status)


def poll() -> Reply:
    return ModelsLabHook().client.poll(JOB)


def apoll() -> Reply:
    async def one_poll() -> Reply:
        async with await ModelsLabHook().open_async_client() as client:
            return await client.poll(JOB)

    return asyncio.run(one_poll())


def sensor() -> str:
    waiting = ModelsLabJobSensor(
        task_id="wait", jobs=JOB.id, endpoint=JOB.endpoint, deferrable=False, poke_interval=0.01
    )
    return _ending(lambda: waiting.execute({"ti": RecordingTaskInstance()}) and "success")


def trigger() -> str:
    event = event_of(make_trigger([{"id": JOB.id, "endpoint": JOB.endpoint}]))
    assert event["status"] != "timeout"
    return event["verdict"] if event["status"] == "error" else event["jobs"][0]["status"]


def _ending(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception as error:
        return type(error).__name__


def submit() -> str:
    return _ending(lambda: ModelsLabHook().submit("v6/video/text2video", {"prompt": "a fox"}).status)


def asubmit() -> str:
    return _ending(lambda: asyncio.run(ModelsLabHook().asubmit("v6/video/text2video", {"prompt": "a fox"})).status)


polls = pytest.mark.parametrize("poll", [poll, apoll])
anyhow = pytest.mark.parametrize("ask", [fetch, afetch, sensor, trigger])
fetches = pytest.mark.parametrize("fetch", [fetch, afetch])
waits = pytest.mark.parametrize("wait", [sensor, trigger])


# --- the surroundings ---


@dataclass
class Wire:
    """What the transports handed over, and what is to happen after the first of it."""

    received: list[HttpReply | NoReply] = field(default_factory=list)
    after_first: Callable[[], object] = lambda: None

    def take(self, received: HttpReply | NoReply) -> HttpReply | NoReply:
        self.received.append(received)
        if len(self.received) == 1:
            self.after_first()
        return received


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    send, asend = sync_transport.send, async_transport.Session.send

    async def recorded(*args, **options):
        return wire.take(await asend(*args, **options))

    monkeypatch.setattr(sync_transport, "send", lambda *args, **options: wire.take(send(*args, **options)))
    monkeypatch.setattr(async_transport.Session, "send", recorded)
    return wire


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pause that is meant for the real world becomes a short one; which pause is asked for is tested elsewhere."""
    monkeypatch.setattr("airflow_provider_modelslab._protocol.replies.LONGEST_PAUSE", 0.01)
    set_policy(monkeypatch, **FAST)
    monkeypatch.setattr("airflow_provider_modelslab.hooks._RETRY_PAUSE", lambda state: 0.01)


def connect(monkeypatch: pytest.MonkeyPatch, url: str, request_timeout: float = 120.0, retries: int = 5) -> None:
    extra = {"retries": retries, "request_timeout": request_timeout, "requests_per_second": 10_000}
    connection = {"conn_type": "modelslab", "host": url, "password": "the-api-key", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))


@pytest.fixture
def server(raw_server: RawServer, monkeypatch: pytest.MonkeyPatch) -> RawServer:
    connect(monkeypatch, raw_server.url)
    return raw_server


# --- replies ---


replies = pytest.mark.parametrize(
    ("answer", "verdict"), [(reply(row[1], row[0]), row[2]) for row in REPLIES.values()], ids=REPLIES
)


@polls
@replies
def test_a_poll_has_the_verdict(server: RawServer, poll, answer, verdict):
    server.answer(answer)
    assert poll().verdict.name == verdict
    assert len(server.requests) == 1


@fetches
@replies
def test_fetching(server: RawServer, fetch, answer, verdict):
    outcome = OUTCOMES[verdict]
    server.answer(answer, SUCCESS)
    assert fetch() == outcome.fetch
    assert len(server.requests) == 1 + outcome.fetch_repeats


@waits
@replies
def test_waiting(server: RawServer, wait, answer, verdict):
    outcome = OUTCOMES[verdict]
    server.answer(answer, SUCCESS)
    assert wait() == getattr(outcome, wait.__name__)
    assert len(server.requests) == 1 + outcome.waits_go_on


@waits
@pytest.mark.parametrize("name", [name for name, row in REPLIES.items() if row[2] in ("NO_OUTPUT", "EMPTY_ERROR", "NOT_FOUND")])  # fmt: skip
def test_an_inconclusive_reply_that_persists_is_a_failure(server: RawServer, wait, name, monkeypatch):
    set_policy(monkeypatch, **FAST, inconclusive_grace=0.05)
    status, body, *_ = REPLIES[name]
    server.answer(reply(body, status))
    assert wait() == getattr(OUTCOMES["FAILED"], wait.__name__)


@waits
@pytest.mark.parametrize("name", [name for name, row in REPLIES.items() if row[2] in ENDINGS])
def test_a_refused_account_ends_a_wait_at_the_second_poll(server: RawServer, wait, name):
    status, body, verdict, *_ = REPLIES[name]
    server.answer(reply(body, status))
    assert wait() == (verdict if wait is trigger else ENDINGS[verdict])
    # On a busy machine the poller has asked once more before the trigger wakes.
    assert len(server.requests) == 2 or (wait is trigger and len(server.requests) > 2)


# --- the network ---

# Enough to give up soon. On a busy machine it may be too little even to connect, which is repeated until it suffices.
SHORT_TIMEOUT: dict[str, Any] = {"request_timeout": 0.3, "retries": 100}

faults = pytest.mark.parametrize("fault", TRANSPORT_FAULTS.values(), ids=TRANSPORT_FAULTS)


@anyhow
@faults
def test_a_fault_of_the_network_is_waited_out(server: RawServer, wire: Wire, fault, ask, monkeypatch):
    if fault.slow:
        connect(monkeypatch, server.url, **SHORT_TIMEOUT)
    server.answer(fault.answer, SUCCESS)
    assert ask() == "success"
    sent = [each for each in wire.received if isinstance(each, HttpReply) or each.sent]
    assert re.search(fault.reason, read_fetch_reply(sent[0], JOB).job.message)
    # What the server has read must count as sent, or else a submission would be repeated, and billed twice.
    assert 2 <= len(server.requests) <= len(sent)
    assert len(wire.received) == 2 or fault.slow
    if fault.endless:
        wait_until(lambda: bool(server.sent))  # the server sees the connection closed
        # How much arrives until a timeout is a question of the machine's speed; else no more than a reply may have, and
        # what the sockets hold.
        assert fault.slow or server.sent[0] < outcomes.MAX_REPLY_BYTES + 16 * MIB


@anyhow
@pytest.mark.parametrize("name", ODD_SUCCESSES)
def test_an_odd_success_is_found(server: RawServer, ask, name):
    server.answer(ODD_SUCCESSES[name])
    assert ask() == "success"
    assert len(server.requests) == 1


@anyhow
def test_early_hints_may_take_another_poll(server: RawServer, ask):
    server.answer(EARLY_HINTS, SUCCESS)
    assert ask() == "success"


@polls
@pytest.mark.parametrize(
    "name", [name for name, fault in TRANSPORT_FAULTS.items() if fault.endless or "100 MB" in name]
)
def test_what_is_too_long_is_not_held_in_memory(server: RawServer, poll, name, monkeypatch):
    """The limit of a reply, its growth by copying, and some pieces on their way: never the 100 MB."""
    if TRANSPORT_FAULTS[name].slow:
        connect(monkeypatch, server.url, **SHORT_TIMEOUT)
    server.answer(TRANSPORT_FAULTS[name].answer)
    tracemalloc.start()
    try:
        assert poll().verdict is Verdict.TRANSIENT
        assert tracemalloc.get_traced_memory()[1] < 2.5 * outcomes.MAX_REPLY_BYTES
    finally:
        tracemalloc.stop()


# --- faults on the way to a server, which are over after the first poll ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both clients trust the authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))


def trusted_context(authority: trustme.CA) -> ssl.SSLContext:
    return ssl_context_of(authority.issue_cert("127.0.0.1"))


def check_way(wire: Wire, ask, reason: str) -> None:
    """See a wait end well though the first poll did not reach the server at all."""
    assert ask() == "success"
    first = wire.received[0]
    assert isinstance(first, NoReply)
    assert reason in first.reason
    assert not first.sent  # nothing can have arrived: a submission may be repeated
    assert len(wire.received) == 2


@anyhow
def test_a_server_that_refuses_connections(wire: Wire, ask, monkeypatch):
    server = RawServer()
    server.answer(SUCCESS)
    connect(monkeypatch, server.url)
    with ExitStack() as stack:
        wire.after_first = lambda: stack.enter_context(server)
        check_way(wire, ask, "no connection to ModelsLab")


@anyhow
def test_a_connection_that_is_reset_before_the_request_is_read(server: RawServer, wire: Wire, ask):
    resets = iter([True])
    server.turns_away = lambda: next(resets, False)
    server.answer(SUCCESS)
    assert ask() == "success"
    assert len(server.requests) == 1
    assert wire.received[0] == outcomes.CONNECTION_LOST


@anyhow
def test_a_name_that_cannot_be_resolved(server: RawServer, wire: Wire, ask, monkeypatch):
    """The resolver is a stand-in, since a real one asks the network."""
    resolve = socket.getaddrinfo
    known = set()

    def getaddrinfo(host, *args, **kwargs):
        if host != "api.modelslab.invalid":
            return resolve(host, *args, **kwargs)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setenv("NO_PROXY", "*")
    server.answer(SUCCESS)
    connect(monkeypatch, f"http://api.modelslab.invalid:{server.port}")
    wire.after_first = lambda: known.add("api.modelslab.invalid")
    check_way(wire, ask, "no connection to ModelsLab")


def _self_signed(authority: trustme.CA) -> trustme.LeafCert:
    return trustme.LeafCert(authority.private_key_pem.bytes(), authority.cert_pem.bytes(), [])


CERTIFICATES = {
    "self-signed": lambda authority: _self_signed(trustme.CA()),
    "a stranger's": lambda authority: trustme.CA().issue_cert("127.0.0.1"),
    "expired": lambda authority: authority.issue_cert("127.0.0.1", not_after=datetime(2001, 1, 1, tzinfo=timezone.utc)),
    "another host's": lambda authority: authority.issue_cert("modelslab.com"),
}


@anyhow
@pytest.mark.parametrize("wrong", CERTIFICATES.values(), ids=CERTIFICATES)
@pytest.mark.usefixtures("trusted")
def test_a_certificate_that_is_not_trusted(raw_server: RawServer, wire: Wire, authority, ask, wrong, monkeypatch):
    raw_server.ssl_context = ssl_context_of(wrong(authority))
    raw_server.answer(SUCCESS)
    connect(monkeypatch, raw_server.url)
    wire.after_first = lambda: setattr(raw_server, "ssl_context", trusted_context(authority))
    check_way(wire, ask, "no trusted TLS connection")
    assert len(raw_server.requests) == 1  # a server without a certificate does not see the key


@anyhow
@pytest.mark.usefixtures("trusted")
def test_a_server_without_tls(raw_server: RawServer, wire: Wire, authority, ask, monkeypatch):
    raw_server.answer(reply(b"<html>The plain HTTP request was sent to", 400), SUCCESS)
    connect(monkeypatch, raw_server.url.replace("http://", "https://"))
    wire.after_first = lambda: setattr(raw_server, "ssl_context", trusted_context(authority))
    check_way(wire, ask, "no trusted TLS connection")


@polls
def test_a_proxy_that_drips(server: RawServer, poll, monkeypatch):
    """The answer of a proxy is bounded like that of a server; nothing of the request itself has been sent."""
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    connect(monkeypatch, "https://gateway.invalid", **SHORT_TIMEOUT)
    server.answer(TRANSPORT_FAULTS["a head that drips"].answer)
    while not server.requests:
        assert poll().verdict is Verdict.TRANSIENT
    assert all(request.startswith(b"CONNECT gateway.invalid:443 ") for request in server.requests)


REFUSALS = {
    **{f"HTTP {status}": reply(b"denied", status) for status in (400, 403, 407, 502, 503)},
    "nothing": b"",
    "reset": RESET,
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a tunnel that ends at once": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("submit", [submit, asubmit])
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_proxy_that_makes_no_connection_has_sent_nothing(server: RawServer, submit, refusal, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    connect(monkeypatch, "https://gateway.invalid")
    server.answer(refusal)
    assert submit() == "ModelsLabTransientError"
    assert len(server.requests) == 6  # with the retries that the connection grants
    assert all(request.startswith(b"CONNECT gateway.invalid:443 ") for request in server.requests)
    assert b"the-api-key" not in b"".join(server.requests)


@pytest.mark.parametrize("submit", [submit, asubmit])
def test_a_proxy_that_passes_requests_on_may_have_sent_one(server: RawServer, submit, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, server.url)
    connect(monkeypatch, "http://gateway.invalid")
    server.answer(RESET)
    assert submit() == "ModelsLabAmbiguousSubmission"
    assert len(server.requests) == 1


@anyhow
@pytest.mark.usefixtures("trusted")
def test_a_fault_inside_tls(raw_server: RawServer, wire: Wire, authority, ask, monkeypatch):
    raw_server.ssl_context = trusted_context(authority)
    raw_server.answer(TRANSPORT_FAULTS["dropped inside the body"].answer, b"", RESET, SUCCESS)
    connect(monkeypatch, raw_server.url)
    assert ask() == "success"
    assert [isinstance(each, NoReply) and each.sent for each in wire.received] == [True, True, True, False]


# --- processes ---


def test_a_fork_keeps_no_connection_of_its_parent(server: RawServer):
    """Or else parent and child would read each other's replies."""
    client = ModelsLabHook().client
    assert client.poll(JOB).verdict is Verdict.PROCESSING
    assert server.connections == 1
    child = os.fork()
    if not child:
        try:
            os._exit(0 if client.poll(JOB).verdict is Verdict.PROCESSING else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.connections == 2
    assert client.poll(JOB).verdict is Verdict.PROCESSING
    assert server.connections == 2


# --- long replies ---

ECHO = b"x" * (2 * MIB)


@polls
def test_a_long_reply_about_a_running_job_is_not_read_to_its_end(server: RawServer, poll):
    head = b'{"status": "processing", "meta": {"init_image": "'
    server.answer(
        Stream(lambda: chain([b"HTTP/1.1 200 X\r\nContent-Length: 30000000\r\n\r\n" + head], repeat(ECHO, 14)))
    )
    assert poll().verdict is Verdict.PROCESSING
    wait_until(lambda: bool(server.sent))
    assert server.sent[0] < 16 * MIB


@pytest.mark.parametrize("submit", [submit, asubmit])
def test_a_long_reply_to_a_submission_is_read_whole(server: RawServer, submit):
    server.answer(reply({"status": "processing", "meta": {"init_image": ECHO.decode()}, "id": 1}))
    assert submit() == "processing"


@polls
def test_a_long_reply_about_a_finished_job_is_read_whole(server: RawServer, poll):
    server.answer(reply({"status": "success", "output": [ECHO.decode()]}))
    assert len(poll().job.outputs[0]) == len(ECHO)


# --- submissions ---


@pytest.mark.parametrize("submit", [submit, asubmit])
@faults
def test_a_submission_is_sent_once_whatever_happens_to_its_reply(server: RawServer, submit, fault, monkeypatch):
    if fault.slow:
        connect(monkeypatch, server.url, **SHORT_TIMEOUT)
    server.answer(fault.answer)
    assert submit() == "ModelsLabAmbiguousSubmission"
    wait_until(lambda: bool(server.requests))
    assert len(server.requests) == 1


@pytest.mark.parametrize("submit", [submit, asubmit])
def test_a_submission_that_never_left_is_repeated(wire: Wire, submit, monkeypatch):
    server = RawServer()
    server.answer(reply({"status": "processing", "id": 1}))
    connect(monkeypatch, server.url)
    with ExitStack() as stack:
        wire.after_first = lambda: stack.enter_context(server)
        assert submit() == "processing"
    assert [isinstance(each, NoReply) for each in wire.received] == [True, False]
    assert len(server.requests) == 1
