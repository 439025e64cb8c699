"""
How bytes travel on workers: one ``POST`` with a JSON body, over ``requests``.

With :mod:`airflow_provider_modelslab.async_transport` this is all there is of HTTP. Both hand over the same two
values, :class:`~airflow_provider_modelslab.jobs.HttpReply` and :class:`~airflow_provider_modelslab.jobs.NoReply`, and
raise nothing for what a network can do. What a reply means is not known here, nor when to repeat a request; redirects
are never followed, since the key is in the body.

``requests`` is imported by the first request: it takes a tenth of a second of CPU, which processes that only parse a
DAG, or resume a task after its wait, do without.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from airflow_provider_modelslab import __version__
from airflow_provider_modelslab.jobs import HttpReply, NoReply

if TYPE_CHECKING:
    import requests

MAX_CONNECTIONS = 30
"""Connections, and so requests at a time, of one session."""

MAX_REPLY_BYTES = 32 * 2**20
"""A longer body is no reply of ModelsLab's; base64 images fit in."""

CHUNK_BYTES = 64 * 2**10

HEADERS = {"User-Agent": f"airflow-provider-modelslab/{__version__}", "Accept": "application/json"}

NOT_CONNECTED = NoReply("no connection to ModelsLab", sent=False)
UNTRUSTED = NoReply("no trusted TLS connection to ModelsLab", sent=False)
CONNECTION_LOST = NoReply("the connection to ModelsLab broke before a reply", sent=True)
TOO_LONG = NoReply(f"the reply is longer than {MAX_REPLY_BYTES // 2**20} MiB", sent=True)


def timed_out(timeout: float) -> NoReply:
    """Return what there is when a request was sent and the time is over."""
    return NoReply(f"no whole reply from ModelsLab within {timeout:g} s", sent=True)


def open_session() -> requests.Session:
    """Return a session; it may be used by :data:`MAX_CONNECTIONS` threads at a time."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.headers.update(HEADERS)
    # Without this, requests adds what ~/.netrc holds for the host as an Authorization header.
    session.auth = lambda request: request
    adapter = HTTPAdapter(pool_maxsize=MAX_CONNECTIONS)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def post(session: requests.Session, url: str, body: Mapping[str, object], timeout: float) -> HttpReply | NoReply:
    """
    Send one request and return its whole reply.

    :param session: a session of :func:`open_session`.
    :param url: where to.
    :param body: the JSON body.
    :param timeout: seconds for the whole exchange.
    """
    # In a thread that may be left behind: requests bounds each read, not their sum, and a server that sends a byte now
    # and then could hold a worker for hours.
    outcome: SimpleQueue[HttpReply | NoReply] = SimpleQueue()
    threading.Thread(
        target=lambda: outcome.put(_exchange(session, url, body, timeout)), name="modelslab-request", daemon=True
    ).start()
    try:
        return outcome.get(timeout=timeout + _MARGIN)
    except Empty:
        return timed_out(timeout)


_MARGIN = 0.25
"""Seconds that a thread has to tell of its own timeout, which it knows more about."""


def _exchange(session: requests.Session, url: str, body: Mapping[str, object], timeout: float) -> HttpReply | NoReply:
    import requests
    from urllib3.exceptions import HTTPError

    try:
        with session.post(url, json=body, timeout=timeout, allow_redirects=False, stream=True) as response:
            chunks = bytearray()
            for chunk in response.iter_content(CHUNK_BYTES):
                chunks += chunk
                if len(chunks) > MAX_REPLY_BYTES:
                    return TOO_LONG
            return HttpReply(response.status_code, bytes(chunks), response.headers.get("Retry-After"))
    except requests.exceptions.ConnectTimeout:
        return NoReply(f"no connection to ModelsLab within {timeout:g} s", sent=False)
    except requests.exceptions.Timeout:
        return timed_out(timeout)
    except requests.exceptions.ConnectionError as error:
        return _fault_behind(error, timeout)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, HTTPError, UnicodeError) as error:
        return NoReply(f"the host or the proxy cannot be addressed ({type(error).__name__})", sent=False)
    except Exception as error:  # a thread has nobody to raise to
        return NoReply(f"the exchange broke off ({type(error).__name__})", sent=True)


def _fault_behind(error: requests.exceptions.ConnectionError, timeout: float) -> NoReply:
    """
    Return what lies behind a connection error of requests, which wraps the reason several times over.

    Only a connection that was never made, or whose certificate was refused, has certainly carried nothing.
    """
    from urllib3.exceptions import NewConnectionError, ReadTimeoutError

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
