"""A sandbox is for this machine, and says so where it is told otherwise."""

from __future__ import annotations

import logging
import socket
import sys

import pytest

from airflow_provider_modelslab.sandbox import Sandbox


def listens_on(address: str, sandbox: Sandbox) -> bool:
    try:
        socket.create_connection((address, int(sandbox.url.rpartition(":")[2])), timeout=10).close()
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
        (logging.WARNING, f"This is a test server: anyone who can reach {host} can use it and steer it.")
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_addresses_are_not(host: str, caplog: pytest.LogCaptureFixture) -> None:
    with Sandbox(host=host):
        assert not caplog.records
