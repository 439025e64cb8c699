"""What leaves this machine, byte for byte, for each of the five documentation pages and both ways of travelling."""

from __future__ import annotations

import asyncio
import json

import pytest

from airflow_provider_modelslab.hooks import ModelsLabHook
from tests.support.raw_server import RawServer, reply

# endpoint, id, request line and JSON body as the page has them
PAGES = [
    ("v1/enterprise", "13443927", "POST /api/v1/enterprise/fetch HTTP/1.1", {"key": "the-api-key", "request_id": "13443927"}),
    ("v1/enterprise/video", "147", "POST /api/v1/enterprise/video/fetch/147 HTTP/1.1", {"key": "the-api-key"}),
    ("v3", "12202888", "POST /api/v3/fetch/12202888 HTTP/1.1", {"key": "the-api-key"}),
    ("v4/dreambooth", "13443927", "POST /api/v4/dreambooth/fetch HTTP/1.1", {"key": "the-api-key", "request_id": "13443927"}),
    ("v1/enterprise/flux_headshot", "12202888", "POST /api/v1/enterprise/flux_headshot/fetch/12202888 HTTP/1.1", {"key": "the-api-key"}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def connection(monkeypatch: pytest.MonkeyPatch, raw_server: RawServer) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply({"status": "success", "output": ["https://cdn/a.png"]}))


def fetch(endpoint: str, job_id: str) -> None:
    assert ModelsLabHook().fetch(job_id, endpoint).status == "success"


def afetch(endpoint: str, job_id: str) -> None:
    assert asyncio.run(ModelsLabHook().afetch(job_id, endpoint)).status == "success"


def check(request: bytes, request_line: str, body: dict[str, str]) -> None:
    head, _, content = request.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in headers)}
    assert first == request_line
    assert json.loads(content) == body
    assert fields["content-type"] == "application/json"
    assert "the-api-key" not in head.decode()
    assert "authorization" not in fields


@pytest.mark.parametrize("poll", [fetch, afetch])
@pytest.mark.parametrize(("endpoint", "job_id", "request_line", "body"), PAGES)
def test_requests_equal_the_pages(raw_server, poll, endpoint, job_id, request_line, body):
    poll(endpoint, job_id)
    (request,) = raw_server.requests
    check(request, request_line, body)


def test_a_submission(raw_server):
    body = {"status": "processing", "id": 1, "eta": 2}
    raw_server.answer(reply(body))
    for submit in (ModelsLabHook().submit, lambda *args: asyncio.run(ModelsLabHook().asubmit(*args))):
        assert submit("v6/video/text2video", {"prompt": "a cat"}).id == "1"
        check(
            raw_server.requests[-1],
            "POST /api/v6/video/text2video HTTP/1.1",
            {"prompt": "a cat", "key": "the-api-key"},
        )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("poll", [fetch, afetch])
def test_redirects_are_not_followed(raw_server, poll, status):
    from airflow_provider_modelslab.exceptions import ModelsLabTransientError

    with RawServer() as stranger:
        raw_server.answer(reply({}, status, {"Location": f"{stranger.url}/api/v6/video/fetch/1"}))
        with pytest.raises(ModelsLabTransientError, match=f"leads to {stranger.url}, .*the connection's field 'host'"):
            poll("v6/video", "1")
        assert not stranger.requests


def test_a_netrc_is_left_alone(raw_server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for poll in (fetch, afetch):
        poll("v6/video", "147")
        check(raw_server.requests[-1], "POST /api/v6/video/fetch/147 HTTP/1.1", {"key": "the-api-key"})
