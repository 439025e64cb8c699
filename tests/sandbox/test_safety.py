"""A sandbox serves only this machine, unless it is started for others; then it says so."""

from __future__ import annotations

import logging
import socket
import sys

import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox


def listens_on(address: str, sandbox: Sandbox) -> bool:
    try:
        socket.create_connection((address, int(sandbox.url.rpartition(":")[2])), timeout=60).close()
    except ConnectionRefusedError:
        return False
    return True


# Another address of this machine stands for those that others can reach.
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the whole of 127.0.0.0/8")
def test_it_listens_on_the_loopback_address_only(caplog: pytest.LogCaptureFixture) -> None:
    with Sandbox() as sandbox:
        assert sandbox.url.startswith("http://127.0.0.1:")
        assert listens_on("127.0.0.1", sandbox)
        assert not listens_on("127.0.0.2", sandbox)
    assert not caplog.records
    with Sandbox(host="0.0.0.0") as sandbox:
        assert listens_on("127.0.0.2", sandbox)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_more_than_that_is_warned_of(host: str, caplog: pytest.LogCaptureFixture) -> None:
    sandbox = Sandbox(host=host)
    try:
        sandbox.start()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    sandbox.stop()
    assert [(each.levelno, each.getMessage()) for each in caplog.records] == [
        (logging.WARNING, f"This is a test server: anyone who can reach {host} can use and control it.")
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_addresses_are_not(host: str, caplog: pytest.LogCaptureFixture) -> None:
    with Sandbox(host=host):
        assert not caplog.records


FOREIGN = [
    {"Host": "rebound.example:8787"},
    {"Host": "127.0.0.1.example"},
    {"Host": "localhost.example"},
    {"Host": ""},
    {"Host": "[::1"},
    {"Origin": "https://page.example"},
    {"origin": "null"},
    {"Host": "localhost", "Origin": "http://localhost"},
]


def statuses(sandbox: Sandbox, headers: dict[str, str]) -> list[int]:
    body = {"key": sandbox.key, "prompt": "a lighthouse at dusk"}
    paths = ("api/v6/images/text2img", "sandbox/reset", "files/x")
    urls = [f"{sandbox.url}/{path}" for path in paths]
    return [requests.post(url, json=body, headers=headers, timeout=60).status_code for url in urls]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_what_a_web_page_may_have_sent_is_refused(sandbox: Sandbox, headers: dict[str, str]) -> None:
    assert statuses(sandbox, headers) == [403, 403, 403]
    assert (sandbox.jobs, sandbox.requests) == ({}, [])


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8787", "127.9.9.9", "[::1]:8787"])
def test_every_name_of_this_machine_is_served(sandbox: Sandbox, host: str) -> None:
    assert statuses(sandbox, {"Host": host})[0] == 200


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_sandbox_for_others_serves_them(headers: dict[str, str]) -> None:
    with Sandbox(host="0.0.0.0") as sandbox:
        assert statuses(sandbox, headers)[0] == 200
