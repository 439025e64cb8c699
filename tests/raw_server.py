"""A TCP server that speaks no HTTP of its own: it records what arrives byte for byte and answers what it is told."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

RESET = b"RESET"
"""Instead of a reply: close the connection at once with a TCP reset."""


def reply(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a whole HTTP reply with a JSON body, or with the bytes given."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Length: {len(content)}",
        *(f"{k}: {v}" for k, v in (headers or {}).items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


class RawServer:
    """
    Listens on a free loopback port; one thread per connection.

    :param tls: the server's side of TLS, if it is to speak that.
    :ivar respond: makes the answer to a request, in place of ``answers``.
    :ivar requests: the raw bytes of each request.
    :ivar together: how many requests must have come before any is answered.
    :ivar connections: how many were made.
    :ivar drips: whether an answer that was cut goes on with a byte every now and then, without end.
    :ivar holds: whether to keep a connection open, and silent, after an answer that was cut.
    :ivar answers: what to send next, in turn; the last one is repeated. ``b""`` closes without an answer, and an
        answer that is shorter than its Content-Length is cut there.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.respond: Callable[[bytes], bytes] | None = None
        self.requests: list[bytes] = []
        self.answers: deque[bytes] = deque([reply({"status": "processing"})])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Condition()
        self._closing = threading.Event()
        self.connections = 0
        self.drips = False
        self.holds = False
        self.together = 1

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def connection(self) -> str:
        return json.dumps(
            {
                "conn_type": "modelslab",
                "host": self.url,
                "password": "the-api-key",
                "extra": {"retries": 0, "request_timeout": 1, "requests_per_second": 10_000},
            }
        )

    def answer(self, *answers: bytes) -> None:
        self.answers = deque(answers)

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            stream = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
        except OSError:  # the client does not trust this server
            connection.close()
            return
        self._answer(stream)

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while request := _read_request(connection):
                with self._lock:
                    self.requests.append(request)
                    self._lock.notify_all()
                    self._lock.wait_for(lambda: len(self.requests) >= self.together)
                    answer = self.respond(request) if self.respond else self._next_answer()
                if answer == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return
                connection.sendall(answer)
                declared = re.search(rb"Content-Length: (\d+)\r\n", answer)
                if not declared or len(answer.partition(b"\r\n\r\n")[2]) < int(declared[1]):
                    while self.drips and not self._closing.wait(0.1):
                        try:
                            connection.sendall(b"x")
                        except OSError:
                            return
                    if self.holds:
                        self._closing.wait()
                    return

    def _next_answer(self) -> bytes:
        return self.answers.popleft() if len(self.answers) > 1 else self.answers[0]


def _read_request(connection: socket.socket) -> bytes:
    """Return the bytes of one request with its body; nothing when the client has gone."""
    data = b""
    try:
        while True:
            head, end, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            if end and len(body) >= int(length[1] if length else 0):
                return data
            chunk = connection.recv(65536)
            if not chunk:
                return b""
            data += chunk
    except OSError:
        return b""
