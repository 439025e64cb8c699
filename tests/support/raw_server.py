"""A TCP server that speaks no HTTP of its own: it records what arrives byte for byte and answers what it is told."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from types import TracebackType

import trustme

RESET = b"RESET"
"""Instead of a reply: close the connection at once with a TCP reset."""

DRIP_PAUSE = 0.1
"""Seconds between the bytes of an answer that drips."""


@dataclass(frozen=True)
class Stream:
    """
    An answer in parts, after which the connection is closed.

    :param parts: makes the parts; they may be without end.
    :param pause: seconds before each part but the first; ``None`` for as long as the server lives.
    """

    parts: Callable[[], Iterable[bytes]]
    pause: float | None = 0.0


Answer = bytes | Stream


def by_path(answers: Mapping[str, Answer]) -> Callable[[bytes], Answer]:
    """Return what answers requests by their path; a path that is not there gets a 404."""
    return lambda request: answers.get(path_of(request), reply(b"", 404))


def path_of(request: bytes) -> str:
    return request.split(b" ", 2)[1].decode()


def reply(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a whole HTTP reply with a JSON body, or with the bytes given."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Length: {len(content)}",
        *(f"{k}: {v}" for k, v in (headers or {}).items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def stalling(start: bytes = b"") -> Stream:
    """Return an answer that stops after its first bytes, while the connection stays open."""
    return Stream(lambda: (start, b""), pause=None)


def dripping(start: bytes) -> Stream:
    """Return an answer that goes on with a byte every now and then, without end."""
    return Stream(lambda: chain((start,), repeat(b"x")), pause=DRIP_PAUSE)


def ssl_context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Return the TLS context of a server that has this certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


class RawServer:
    """
    Has a free loopback port, on which it listens as a context; one thread per connection.

    :param ssl_context: the server's side of TLS, if it is to speak that.
    :ivar requests: the raw bytes of each request.
    :ivar together: how many requests must have come before any is answered.
    :ivar connections: how many were made.
    :ivar sent: how many bytes of each :class:`Stream` were sent before it ended, or the client went away.
    :ivar answer_to: returns what to send for a request; by default what :meth:`answer` was told, in turn. ``b""``
        closes without an answer, and an answer that is shorter than its Content-Length is cut there.
    :ivar turns_away: asked once per connection, whether to reset it before its request is read.
    :ivar ssl_context: the TLS context of new connections; ``None`` for plain TCP.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.sent: list[int] = []
        self.together = 1
        self.answer_to: Callable[[bytes], Answer] = lambda request: self._next_answer()
        self.turns_away: Callable[[], bool] = lambda: False
        self.ssl_context = ssl_context
        self._answers: deque[Answer] = deque([reply({"status": "processing"})])
        # Bound but not listening: until then, every connection is refused.
        self._socket = socket.socket()
        # Else the system holds the more of what is sent, the busier the machine is.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
        self._socket.bind(("127.0.0.1", 0))
        self._lock = threading.Condition()
        self._closing = threading.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self.ssl_context else 'http'}://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def connection(self) -> str:
        return json.dumps(
            {
                "conn_type": "modelslab",
                "host": self.url,
                "password": "the-api-key",
                "extra": {"retries": 0, "request_timeout": 120, "requests_per_second": 10_000},
            }
        )

    def answer(self, *answers: Answer) -> None:
        """Say what to send next, in turn; the last one is repeated."""
        self._answers = deque(answers)

    def __enter__(self) -> RawServer:
        self._socket.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()

    def _next_answer(self) -> Answer:
        return self._answers.popleft() if len(self._answers) > 1 else self._answers[0]

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
            with (
                self.ssl_context.wrap_socket(connection, server_side=True)
                if self.ssl_context
                else connection as secured
            ):
                if self.turns_away():
                    secured.recv(1, socket.MSG_PEEK)
                    _reset(secured)
                else:
                    self._converse(secured)
        except OSError:
            return  # the client has gone

    def _converse(self, connection: socket.socket) -> None:
        while request := _read_request(connection):
            with self._lock:
                self.requests.append(request)
                self._lock.notify_all()
                self._lock.wait_for(lambda: len(self.requests) >= self.together)
                answer = self.answer_to(request)
            if isinstance(answer, Stream):
                self._stream(connection, answer)
                return
            if answer == RESET:
                _reset(connection)
                return
            connection.sendall(answer)
            declared = re.search(rb"Content-Length: (\d+)\r\n", answer)
            if not declared or len(answer.partition(b"\r\n\r\n")[2]) < int(declared[1]):
                return

    def _stream(self, connection: socket.socket, answer: Stream) -> None:
        sent = 0
        try:
            for position, part in enumerate(answer.parts()):
                if position and self._closing.wait(answer.pause):
                    return
                connection.sendall(part)
                sent += len(part)
        finally:
            self.sent.append(sent)


def _reset(connection: socket.socket) -> None:
    """Let the end of a connection be a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


_TLS_HELLO = b"\x16\x03"


def _read_request(connection: socket.socket) -> bytes:
    """Return the bytes of one request with its body, or what begins TLS; nothing when the client has gone."""
    data = b""
    while not data.startswith(_TLS_HELLO):
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if end and len(body) >= int(length[1] if length else 0):
            return data
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        data += chunk
    return data
