from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.webhooks import deliver, is_loopback
from tests.sandbox.conftest import PROMPT
from tests.support.raw_server import RawServer, reply
from tests.support.waiting import wait_until


@pytest.fixture
def receiver(raw_server: RawServer) -> RawServer:
    """A server that hears webhooks."""
    raw_server.answer(reply({}))
    return raw_server


def heard(receiver: RawServer, number: int = 1) -> dict[str, Any]:
    """Return the body of a webhook once it has come."""
    wait_until(lambda: len(receiver.requests) >= number)
    body: dict[str, Any] = json.loads(receiver.requests[number - 1].partition(b"\r\n\r\n")[2])
    return body


def test_a_finished_job_sends_a_webhook(sandbox: Sandbox, receiver: RawServer) -> None:
    parameters = {**PROMPT, "webhook": receiver.url, "track_id": "order-7", "samples": 2}
    job = sandbox.submit("v6/images/text2img", parameters)
    sandbox.finish(job["id"])
    body = heard(receiver)
    assert body.pop("generationTime") >= 0
    assert body == {
        "status": "success",
        "id": job["id"],
        "output": job["future_links"],
        "track_id": "order-7",
        "meta": parameters,
    }
    assert all(requests.get(url, timeout=60).ok for url in body["output"])


def test_a_failed_job_sends_a_webhook(sandbox: Sandbox, receiver: RawServer) -> None:
    job_id = sandbox.submit("v6/images/text2img", {**PROMPT, "webhook": receiver.url})["id"]
    sandbox.fail(job_id, "Out of memory")
    expected = {"status": "failed", "id": job_id, "message": "Out of memory", "track_id": None}
    assert heard(receiver) == expected


@pytest.mark.parametrize("options", [{"duration": 0.05}, {"instant": True}], ids=str)
def test_a_job_that_is_never_polled_sends_one_webhook(receiver: RawServer, options: dict[str, Any]) -> None:
    with Sandbox(**options) as sandbox:
        job_id = sandbox.submit("v6/images/text2img", {**PROMPT, "webhook": receiver.url})["id"]
        assert heard(receiver)["id"] == job_id
        sandbox.finish_all()
        sandbox.submit("v6/images/text2img", {**PROMPT, "webhook": receiver.url})
        assert heard(receiver, 2)["id"] == job_id + 1


def deliver_alone(url: str) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            await deliver(session, url, {"id": 5, "status": "success"})

    asyncio.run(run())


def test_redirects_are_not_followed(receiver: RawServer) -> None:
    receiver.answer(reply({}, 307, {"Location": receiver.url}))
    deliver_alone(receiver.url)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("answer", [204, 500])
def test_what_a_webhook_refuses_is_logged(receiver: RawServer, caplog: pytest.LogCaptureFixture, answer: int) -> None:
    receiver.answer(reply(b"", answer))
    deliver_alone(receiver.url)
    assert [record.getMessage() for record in caplog.records] == (
        ["Webhook of job 5 to 127.0.0.1 failed: HTTP 500"] if answer == 500 else []
    )


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/?token=secret", "http://localhost:99999/", "http:///nowhere"])
def test_a_webhook_that_cannot_be_reached_is_logged(caplog: pytest.LogCaptureFixture, url: str) -> None:
    deliver_alone(url)
    assert "Webhook of job 5" in caplog.text
    assert "secret" not in caplog.text


def test_strangers_are_not_called(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    url = "https://hooks.example.com/in?token=secret"
    job_id = sandbox.submit("v6/images/text2img", {**PROMPT, "webhook": url})["id"]
    with caplog.at_level(logging.WARNING, "airflow_provider_modelslab.sandbox"):
        sandbox.finish(job_id)
    assert "hooks.example.com not sent" in caplog.text
    assert "secret" not in caplog.text


def test_a_stopped_sandbox_calls_nobody(receiver: RawServer, caplog: pytest.LogCaptureFixture) -> None:
    with Sandbox(duration=float("inf")) as sandbox:
        sandbox.submit("v6/images/text2img", {**PROMPT, "webhook": receiver.url})
    sandbox.finish_all()
    assert "not sent: the sandbox is not running" in caplog.text
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("127.0.0.1.example.com", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("modelslab.com", False),
        ("", False),
        (None, False),
    ],
)
def test_loopback(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected
