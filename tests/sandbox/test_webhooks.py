from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Thread
from typing import Any

import aiohttp
import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.webhooks import deliver, is_loopback

PROMPT = {"prompt": "a lighthouse at dusk"}


class Receiver:
    """A server that hears webhooks."""

    def __init__(self) -> None:
        self.heard: Queue[dict[str, Any]] = Queue()
        self.answer = 200
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.heard.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(receiver.answer)
                if receiver.answer == 307:
                    self.send_header("Location", receiver.url)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Keep the output of the tests clean."""

        return Handler


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_a_finished_job_sends_a_webhook(sandbox: Sandbox, receiver: Receiver) -> None:
    parameters = {**PROMPT, "webhook": receiver.url, "track_id": "order-7", "samples": 2}
    job = sandbox.submit("v6/images/text2img", parameters)
    sandbox.finish(job["id"])
    body = receiver.heard.get(timeout=10)
    assert body.pop("generationTime") >= 0
    assert body == {
        "status": "success",
        "id": job["id"],
        "output": job["future_links"],
        "track_id": "order-7",
        "meta": parameters,
    }
    assert all(requests.get(url, timeout=10).ok for url in body["output"])


def test_a_failed_job_sends_a_webhook(sandbox: Sandbox, receiver: Receiver) -> None:
    job_id = sandbox.submit("v6/images/text2img", {**PROMPT, "webhook": receiver.url})["id"]
    sandbox.fail(job_id, "Out of memory")
    expected = {"status": "failed", "id": job_id, "message": "Out of memory", "track_id": None}
    assert receiver.heard.get(timeout=10) == expected


@pytest.mark.parametrize("options", [{"duration": 0.05}, {"instant": True}], ids=str)
def test_a_job_that_is_never_polled_sends_one_webhook(receiver: Receiver, options: dict[str, Any]) -> None:
    with Sandbox(**options) as sandbox:
        job_id = sandbox.submit("v6/images/text2img", {**PROMPT, "webhook": receiver.url})["id"]
        assert receiver.heard.get(timeout=10)["id"] == job_id
        sandbox.finish_all()
        sandbox.submit("v6/images/text2img", {**PROMPT, "webhook": receiver.url})
        assert receiver.heard.get(timeout=10)["id"] == job_id + 1


def deliver_alone(url: str) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            await deliver(session, url, {"id": 5, "status": "success"})

    asyncio.run(run())


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.answer = 307
    deliver_alone(receiver.url)
    receiver.heard.get(timeout=10)
    assert receiver.heard.empty()


@pytest.mark.parametrize("answer", [204, 500])
def test_what_a_webhook_refuses_is_logged(receiver: Receiver, caplog: pytest.LogCaptureFixture, answer: int) -> None:
    receiver.answer = answer
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


def test_a_stopped_sandbox_calls_nobody(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    with Sandbox(duration=float("inf")) as sandbox:
        sandbox.submit("v6/images/text2img", {**PROMPT, "webhook": receiver.url})
    sandbox.finish_all()
    assert "not sent: the sandbox is not running" in caplog.text
    assert receiver.heard.empty()


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
