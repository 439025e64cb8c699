"""
The other end for the benchmarks: a TLS server in a process of its own, which answers at once and counts.

It answers what keeps each client waiting: ModelsLab's "processing", a dbt Cloud run that is running, a 404 for the
http provider's sensor. Its process is not the measured one, so that what it does costs nobody else CPU time.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import multiprocessing
import re
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawValue
from pathlib import Path

import trustme

PROCESSES = multiprocessing.get_context("spawn")
"""Every process of a benchmark starts afresh: nothing that another has imported or opened is in it."""

KEY = "Kq7ZpX2mVb9TrLw4HsNc8JyFd3GaUe6PiOo1Rt5Yv0BxMnQzWkSjElDhCgAf"
"""As long as ModelsLab's are, and of letters and digits as they are."""

_CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")

_PROCESSING = {
    "status": "processing",
    "tip": "Your image is processing in background, you can get this image using fetch API",
    "eta": 20.5,
    "message": "Try to fetch request after seconds estimated",
    "id": 12202888,
    "output": [],
    "proxy_links": [],
}
_SUCCESS = {"status": "success", "output": ["https://cdn.example/generations/12202888-0.png"]}  # of whichever job
_RUNNING = {"status": {"code": 200, "is_success": True}, "data": {"id": 1, "account_id": 1, "status": 3}}


@dataclass
class StandIn:
    """
    The server, as its clients and the benchmark know it.

    :param port: where it listens on 127.0.0.1.
    :param authority: the file with the certificate of the authority that signed its own.
    :param count: how many requests have come; may be read from any process.
    """

    port: int
    authority: str
    count: ctypes.c_ulonglong
    _control: Connection

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    def finish(self) -> None:
        """Let all ModelsLab jobs be done from now on."""
        self._control.send("finish")

    def process(self) -> None:
        """Let all ModelsLab jobs be in progress again."""
        self._control.send("process")

    def environment(self, home: str, requests_per_second: float = 1e9) -> dict[str, str]:
        """
        Return the environment of a process whose connections lead here, and which trusts this server only.

        :param home: the ``AIRFLOW_HOME``.
        :param requests_per_second: the ceiling in the connection ``modelslab_default``.
        """
        secret = {"password": KEY}
        modelslab = {"host": self.url, "extra": {"requests_per_second": requests_per_second}}
        return {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # What clients say of each poll would be paid by those that say it: no lines for all, which favours them.
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_CONN_MODELSLAB_DEFAULT": json.dumps({"conn_type": "modelslab", **secret, **modelslab}),
            "AIRFLOW_CONN_DBT_CLOUD_DEFAULT": json.dumps(
                {"conn_type": "dbt_cloud", "host": self.address, "login": "1", **secret}
            ),
            "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps({"conn_type": "http", "host": self.url}),
            "SSL_CERT_FILE": self.authority,
            "REQUESTS_CA_BUNDLE": self.authority,
            "NO_PROXY": "127.0.0.1",
        }


@contextmanager
def standing_in() -> Iterator[StandIn]:
    """Run the server while the block runs."""
    with tempfile.TemporaryDirectory(prefix="modelslab-benchmark-") as folder:
        authority, certificate = Path(folder, "authority.pem"), Path(folder, "server.pem")
        signed_by = trustme.CA()
        signed_by.cert_pem.write_to_path(authority)
        signed_by.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        count = RawValue(ctypes.c_ulonglong, 0)
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=_serve, args=(str(certificate), count, theirs), daemon=True)
        process.start()
        try:
            yield StandIn(ours.recv(), str(authority), count, ours)
        finally:
            process.terminate()
            process.join()


def _serve(certificate: str, count: ctypes.c_ulonglong, control: Connection) -> None:
    asyncio.run(_Server(count, control).run(certificate))


class _Server:
    def __init__(self, count: ctypes.c_ulonglong, control: Connection) -> None:
        self.modelslab_reply = _http(200, _PROCESSING)
        self._count = count
        self._control = control

    async def run(self, certificate: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Exchange(self), "127.0.0.1", 0, ssl=context, backlog=4096)
        self._control.send(server.sockets[0].getsockname()[1])
        loop.add_reader(self._control.fileno(), self._run_command)
        await server.serve_forever()

    def reply_to(self, path: str) -> bytes:
        self._count.value += 1
        if path.startswith("/api/v2/accounts/"):
            return _RUNNING_REPLY
        return _NOT_YET_REPLY if path.startswith("/sensor/") else self.modelslab_reply

    def _run_command(self) -> None:
        try:
            command = self._control.recv()
        except EOFError:
            sys.exit("the benchmark has gone")
        if command == "finish":
            self.modelslab_reply = _http(200, _SUCCESS)
        else:
            self.modelslab_reply = _http(200, _PROCESSING)


class _Exchange(asyncio.Protocol):
    def __init__(self, server: _Server) -> None:
        self._server = server
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = _CONTENT_LENGTH.search(head)
            body_length = int(length[1]) if length else 0
            if len(rest) < body_length:
                return
            self._buffer = rest[body_length:]
            self._transport.write(self._server.reply_to(head.split(b" ", 2)[1].decode()))


def _http(status: int, document: object) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_RUNNING_REPLY = _http(200, _RUNNING)
_NOT_YET_REPLY = _http(404, {})
