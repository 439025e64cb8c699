"""
How bytes travel on event loops: one ``POST`` with a JSON body, over ``aiohttp``.

The asynchronous half of :mod:`airflow_provider_modelslab.transport`, with the same outcomes for the same faults.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import lru_cache

import aiohttp
import requests

from airflow_provider_modelslab import transport
from airflow_provider_modelslab.connection import MAX_CONNECTIONS
from airflow_provider_modelslab.jobs import HttpReply, NoReply


def open_session(timeout: float, tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """
    Return a session; the caller closes it.

    :param timeout: seconds for a whole exchange.
    :param tls: whom to trust, as :func:`~airflow_provider_modelslab.transport.trust` returns it; may be left out where
        there is no TLS.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=tls or True),
        timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=timeout),
        headers=transport.HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def post(session: aiohttp.ClientSession, url: str, body: Mapping[str, object]) -> HttpReply | NoReply:
    """
    Send one request and return its whole reply.

    :param session: a session of :func:`open_session`, whose timeout holds.
    :param url: where to.
    :param body: the JSON body.
    """
    timeout = session.timeout.total or 0.0
    try:
        proxy = _proxy_of(url[: url.index("/", len("https://"))])
        async with session.post(url, json=body, allow_redirects=False, proxy=proxy) as response:
            chunks = bytearray()
            while not response.content.at_eof():
                chunks += await response.content.readany()
                if len(chunks) > transport.MAX_REPLY_BYTES:
                    response.close()
                    return transport.TOO_LONG
            return HttpReply(response.status, bytes(chunks), response.headers.get("Retry-After"))
    except aiohttp.ClientSSLError:
        return transport.UNTRUSTED
    except aiohttp.ConnectionTimeoutError:
        return NoReply(f"no connection to ModelsLab within {timeout:g} s", sent=False)
    except asyncio.TimeoutError:
        return transport.timed_out(timeout)
    except aiohttp.ClientConnectorError:
        return transport.NOT_CONNECTED
    except (aiohttp.ClientConnectionError, ConnectionError, ssl.SSLError):
        return transport.CONNECTION_LOST
    except (aiohttp.InvalidURL, UnicodeError) as error:
        return NoReply(f"the host or the proxy cannot be addressed ({type(error).__name__})", sent=False)
    except (aiohttp.ClientError, ValueError) as error:
        return NoReply(f"the exchange broke off ({type(error).__name__})", sent=True)


@lru_cache(maxsize=64)
def _proxy_of(site: str) -> str | None:
    """
    Return the proxy that the environment names for ``https://host:port``: the same one that requests takes.

    aiohttp's own ``trust_env`` would do, but adds what ~/.netrc holds for the host as an Authorization header.
    """
    proxy = requests.utils.select_proxy(site, requests.utils.get_environ_proxies(site))
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
