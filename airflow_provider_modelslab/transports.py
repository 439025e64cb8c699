"""
How bytes travel: one ``POST`` with a JSON body, over ``requests`` on workers and over ``aiohttp`` in the triggerer.

Both hand over the same two values, :class:`~airflow_provider_modelslab.jobs.HttpReply` and
:class:`~airflow_provider_modelslab.jobs.NoReply`, and raise nothing for what a network can do. What a reply
means is not known here, nor when to repeat a request; redirects are never followed, since the key is in the body.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from functools import lru_cache

import aiohttp
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError, ReadTimeoutError

from airflow_provider_modelslab import __version__
from airflow_provider_modelslab.jobs import HttpReply, NoReply

MAX_CONNECTIONS = 30
"""Connections, and so requests at a time, of one session."""

MAX_REPLY_BYTES = 32 * 2**20
"""A longer body is no reply of ModelsLab's; base64 images fit in."""

_CHUNK_BYTES = 64 * 2**10
_HEADERS = {"User-Agent": f"airflow-provider-modelslab/{__version__}", "Accept": "application/json"}

_TOO_LONG = NoReply(f"the reply is longer than {MAX_REPLY_BYTES // 2**20} MiB", sent=True)


def open_session() -> requests.Session:
    """Return a session for workers; it may be used by :data:`MAX_CONNECTIONS` threads at a time."""
    session = requests.Session()
    session.headers.update(_HEADERS)
    # Without this, requests adds what ~/.netrc holds for the host as an Authorization header.
    session.auth = lambda request: request
    adapter = HTTPAdapter(pool_maxsize=MAX_CONNECTIONS)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def post(session: requests.Session, url: str, body: Mapping[str, object], timeout: float) -> HttpReply | NoReply:
    """
    Send one request and return its whole reply.

    :param url: where to.
    :param body: the JSON body.
    :param timeout: seconds for the whole exchange.
    """
    deadline = time.monotonic() + timeout
    try:
        with session.post(url, json=body, timeout=timeout, allow_redirects=False, stream=True) as response:
            chunks = bytearray()
            for chunk in response.iter_content(_CHUNK_BYTES):
                chunks += chunk
                if len(chunks) > MAX_REPLY_BYTES:
                    return _TOO_LONG
                if time.monotonic() > deadline:
                    return _timed_out(timeout)
            return HttpReply(response.status_code, bytes(chunks), response.headers.get("Retry-After"))
    except requests.exceptions.ConnectTimeout:
        return NoReply(f"no connection to ModelsLab within {timeout:g} s", sent=False)
    except requests.exceptions.Timeout:
        return _timed_out(timeout)
    except requests.exceptions.ConnectionError as error:
        return _fault_behind(error, timeout)
    except requests.exceptions.RequestException as error:
        return NoReply(f"the exchange broke off ({type(error).__name__})", sent=True)


def open_async_session(timeout: float) -> aiohttp.ClientSession:
    """
    Return a session for an event loop; the caller closes it.

    :param timeout: seconds for a whole exchange.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
        timeout=aiohttp.ClientTimeout(total=timeout),
        headers=_HEADERS,
    )


async def apost(session: aiohttp.ClientSession, url: str, body: Mapping[str, object]) -> HttpReply | NoReply:
    """
    Send one request and return its whole reply.

    :param session: a session of :func:`open_async_session`, whose timeout holds.
    :param url: where to.
    :param body: the JSON body.
    """
    try:
        proxy = _proxy_of(url[: url.index("/", len("https://"))])
        async with session.post(url, json=body, allow_redirects=False, proxy=proxy) as response:
            chunks = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                chunks += chunk
                if len(chunks) > MAX_REPLY_BYTES:
                    response.close()
                    return _TOO_LONG
            return HttpReply(response.status, bytes(chunks), response.headers.get("Retry-After"))
    except aiohttp.ClientSSLError:
        return _UNTRUSTED
    except aiohttp.ConnectionTimeoutError:
        return NoReply(f"no connection to ModelsLab within {session.timeout.total:g} s", sent=False)
    except asyncio.TimeoutError:
        return _timed_out(session.timeout.total or 0.0)
    except aiohttp.ClientConnectorError:
        return _NOT_CONNECTED
    except (aiohttp.ClientConnectionError, ConnectionError, ssl.SSLError):
        return _CONNECTION_LOST
    except (aiohttp.ClientError, ValueError) as error:
        return NoReply(f"the exchange broke off ({type(error).__name__})", sent=True)


_UNTRUSTED = NoReply("no trusted TLS connection to ModelsLab", sent=False)
_NOT_CONNECTED = NoReply("no connection to ModelsLab", sent=False)
_CONNECTION_LOST = NoReply("the connection to ModelsLab broke before a reply", sent=True)


@lru_cache(maxsize=64)
def _proxy_of(site: str) -> str | None:
    """
    Return the proxy that the environment names for ``https://host:port``: the same one that requests takes.

    aiohttp's own ``trust_env`` would do, but adds what ~/.netrc holds for the host as an Authorization header.
    """
    proxies = requests.utils.get_environ_proxies(site)
    return requests.utils.select_proxy(site, proxies)


def _timed_out(timeout: float) -> NoReply:
    return NoReply(f"no whole reply from ModelsLab within {timeout:g} s", sent=True)


def _fault_behind(error: requests.exceptions.ConnectionError, timeout: float) -> NoReply:
    """
    Return what lies behind a connection error of requests, which wraps the reason several times over.

    Only a connection that was never made, or whose certificate was refused, has certainly carried nothing.
    """
    reason: object = error
    while reason is not None:
        if isinstance(reason, NewConnectionError):
            return _NOT_CONNECTED
        if isinstance(reason, ssl.SSLCertVerificationError):
            return _UNTRUSTED
        if isinstance(reason, ReadTimeoutError):
            return _timed_out(timeout)
        reason = next((deeper for deeper in _reasons(reason) if isinstance(deeper, BaseException)), None)
    return _CONNECTION_LOST


def _reasons(error: object) -> tuple[object, ...]:
    first_argument = (getattr(error, "args", ()) or (None,))[0]
    return getattr(error, "reason", None), getattr(error, "original_error", None), first_argument
