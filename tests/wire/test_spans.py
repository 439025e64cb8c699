"""What the spans are told that Airflow has opened around tasks and triggers; the SDK of OpenTelemetry keeps them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from airflow_provider_modelslab.exceptions import ModelsLabRateLimited
from airflow_provider_modelslab.hooks import ModelsLabHook
from tests.support.raw_server import RawServer, reply
from tests.support.triggers import aevent_of, make_trigger

ACCEPTED = {"status": "processing", "id": 147, "eta": 5, "message": "queued"}
DONE = {"status": "success", "output": ["https://example.com/1.png"]}
FAILED = {"status": "failed", "message": "Failed, Try Again", "output": ""}
QUEUE_FULL = {"status": "error", "message": "Rate limit exceeded. Maximum 5 queued requests allowed.", "retry_after": 2}


@pytest.fixture
def server(raw_server: RawServer, monkeypatch) -> RawServer:
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    return raw_server


def events_of(work: Callable[[], Any]) -> list[tuple[str, dict[str, Any]]]:
    """Do some work inside a span; return the events that stand on it."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with provider.get_tracer("airflow").start_as_current_span("worker.generate"):
        work()
    (span,) = kept.get_finished_spans()
    return [(event.name, dict(event.attributes or {})) for event in span.events]


def test_a_submission_and_a_full_queue_stand_on_the_span(server: RawServer):
    def work() -> None:
        server.answer(reply(QUEUE_FULL, 429))
        with pytest.raises(ModelsLabRateLimited):
            ModelsLabHook().submit("v6/video/text2video", {"prompt": "a secret fox"}, queue_timeout=0)
        server.answer(reply(ACCEPTED))
        ModelsLabHook().submit("v6/video/text2video", {"prompt": "a secret fox"})

    assert events_of(work) == [
        ("modelslab.queue_full", {"modelslab.endpoint": "v6/video", "modelslab.retry_after": 2.0}),
        ("modelslab.submitted", {"modelslab.endpoint": "v6/video", "modelslab.job_id": "147"}),
    ]


def test_what_a_wait_on_a_worker_has_found_done_stands_on_the_span(server: RawServer):
    server.answer(reply(DONE))
    events = events_of(lambda: ModelsLabHook().wait("147", "v6/video"))
    assert events == [("modelslab.done", {"modelslab.succeeded": 1, "modelslab.failed": 0})]


def test_what_a_trigger_has_found_done_stands_on_its_own_span(server: RawServer):
    server.answer(reply(DONE), reply(FAILED))
    jobs = [{"id": str(number), "endpoint": "v6/video"} for number in range(2)]
    events = events_of(lambda: asyncio.run(aevent_of(make_trigger(jobs))))
    assert {name for name, _ in events} == {"modelslab.done"}
    assert sum(attributes["modelslab.succeeded"] for _, attributes in events) == 1
    assert sum(attributes["modelslab.failed"] for _, attributes in events) == 1


def test_without_opentelemetry_nothing_happens():
    code = """
import sys
sys.modules["opentelemetry"] = sys.modules["opentelemetry.trace"] = None  # as where it is not installed
from airflow_provider_modelslab._telemetry import spans
from airflow_provider_modelslab.jobs import Job
spans.submitted(Job("147", "v6/video"))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_span_nothing_happens(server: RawServer):
    server.answer(reply(DONE))
    assert ModelsLabHook().wait("147", "v6/video").status == "success"
