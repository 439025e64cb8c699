"""
How bytes travel on workers: one ``POST`` with a JSON body, and the sessions for all requests, over ``requests``.

:func:`post` and its twin in :mod:`airflow_provider_modelslab._http.async_transport` return the same two values,
:class:`~airflow_provider_modelslab._protocol.outcomes.HttpReply` and
:class:`~airflow_provider_modelslab._protocol.outcomes.NoReply`, and raise nothing for what a network can do. What a
reply means is not known here, nor when to repeat a request. Sessions never follow redirects, since the key is in the
body.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL
from urllib3 import Timeout
from urllib3.exceptions import LocationValueError, NewConnectionError, ReadTimeoutError

from airflow_provider_modelslab._http import outcomes
from airflow_provider_modelslab._http.connection import MAX_CONNECTIONS
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply, retry_after_seconds

CONNECT_SECONDS = 10.0
"""Seconds for the TCP connection to one address of a host."""

CHUNK_BYTES = 64 * 2**10


def open_session(ssl_context: ssl.SSLContext | None = None, deadline: float | None = None) -> requests.Session:
    """
    Return a session; :data:`MAX_CONNECTIONS` threads may use it at a time.

    :param ssl_context: see :func:`~airflow_provider_modelslab._http.tls.create_ssl_context`; not needed without TLS.
    :param deadline: when the last reply must have been read, by the monotonic clock; the timeout of a request then
        bounds the silence before each byte. Without a deadline, it bounds the whole reply.
    """
    session = _Session()
    # What a server echoes in a cookie must not travel in a header of the next request.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.headers.update(outcomes.HEADERS)
    # Without this, requests adds what ~/.netrc holds for the host as an Authorization header.
    session.auth = lambda request: request
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(ssl_context, deadline))
    return session


def post(session: requests.Session, url: str, body: Mapping[str, object], timeout: float) -> HttpReply | NoReply:
    """
    Send one request and return its whole reply.

    :param session: a session of :func:`open_session`, without a deadline.
    :param url: where to.
    :param body: the JSON body.
    :param timeout: seconds for the whole exchange. Two things are not in it: the operating system resolves the name
        of the host in its own time, and each of the host's addresses has up to :data:`CONNECT_SECONDS`.
    """
    connecting = min(timeout, CONNECT_SECONDS)
    limits: Any = Timeout(total=timeout, connect=connecting)
    try:
        with session.post(url, json=body, timeout=limits, allow_redirects=False, stream=True) as response:
            if response.status_code < 200:
                # An interim reply, which http.client takes for the last one. The true one is still to come: another
                # request must not find it on this connection.
                return outcomes.CONNECTION_LOST
            if outcomes.is_encoded(response.headers):
                return outcomes.ENCODED
            chunks = bytearray()
            for chunk in response.iter_content(CHUNK_BYTES):
                chunks += chunk
                if len(chunks) > outcomes.MAX_REPLY_BYTES:
                    return outcomes.TOO_LONG
            retry_after = retry_after_seconds(response.headers.get("Retry-After"), time.time())
            return HttpReply(response.status_code, bytes(chunks), retry_after)
    except requests.exceptions.ConnectTimeout:
        return outcomes.connect_timeout(connecting)
    except requests.exceptions.Timeout:
        return outcomes.reply_timeout(timeout)
    except requests.exceptions.ConnectionError as error:
        return _reason_of(error, timeout)
    except (InvalidURL, InvalidSchema, LocationValueError, UnicodeError) as error:
        return outcomes.unaddressable(error)
    except Exception as error:  # http.client and urllib3 let some of their own through
        return outcomes.protocol_error(error)


class _Session(requests.Session):
    """Follows no redirect; requests would read its body whole, and prepare the next request, even if told not to."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Adapter(HTTPAdapter):
    """
    Gives all connections the same TLS context, and all replies a deadline.

    requests would make a context for each connection, and trust its own file besides.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None, deadline: float | None) -> None:
        self._ssl_context = ssl_context
        self._deadline = deadline
        super().__init__(pool_maxsize=MAX_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._ssl_context)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(
            *args, **kwargs, ssl_context=self._ssl_context, proxy_ssl_context=self._ssl_context
        )

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = partial(self._connection, type(pool).ConnectionCls)
        return pool

    def _connection(self, kind: type[http.client.HTTPConnection], **options: Any) -> http.client.HTTPConnection:
        connection = kind(**options)
        connection.response_class = partial(_Reply, deadline=self._deadline)  # type: ignore[assignment]
        return connection

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        # What the environment names must not come on top of what the context has.
        return super().send(*args, **{**kwargs, "verify": True})

    def cert_verify(self, *args: Any) -> None:
        """Add nothing: the context has all that is to be trusted, and checks it."""


class _Reply(http.client.HTTPResponse):
    """A reply that is whole at its deadline or fails, however slowly its bytes come."""

    def __init__(self, sock: socket.socket, *args: Any, deadline: float | None, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Reader(sock, self.fp.detach(), deadline))

    def begin(self) -> None:
        super().begin()
        # Of headers that it cannot read, urllib3 logs a warning with their text, and so the key if a server echoes it.
        self.msg.defects.clear()
        self.msg.set_payload("")


class _Reader(io.RawIOBase):
    """Reads a socket until a deadline; the timeout of a socket bounds only the silence before each byte."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, deadline: float | None) -> None:
        self._sock = sock
        self._raw = raw
        self._silence = sock.gettimeout() or 0.0
        self._deadline = time.monotonic() + self._silence if deadline is None else deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the reply has passed")
        self._sock.settimeout(min(left, self._silence))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _reason_of(error: requests.exceptions.ConnectionError, timeout: float) -> NoReply:
    """
    Return the outcome behind a connection error of requests, which wraps the reason several times over.

    Only a connection that was never made, or whose certificate was refused, has certainly sent nothing.
    """
    reason: object = error
    while reason is not None:
        if isinstance(reason, NewConnectionError):
            return outcomes.NOT_CONNECTED
        if isinstance(reason, ssl.SSLCertVerificationError):
            return outcomes.UNTRUSTED
        if isinstance(reason, ssl.SSLError) and reason.reason in _NO_TLS_AT_ALL:
            return outcomes.UNTRUSTED
        if isinstance(reason, ReadTimeoutError):
            return outcomes.reply_timeout(timeout)
        reason = next((deeper for deeper in _reasons(reason) if isinstance(deeper, BaseException)), None)
    return outcomes.CONNECTION_LOST


# What OpenSSL says of a server that answers the handshake with something else.
_NO_TLS_AT_ALL = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


def _reasons(error: object) -> tuple[object, ...]:
    first_argument = (getattr(error, "args", ()) or (None,))[0]
    return getattr(error, "reason", None), getattr(error, "original_error", None), first_argument
