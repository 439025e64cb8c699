"""
How bytes travel on workers: one request, and the sessions for all of them, over ``requests``.

:func:`send` and its twin in :mod:`airflow_provider_modelslab._http.async_transport` return the same two values,
:class:`~airflow_provider_modelslab._protocol.outcomes.HttpReply` and
:class:`~airflow_provider_modelslab._protocol.outcomes.NoReply`, and raise nothing for what a network can do. What a
reply means is not known here, nor when to repeat a request. Sessions never follow redirects, since the key is in the
body or in a header.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL
from urllib3 import Timeout
from urllib3.exceptions import LocationValueError, NewConnectionError, ProxyError, ReadTimeoutError
from urllib3.util import parse_url

from airflow_provider_modelslab._http import outcomes
from airflow_provider_modelslab._http.addresses import AddressGuard
from airflow_provider_modelslab._http.connection import MAX_CONNECTIONS
from airflow_provider_modelslab._protocol.http_request import HttpRequest
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply

CONNECT_SECONDS = 10.0
"""Seconds for the TCP connection to one address of a host."""

CHUNK_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class DownloadRules:
    """
    What holds for downloads, whose replies are long and whose URLs are a stranger's.

    :param deadline: when the last reply must have been read, by the monotonic clock. The timeout of a request then
        bounds the silence before each byte; without rules, it bounds the whole reply.
    :param least_speed: bytes a second that must come.
    :param slow_after: seconds of waiting for bytes over which the speed is taken.
    :param guard: the addresses that may be connected to.
    """

    deadline: float
    least_speed: float
    slow_after: float
    guard: AddressGuard


def open_session(ssl_context: ssl.SSLContext | None = None, downloads: DownloadRules | None = None) -> _Session:
    """
    Return a session; :data:`MAX_CONNECTIONS` threads may use it at a time. It keeps no connection across a fork.

    :param ssl_context: see :func:`~airflow_provider_modelslab._http.tls.create_ssl_context`; not needed without TLS.
    :param downloads: the rules of downloads, if the session is for these.
    """
    session = _Session()
    # What a server echoes in a cookie must not travel in a header of the next request.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.headers.update(outcomes.HEADERS)
    # Without this, requests adds what ~/.netrc holds for the host as an Authorization header.
    session.auth = lambda request: request
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(ssl_context, downloads, session))
    return session


def send(session: _Session, request: HttpRequest, timeout: float, *, cut_running: bool = False) -> HttpReply | NoReply:
    """
    Send one request and return its whole reply.

    :param session: a session of :func:`open_session`, without rules of downloads.
    :param request: the request.
    :param timeout: seconds for the whole exchange. Two things are not in it: the operating system resolves the name
        of the host in its own time, and each of the host's addresses has up to :data:`CONNECT_SECONDS`.
    :param cut_running: see :class:`~airflow_provider_modelslab._http.outcomes.IncomingBody`.
    """
    received = _exchange(session, request, timeout, outcomes.IncomingBody(cut_running))
    if isinstance(received, NoReply) and not session.connected:
        return replace(received, sent=False)
    return received


def _exchange(
    session: _Session, request: HttpRequest, timeout: float, incoming: outcomes.IncomingBody
) -> HttpReply | NoReply:
    connecting = min(timeout, CONNECT_SECONDS)
    limits: Any = Timeout(total=timeout, connect=connecting)
    try:
        with session.request(
            request.method,
            request.url,
            json=request.body,
            headers=request.headers,
            timeout=limits,
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code < 200:
                # An interim reply, which http.client takes for the last one. The true one is still to come: another
                # request must not find it on this connection.
                return outcomes.CONNECTION_LOST
            if outcomes.is_encoded(response.headers):
                return outcomes.ENCODED
            for chunk in response.iter_content(CHUNK_BYTES):
                if incoming.add(chunk):
                    break
            return incoming.reply(response.status_code, response.headers, time.time())
    except requests.exceptions.ConnectTimeout:
        return outcomes.connect_timeout(connecting)
    except requests.exceptions.Timeout:
        return outcomes.reply_timeout(timeout)
    except requests.exceptions.ConnectionError as error:
        return _reason_of(error, timeout, session.connected)
    except (InvalidURL, InvalidSchema, LocationValueError, UnicodeError) as error:
        return outcomes.unaddressable(error)
    except Exception as error:  # http.client and urllib3 let some of their own through
        return outcomes.protocol_error(error)


class _Session(requests.Session):
    """
    Follows no redirect; requests would read its body whole, and prepare the next request, even if told not to.

    :ivar connected: whether any connection has come about, through a proxy and TLS: before, no request was sent.
    """

    connected = False

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Adapter(HTTPAdapter):
    """
    Gives all connections the same TLS context, and all replies their limits.

    requests would make a context for each connection, and trust its own file besides.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None, downloads: DownloadRules | None, session: _Session) -> None:
        self._ssl_context = ssl_context
        self._downloads = downloads
        self._session = session
        self._process = os.getpid()
        super().__init__(_HOSTS, MAX_CONNECTIONS)

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

    def _connection(self, kind: type[http.client.HTTPConnection], **options: Any) -> Any:
        connection: Any = kind(**options)
        connection.response_class = partial(_Reply, downloads=self._downloads)
        connection.connect = partial(self._connect, connection.connect)
        if self._downloads and connection.proxy is None:
            connection._new_conn = partial(_guarded_socket, self._downloads.guard, connection, connection._new_conn)
        return connection

    def _connect(self, connect: Callable[[], None]) -> None:
        connect()
        self._session.connected = True

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if self._downloads:
            # A proxy resolves names itself: behind one, this is all that can be judged.
            url = parse_url(str(request.url))
            self._downloads.guard.check(url.host or "", url.port or _PORTS[str(url.scheme)])
        if self._process != os.getpid():
            # Two processes that read from one connection would get each other's replies.
            self.proxy_manager.clear()
            self.init_poolmanager(_HOSTS, MAX_CONNECTIONS)
            self._process = os.getpid()
        # What the environment names must not come on top of what the context has.
        return super().send(request, *args, **{**kwargs, "verify": True})

    def cert_verify(self, *args: Any) -> None:
        """Add nothing: the context has all that is to be trusted, and checks it."""


_HOSTS = 10
"""To which a session keeps connections."""

_PORTS = {"http": 80, "https": 443}


def _guarded_socket(guard: AddressGuard, connection: Any, open_socket: Callable[[], socket.socket]) -> socket.socket:
    """Return a connected socket whose address has been judged: no name, and no change of one, gets round that."""
    sock = open_socket()
    try:
        guard.check(connection.host, connection.port, sock.getpeername()[0])
    except BaseException:
        sock.close()
        raise
    return sock


class _Reply(http.client.HTTPResponse):
    """A reply that is whole at its deadline or fails, however slowly its bytes come."""

    def __init__(self, sock: socket.socket, *args: Any, downloads: DownloadRules | None, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Reader(sock, self.fp.detach(), downloads))

    def begin(self) -> None:
        super().begin()
        # Of headers that it cannot read, urllib3 logs a warning with their text, and so the key if a server echoes it.
        self.msg.defects.clear()
        self.msg.set_payload("")


class _Reader(io.RawIOBase):
    """
    Reads a socket until a deadline, and not too slowly.

    The timeout of a socket bounds only the silence before each byte.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, downloads: DownloadRules | None) -> None:
        self._sock = sock
        self._raw = raw
        self._silence = sock.gettimeout() or 0.0
        self._downloads = downloads
        self._deadline = downloads.deadline if downloads else time.monotonic() + self._silence
        self._size = 0
        self._waited = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        started = time.monotonic()
        left = self._deadline - started
        if left <= 0:
            raise TimeoutError("the deadline of the reply has passed")
        self._sock.settimeout(min(left, self._silence))
        size = self._raw.readinto(buffer)
        if self._downloads and size:
            self._check_speed(self._downloads, size, time.monotonic() - started)
        return size

    def _check_speed(self, rules: DownloadRules, size: int, waited: float) -> None:
        """Raise where too few bytes have come; the time that a store takes for them does not count."""
        self._size += size
        self._waited += waited
        if self._waited >= rules.slow_after:
            if self._size < rules.least_speed * self._waited:
                raise TimeoutError(f"slower than {rules.least_speed:g} bytes/s")
            self._size, self._waited = 0, 0.0

    def close(self) -> None:
        self._raw.close()
        super().close()


def _reason_of(error: requests.exceptions.ConnectionError, timeout: float, connected: bool) -> NoReply:
    """Return the outcome behind a connection error of requests, which wraps the reason several times over."""
    for reason in _reasons(error):
        if isinstance(reason, NewConnectionError):
            return outcomes.NOT_CONNECTED
        if isinstance(reason, ssl.SSLCertVerificationError):
            return outcomes.UNTRUSTED
        if isinstance(reason, ssl.SSLError) and reason.reason in _NO_TLS_AT_ALL:
            return outcomes.UNTRUSTED
        if isinstance(reason, ReadTimeoutError):
            return outcomes.reply_timeout(timeout)
    # urllib3 says this of a proxy that passes requests on, too, and that may have done so.
    refused = not connected and any(isinstance(reason, ProxyError) for reason in _reasons(error))
    return outcomes.REFUSED_BY_PROXY if refused else outcomes.CONNECTION_LOST


# What OpenSSL says of a server that answers the handshake with something else.
_NO_TLS_AT_ALL = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


def _reasons(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        first_argument = (error.args or (None,))[0]
        deeper = (getattr(error, "reason", None), getattr(error, "original_error", None), first_argument)
        error = next((each for each in deeper if isinstance(each, BaseException)), None)
