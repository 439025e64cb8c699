"""
How bytes travel on workers: one ``POST`` with a JSON body, over ``requests``.

With :mod:`airflow_provider_modelslab._http.async_transport` this is all there is of HTTP. Both hand over the same two
values, :class:`~airflow_provider_modelslab.jobs.HttpReply` and :class:`~airflow_provider_modelslab.jobs.NoReply`, and
raise nothing for what a network can do. What a reply means is not known here, nor when to repeat a request; redirects
are never followed, since the key is in the body.
"""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Mapping
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from io import BytesIO
from queue import Empty, SimpleQueue
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import LocationValueError, NewConnectionError, ReadTimeoutError

from airflow_provider_modelslab import __version__
from airflow_provider_modelslab._http.connection import MAX_CONNECTIONS
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply

MAX_REPLY_BYTES = 32 * 2**20
"""A longer body is no reply of ModelsLab's; base64 images fit in."""

CHUNK_BYTES = 64 * 2**10

HEADERS = {
    "User-Agent": f"airflow-provider-modelslab/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
}

NOT_CONNECTED = NoReply("no connection to ModelsLab", sent=False)
UNTRUSTED = NoReply(
    "no trusted TLS connection to ModelsLab (the connection's extra field 'ca_bundle' says whom to trust)", sent=False
)
CONNECTION_LOST = NoReply("the connection to ModelsLab broke before a reply", sent=True)
TOO_LONG = NoReply(f"the reply is longer than {MAX_REPLY_BYTES // 2**20} MiB", sent=True)


def timed_out(timeout: float) -> NoReply:
    """Return what there is when a request was sent and the time is over."""
    return NoReply(f"no whole reply from ModelsLab within {timeout:g} s", sent=True)


def read_body(status: int, headers: Mapping[str, str], body: bytes) -> HttpReply | NoReply:
    """
    Return a reply whose body has been read, and unpack it.

    The HTTP clients shall not do that: a few bytes can be gigabytes when they are unpacked, and urllib3 before 2.6 and
    aiohttp before 3.13.3, which some releases of Airflow come with, do not stop at a limit.

    :param status: its HTTP status.
    :param headers: its headers, whatever their letters' case.
    :param body: what has been received, at most :data:`MAX_REPLY_BYTES`.
    """
    if headers.get("Content-Encoding", "").strip().lower() in ("gzip", "x-gzip"):
        try:
            with gzip.GzipFile(fileobj=BytesIO(body)) as packed:
                body = packed.read(MAX_REPLY_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            return protocol_error(error)
        if len(body) > MAX_REPLY_BYTES:
            return TOO_LONG
    return HttpReply(status, body, headers.get("Retry-After"))


def protocol_error(error: Exception) -> NoReply:
    """Return what there is when a request was sent and its reply cannot be read."""
    return NoReply(f"the exchange broke off ({type(error).__name__})", sent=True)


def open_session(ssl_context: ssl.SSLContext | None = None) -> requests.Session:
    """
    Return a session; it may be used by :data:`MAX_CONNECTIONS` threads at a time.

    :param ssl_context: see :func:`~airflow_provider_modelslab._http.tls.create_ssl_context`; not needed without TLS.
    """
    session = _Session()
    # What a server echoes in a cookie must not travel in a header of the next request.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.headers.update(HEADERS)
    # Without this, requests adds what ~/.netrc holds for the host as an Authorization header.
    session.auth = lambda request: request
    session.mount("http://", _Adapter(pool_maxsize=MAX_CONNECTIONS))
    session.mount("https://", _TrustingAdapter(ssl_context) if ssl_context else _Adapter(pool_maxsize=MAX_CONNECTIONS))
    return session


class _Session(requests.Session):
    """Follows no redirect; requests would read its body whole, and prepare what comes next, even if told not to."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def post(session: requests.Session, url: str, body: Mapping[str, object], timeout: float) -> HttpReply | NoReply:
    """
    Send one request and return its whole reply.

    :param session: a session of :func:`open_session`.
    :param url: where to.
    :param body: the JSON body.
    :param timeout: seconds for the whole exchange.
    """
    # In a thread whose connection can be cut off: requests bounds each read, not their sum, and a server that sends a
    # byte now and then could hold a worker for hours.
    outcome: SimpleQueue[HttpReply | NoReply] = SimpleQueue()
    connections: list[HTTPConnection] = []

    def exchange() -> None:
        _HERE.connections = connections
        outcome.put(_exchange(session, url, body, timeout))

    threading.Thread(target=exchange, name=_THREAD, daemon=True).start()
    try:
        return outcome.get(timeout=timeout + _MARGIN)
    except Empty:
        for connection in connections:
            _cut_off(connection)
        return timed_out(timeout)


_THREAD = "modelslab-request"

# Of headers that it cannot read, urllib3 warns with their text, and so with what a server echoes in it.
logging.getLogger("urllib3.connection").addFilter(lambda record: record.threadName != _THREAD)

_MARGIN = 0.25
"""Seconds that a thread has to tell of its own timeout, which it knows more about."""

_HERE = threading.local()
"""``connections``: what the exchange of this thread travels over."""


class _NotesItself:
    def request(self, *args: Any, **kwargs: Any) -> None:
        _HERE.connections.append(self)
        super().request(*args, **kwargs)  # type: ignore[misc]


class _Connection(_NotesItself, HTTPConnection):
    pass


class _SecureConnection(_NotesItself, HTTPSConnection):
    pass


class _Adapter(HTTPAdapter):
    """An adapter whose connections are known to the exchange that uses them."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _SecureConnection if pool.scheme == "https" else _Connection
        return pool


class _TrustingAdapter(_Adapter):
    """
    Gives all connections the same context; requests would make one for each, and trust its own file besides.

    :param ssl_context: the context.
    """

    def __init__(self, ssl_context: ssl.SSLContext) -> None:
        self._ssl_context = ssl_context
        super().__init__(pool_maxsize=MAX_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._ssl_context)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(
            *args, **kwargs, ssl_context=self._ssl_context, proxy_ssl_context=self._ssl_context
        )

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        # What the environment names must not come on top of what the context has.
        return super().send(*args, **{**kwargs, "verify": True})

    def cert_verify(self, *args: Any) -> None:
        """Add nothing: the context has all that is to be trusted, and checks it."""


def _cut_off(connection: HTTPConnection) -> None:
    """End what another thread reads of a connection."""
    if isinstance(connection.sock, socket.socket):
        with suppress(OSError):
            # The other side is to be told by a reset, which nobody who goes on sending can overlook.
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Not the method of TLS sockets, which would change them under the hands of that thread.
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


def _exchange(session: requests.Session, url: str, body: Mapping[str, object], timeout: float) -> HttpReply | NoReply:
    try:
        with session.post(url, json=body, timeout=timeout, allow_redirects=False, stream=True) as response:
            if response.status_code < 200:
                # An interim reply, which http.client takes for the last one. The true one is still to come: another
                # request must not find it on this connection.
                return CONNECTION_LOST
            response.raw.headers.discard("Content-Encoding")  # or urllib3 would unpack it
            chunks = bytearray()
            for chunk in response.iter_content(CHUNK_BYTES):
                chunks += chunk
                if len(chunks) > MAX_REPLY_BYTES:
                    return TOO_LONG
            return read_body(response.status_code, response.headers, bytes(chunks))
    except requests.exceptions.ConnectTimeout:
        return NoReply(f"no connection to ModelsLab within {timeout:g} s", sent=False)
    except requests.exceptions.Timeout:
        return timed_out(timeout)
    except requests.exceptions.ConnectionError as error:
        return _fault_behind(error, timeout)
    except (InvalidURL, InvalidSchema, LocationValueError, UnicodeError) as error:
        return NoReply(f"the host or the proxy cannot be addressed ({type(error).__name__})", sent=False)
    except Exception as error:  # a thread has nobody to raise to
        return protocol_error(error)


def _fault_behind(error: requests.exceptions.ConnectionError, timeout: float) -> NoReply:
    """
    Return what lies behind a connection error of requests, which wraps the reason several times over.

    Only a connection that was never made, or whose certificate was refused, has certainly state nothing.
    """
    reason: object = error
    while reason is not None:
        if isinstance(reason, NewConnectionError):
            return NOT_CONNECTED
        if isinstance(reason, ssl.SSLCertVerificationError):
            return UNTRUSTED
        if isinstance(reason, ssl.SSLError) and reason.reason in _NO_TLS_AT_ALL:
            return UNTRUSTED
        if isinstance(reason, ReadTimeoutError):
            return timed_out(timeout)
        reason = next((deeper for deeper in _reasons(reason) if isinstance(deeper, BaseException)), None)
    return CONNECTION_LOST


# What OpenSSL says of a server that answers the handshake with something else.
_NO_TLS_AT_ALL = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


def _reasons(error: object) -> tuple[object, ...]:
    first_argument = (getattr(error, "args", ()) or (None,))[0]
    return getattr(error, "reason", None), getattr(error, "original_error", None), first_argument
