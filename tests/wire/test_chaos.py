"""
Five hundred jobs, of whose replies a fifth is replaced by a fault: all faults of the tables, seeded.

The id of a job alone decides what its n-th poll is answered, so that it does not depend on who polls when.
"""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import pytest

from airflow_provider_modelslab._http import async_transport
from airflow_provider_modelslab._http.connection import DownloadOptions
from airflow_provider_modelslab._outputs.saving import save_outputs
from airflow_provider_modelslab._protocol.http_request import HttpRequest
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply
from airflow_provider_modelslab._protocol.replies import Verdict
from airflow_provider_modelslab.exceptions import ModelsLabSaveError
from airflow_provider_modelslab.jobs import Job, Output
from tests.support.pacing import FAST, set_policy
from tests.support.raw_server import RESET, Answer, RawServer, dripping, path_of, reply
from tests.support.reply_table import QUOTED, REPLIES
from tests.support.storing import PATIENT, PNG, picture
from tests.support.transport_faults import TRANSPORT_FAULTS, job_id_of
from tests.support.triggers import aevent_of, make_trigger

SEED = 232  # one with which every fault comes up, also without the one that old releases of aiohttp cannot bear
JOBS = 500
FAULTY = 0.2
FAILING = 0.1

PASSING = {
    verdict.name
    for verdict in (
        Verdict.TRANSIENT,
        Verdict.PROCESSING,
        Verdict.RATE_LIMITED,
        Verdict.NO_OUTPUT,
        Verdict.EMPTY_ERROR,
        Verdict.NOT_FOUND,
    )
}

FAULTS: dict[str, Answer] = {
    **{name: fault.answer for name, fault in TRANSPORT_FAULTS.items()},
    **{name: reply(row[1], row[0]) for name, row in REPLIES.items() if row[2] in PASSING},
    "a long echo of a running job": reply({"status": "processing", "meta": {"init_image": "x" * (3 * 2**19)}}),
    "more outputs than a job has": reply({"status": "success", "output": ["https://cdn/a.gif"] * 1001}),
    "more values than a reply has": reply(
        b'{"status": "success", "output": [' + b"[]," * 201_000 + b'"https://cdn/a.gif"]}'
    ),
    "backslashes": reply({"status": "processing", "message": "\\" * 60_000}),
}

REFUSALS: dict[str, Answer] = {
    "key": reply({"status": "error", "message": "Invalid API key"}, 401),
    "credits": reply({"status": "error", "message": "Insufficient credits."}, 402),
    "plan": reply(b"<html>Forbidden</html>", 403),
}

# Rarer, since each of these takes a timeout, some of them a busy one.
WEIGHTS = [0.4 if name in TRANSPORT_FAULTS and TRANSPORT_FAULTS[name].slow else 1.0 for name in FAULTS]


class Jobs:
    """The jobs as they truly are, and what the server says of them."""

    def __init__(self) -> None:
        self.ids = [str(number) for number in range(1, JOBS + 1)]
        self.faults: Counter[str] = Counter()
        self.polls: Counter[str] = Counter()
        self.scripts = {job_id: list(self._script(job_id)) for job_id in self.ids}
        # Of each wait, ModelsLab refuses the account once, and of no other job when it is asked again.
        for job_id, refusal in zip(("1", "251", "301", "351", "401", "451"), cycle(REFUSALS.values()), strict=False):
            self.scripts[job_id].insert(0, refusal)

    def fails(self, job_id: str) -> bool:
        return Random(f"{SEED}/end/{job_id}").random() < FAILING

    def truth(self, job_id: str) -> tuple[str, str, list[str]]:
        """Return the id, the state and the outputs with which a job must be reported."""
        return (job_id, "failed", []) if self.fails(job_id) else (job_id, "success", [f"https://cdn/{job_id}.gif"])

    def answer_to(self, request: bytes) -> Answer:
        job_id = job_id_of(request)
        turn = self.polls[job_id]
        self.polls[job_id] += 1
        return self.scripts[job_id][min(turn, len(self.scripts[job_id]) - 1)]

    def tells_the_end(self, job_id: str, received: HttpReply | NoReply) -> bool:
        return isinstance(received, HttpReply) and received.body == json.dumps(self._last(job_id)).encode()

    def _script(self, job_id: str) -> Iterator[Answer]:
        random = Random(f"{SEED}/polls/{job_id}")
        true_replies = [reply({"status": "processing", "message": "try again later.", "output": ""})] * random.randint(
            0, 5
        )
        for true_reply in [*true_replies, reply(self._last(job_id))]:
            while random.random() < FAULTY:
                (name,) = random.choices(list(FAULTS), WEIGHTS)
                self.faults[name] += 1
                yield FAULTS[name]
            yield true_reply

    def _last(self, job_id: str) -> dict[str, object]:
        if self.fails(job_id):
            # A stranger's words in the message decide nothing, whatever they are.
            words = Random(f"{SEED}/words/{job_id}").choice(QUOTED)
            message = f"\x1b[31mNSFW check failed for prompt:\n::group:: {words}"
            return {"status": "failed", "id": "", "message": message, "output": ""}
        return {"status": "success", "id": int(job_id), "output": [f"https://cdn/{job_id}.gif"]}


@pytest.fixture
def server(raw_server: RawServer, monkeypatch: pytest.MonkeyPatch) -> RawServer:
    extra = {"request_timeout": 1, "requests_per_second": 10_000}
    connection = {"conn_type": "modelslab", "host": raw_server.url, "password": "the-api-key", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    monkeypatch.setattr("airflow_provider_modelslab._http.outcomes.MAX_REPLY_BYTES", 2**20)
    monkeypatch.setattr("airflow_provider_modelslab._protocol.replies.LONGEST_PAUSE", 0.01)
    set_policy(monkeypatch, **FAST, inconclusive_grace=3600.0)
    return raw_server


class RecordingSession(async_transport.Session):
    """
    Notes which jobs are polled without a need: while another poll is under way, or once a reply has told of the end.

    A reply that comes too late, as on a busy machine, has told nothing: there is a need to poll again.
    """

    def __init__(self, jobs: Jobs, *options: Any) -> None:
        super().__init__(*options)
        self.jobs = jobs
        self.settled: set[str] = set()
        self.polled_without_need: list[str] = []

    async def send(self, request: HttpRequest, **options: Any) -> HttpReply | NoReply:
        job_id = request.url.rpartition("/")[2]
        if job_id in self.settled:
            self.polled_without_need.append(job_id)
        self.settled.add(job_id)
        received = await super().send(request, **options)
        if not self.jobs.tells_the_end(job_id, received):
            self.settled.discard(job_id)
        return received


def test_every_job_ends_in_its_true_state(server: RawServer, monkeypatch: pytest.MonkeyPatch):
    jobs = Jobs()
    assert set(jobs.faults) == set(FAULTS)
    assert 0.18 < jobs.faults.total() / sum(map(len, jobs.scripts.values())) < 0.22
    server.answer_to = jobs.answer_to
    random = Random(SEED)
    # Here and there a connection, and once forty in a row, are reset before a request on them is read.
    server.turns_away = lambda: random.random() < 0.05 or 50 < server.connections <= 90
    groups = [jobs.ids[:250], *(jobs.ids[start : start + 50] for start in range(250, JOBS, 50))]
    complaints: list[dict] = []
    sessions: list[RecordingSession] = []
    monkeypatch.setattr(
        async_transport, "Session", lambda *options: sessions.append(RecordingSession(jobs, *options)) or sessions[-1]
    )

    async def scenario() -> list[dict]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, complaint: complaints.append(complaint))
        triggers = [make_trigger([{"id": job_id, "endpoint": "v6/video"} for job_id in ids]) for ids in groups]
        events = await asyncio.gather(*map(aevent_of, triggers))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()
        return events

    gc.collect()  # what other tests have left is none of this one's
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        events = asyncio.run(scenario())
        gc.collect()

    # One event of each trigger, in which each of its jobs stands once, as it truly ended.
    for ids, event in zip(groups, events, strict=True):
        assert event["status"] == "finished"
        reported = [(job["id"], job["status"], job.get("outputs", [])) for job in event["jobs"]]
        assert reported == [jobs.truth(job_id) for job_id in ids]
        reasons = [job["message"] for job in event["jobs"] if job["status"] == "failed"]
        assert all(reason.startswith("[31mNSFW check failed for prompt: (group) ") for reason in reasons)
    # One session, and nothing left of it.
    (session,) = sessions
    assert session.client.closed
    # As many requests as there was something to tell, and none without a need.
    assert len(server.requests) >= sum(map(len, jobs.scripts.values()))
    assert session.polled_without_need == []
    assert session.settled == set(jobs.ids)
    assert complaints == []
    assert [str(warning.message) for warning in warned if issubclass(warning.category, ResourceWarning)] == []


SLOW = dripping(picture(PNG + bytes(200_000))[:100])
PASSING_DOWNLOADS: dict[str, Answer] = {
    "not there yet": reply(b"", 404),
    "a page": reply(b"<!doctype html><html>Just a moment</html>"),
    "trouble": reply(b"", 503),
    "reset": RESET,
    "nothing": b"",
    "cut": picture()[:-10],
    "compressed": picture(Content_Encoding="br"),
}
INNER = (
    "http://169.254.169.254/a.png",
    "http://[::ffff:10.0.0.1]/a.png",
    "http://2130706433:9/a.png",
    "//0x7f.1:9/a.png",
)


class Outputs:
    """A hundred outputs, of which most pass through faults, and some cannot be had: what the server says of them."""

    def __init__(self, url: str, inner: str) -> None:
        self.inner = (*INNER, f"{inner}/a.png")
        self.faults: Counter[str] = Counter()
        self.scripts = {f"/{number}.png": list(self._script(number)) for number in range(100)}
        self.copies = {f"/{number}.copy.png": picture() for number in range(0, 100, 2)}
        jobs = [Job(str(number), "v6/images", "success", self._addresses(url, number)) for number in range(100)]
        self.jobs = [
            replace(job, proxy_links=[f"{url}/{job.id}.copy.png"]) if int(job.id) % 2 == 0 else job for job in jobs
        ]

    def kind(self, number: int) -> str:
        (kind,) = Random(f"{SEED}/output/{number}").choices(
            ["good", "inner", "redirected", "trickling"], [0.82, 0.06, 0.06, 0.06]
        )
        return kind

    def can_be_had(self, number: int) -> bool:
        return self.kind(number) == "good" or number % 2 == 0  # every other one has a copy

    def answer_to(self, request: bytes) -> Answer:
        path = path_of(request)
        if path in self.copies:
            return self.copies[path]
        script = self.scripts[path]
        return script.pop(0) if len(script) > 1 else script[0]

    def _addresses(self, url: str, number: int) -> list[Output]:
        inner = self.inner[number % len(self.inner)]
        return (
            [f"http:{inner}" if inner.startswith("//") else inner]
            if self.kind(number) == "inner"
            else [f"{url}/{number}.png"]
        )

    def _script(self, number: int) -> Iterator[Answer]:
        random, kind = Random(f"{SEED}/downloads/{number}"), self.kind(number)
        self.faults[kind] += 1
        if kind == "redirected":
            yield reply(b"", 302, {"Location": self.inner[number % len(self.inner)]})
            return
        if kind == "trickling":
            yield SLOW
            return
        while random.random() < FAULTY * 2:
            name = random.choice(list(PASSING_DOWNLOADS))
            self.faults[name] += 1
            yield PASSING_DOWNLOADS[name]
        yield picture()


def test_every_output_is_stored_or_named(raw_server: RawServer, tmp_path: Path):
    with RawServer() as inner:
        outputs = Outputs(raw_server.url, inner.url)
        assert set(outputs.faults) == {"good", "inner", "redirected", "trickling", *PASSING_DOWNLOADS}
        raw_server.answer_to = outputs.answer_to
        allowed = DownloadOptions(allowed_hosts=frozenset({("127.0.0.1", raw_server.port)}))
        with pytest.raises(ModelsLabSaveError) as caught:
            save_outputs(outputs.jobs, str(tmp_path), retry_policy=PATIENT, timeout=600, download_options=allowed)
        assert inner.connections == 0 or not inner.requests
    stored = {path.name for path in tmp_path.glob("*.png")}
    missing = [number for number in range(100) if not outputs.can_be_had(number)]
    assert stored == {f"v6.images.{number}-0.png" for number in range(100) if number not in missing}
    assert all(path.read_bytes() == PNG for path in tmp_path.glob("*.png"))
    assert f"{len(missing)} of 100 outputs could not be stored" in str(caught.value)
    assert all(f"v6/images:{number}" in str(caught.value) for number in missing[:10])
