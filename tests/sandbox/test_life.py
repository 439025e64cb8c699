"""The sandbox as an object: its start and end, its threads, and what it remembers of requests."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.api import STANDARD, Api
from airflow_provider_modelslab.sandbox.faults import FaultPlan, FaultSettings
from airflow_provider_modelslab.sandbox.http import ReceivedRequest
from airflow_provider_modelslab.sandbox.request_log import RequestLog
from airflow_provider_modelslab.sandbox.state import Account, Ledger, Pace
from tests.sandbox.conftest import PROMPT, Post, Poster


def test_the_address_and_the_connection(poster: Poster) -> None:
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = sandbox.url
    with sandbox:
        assert sandbox.url.startswith("http://127.0.0.1:")
        expected = {"conn_type": "modelslab", "host": sandbox.url, "password": sandbox.key}
        assert json.loads(sandbox.connection) == expected
        with pytest.raises(RuntimeError, match="running already"):
            sandbox.start()
    with pytest.raises(requests.ConnectionError):
        poster(sandbox)("v3/fetch/12202888")
    sandbox.stop()


@pytest.mark.parametrize(("host", "prefix"), [("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")])
def test_other_hosts(host: str, prefix: str, poster: Poster) -> None:
    try:
        with Sandbox(host=host) as sandbox:
            assert sandbox.url.startswith(prefix)
            assert poster(sandbox)("v3/fetch/12202888").ok
    except OSError as error:
        pytest.skip(f"this machine has no such address: {error}")


def test_a_port_in_use_is_an_error_of_start(sandbox: Sandbox) -> None:
    second = Sandbox(port=int(sandbox.url.rpartition(":")[2]))
    with pytest.raises(OSError, match="address already in use"):
        second.start()
    second.stop()


def test_an_outage_keeps_port_and_jobs(sandbox: Sandbox, post: Post) -> None:
    url, job_id = sandbox.url, sandbox.submit("v6/video/text2video", PROMPT)["id"]
    sandbox.stop()
    with pytest.raises(requests.ConnectionError):
        post(f"v6/video/fetch/{job_id}")
    sandbox.finish(job_id)
    sandbox.start()
    assert sandbox.url == url
    assert post(f"v6/video/fetch/{job_id}").json()["status"] == "success"


def test_requests_are_recorded(sandbox: Sandbox) -> None:
    headers = {"X-Trace": "7"}
    requests.post(f"{sandbox.url}/api/v3/fetch/1?a=b", data=b'{"key": "x"}', headers=headers, timeout=60)
    requests.get(f"{sandbox.url}/sandbox/state", timeout=60)
    requests.get(f"{sandbox.url}/nothing", timeout=60)
    first, second = sandbox.requests
    assert (first.method, first.path, first.headers["X-Trace"]) == ("POST", "/api/v3/fetch/1?a=b", "7")
    assert (first.body, first.json) == (b'{"key": "x"}', {"key": "x"})
    assert (second.method, second.path, second.json) == ("GET", "/nothing", None)
    assert first.at < second.at


def test_only_the_latest_requests_are_kept() -> None:
    log = RequestLog(max_requests=3, max_bytes=1000)
    for number in range(5):
        log.add(ReceivedRequest("POST", f"/{number}", {}, b"x" * 100))
    assert [request.path for request in log.requests()] == ["/2", "/3", "/4"]
    log.add(ReceivedRequest("POST", "/large", {}, b"x" * 950))
    assert [request.path for request in log.requests()] == ["/large"]


def test_the_log_has_neither_keys_nor_bodies(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        url = f"{sandbox.url}/api/v6/video/text2video?key={sandbox.key}"
        requests.post(url, json={"key": sandbox.key, "prompt": "confidential"}, timeout=60)
        sandbox.stop()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("airflow_provider")]
    assert lines == ["POST /api/v6/video/text2video 200"]
    assert "confidential" not in caplog.text


@pytest.mark.parametrize("path", ["", "v6/video", "v6/video/fetch", "wallet_balance", "v6/processing/request_count"])
def test_jobs_are_submitted_to_generation_endpoints_only(sandbox: Sandbox, path: str) -> None:
    with pytest.raises(ValueError, match="generation endpoint"):
        sandbox.submit(path, PROMPT)


def test_many_threads_at_once(sandbox: Sandbox, poster: Poster) -> None:
    def work(number: int) -> int:
        job_id: int = sandbox.submit("v6/video/text2video", PROMPT)["id"]
        poster(sandbox)(f"v6/video/fetch/{job_id}")
        sandbox.finish(job_id) if number % 2 else sandbox.fail(job_id)
        return job_id

    with ThreadPoolExecutor(16) as pool:
        job_ids = list(pool.map(work, range(200)))
    assert sorted(job_ids) == sorted(sandbox.jobs)
    state = sandbox.state()
    assert state["jobs"] == {"processing": 0, "success": 100, "failed": 100}
    assert state["requests"]["fetch"] == 200


def test_a_large_body_is_taken(sandbox: Sandbox, post: Post) -> None:
    assert post("v6/images/img2img", init_image="x" * 8_000_000).json()["status"] == "processing"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PARAMETERS = st.sampled_from(
    ["prompt", "samples", "num_outputs", "webhook", "track_id", "base64", "request_id", "id", "key"]
)
PATHS = st.sampled_from(
    [
        "/api/v6/images/text2img",
        "/api/v1/enterprise/fetch",
        "/api/v6/images/fetch",
        "/api/v3/fetch/1",
        "/api/v4/dreambooth",
    ]
)


@settings(deadline=None, max_examples=100)
@given(PATHS | st.text().map("/".__add__), st.dictionaries(PARAMETERS, JSON) | JSON, st.booleans())
def test_whatever_comes_in_an_answer_goes_out(path: str, body: object, with_key: bool) -> None:
    accounts = {STANDARD: Account(key="the key", balance=1.0)}
    api = Api(Ledger(accounts, Pace(), clock=lambda: 0.0), FaultPlan(seed=0), FaultSettings(), "by_family")
    if with_key and isinstance(body, dict):
        body["key"] = "the key"
    reply = api.respond(ReceivedRequest("POST", path, {}, json.dumps(body).encode()), "http://sandbox")
    assert reply.status in (200, 400, 401, 404, 405)
    assert isinstance(json.loads(reply.body, parse_constant=pytest.fail), dict)
