"""
How bytes travel on event loops: one request, over ``aiohttp``.

The asynchronous twin of :mod:`airflow_provider_modelslab._http.sync_transport`: same faults, same outcomes.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from dataclasses import replace
from functools import lru_cache
from typing import Any

import aiohttp
import requests

from airflow_provider_modelslab._http import outcomes
from airflow_provider_modelslab._http.connection import MAX_CONNECTIONS
from airflow_provider_modelslab._protocol.http_request import HttpRequest
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply


class Session:
    """
    What requests share: connections that are kept alive, the certificates to trust, and the time for each request.

    The caller closes its ``client``.

    :param timeout: seconds for a whole exchange.
    :param ssl_context: see :func:`~airflow_provider_modelslab._http.tls.create_ssl_context`; not needed without TLS.
    """

    def __init__(self, timeout: float, ssl_context: ssl.SSLContext | None = None) -> None:
        self.timeout = timeout
        self._proxy_of = lru_cache(_proxy_of)
        # Shorter than the whole, so that it comes first: its error means that nothing was sent.
        self.connect_timeout = 0.9 * timeout
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_note_sent)
        self.client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=ssl_context or True),
            # Above its threshold, aiohttp rounds both up to the same whole second.
            timeout=aiohttp.ClientTimeout(total=timeout, connect=self.connect_timeout, ceil_threshold=timeout),
            headers={**outcomes.HEADERS, "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[tracing],
        )

    async def send(self, request: HttpRequest, *, cut_running: bool = False) -> HttpReply | NoReply:
        """
        Send one request and return its whole reply.

        :param request: the request.
        :param cut_running: see :class:`~airflow_provider_modelslab._http.outcomes.IncomingBody`.
        """
        sent: list[bool] = []
        received = await self._exchange(request, sent, outcomes.IncomingBody(cut_running))
        if isinstance(received, NoReply) and not sent:
            return replace(received, sent=False)
        return received

    async def _exchange(
        self, request: HttpRequest, sent: list[bool], incoming: outcomes.IncomingBody
    ) -> HttpReply | NoReply:
        try:
            proxy = self._proxy_of(request.url[: request.url.index("/", len("https://"))])
            data = None if request.body is None else json.dumps(request.body).encode()
            async with self.client.request(
                request.method,
                request.url,
                data=data,
                headers=request.headers,
                allow_redirects=False,
                proxy=proxy,
                trace_request_ctx=sent,
            ) as response:
                if outcomes.is_encoded(response.headers):
                    response.close()
                    return outcomes.ENCODED
                while not response.content.at_eof():
                    if incoming.add(await response.content.readany()):
                        response.close()
                        break
                return incoming.reply(response.status, response.headers, time.time())
        except aiohttp.ClientSSLError:
            return outcomes.UNTRUSTED
        except aiohttp.ConnectionTimeoutError:
            return outcomes.connect_timeout(self.connect_timeout)
        except (TimeoutError, asyncio.TimeoutError):  # two before Python 3.11
            return outcomes.reply_timeout(self.timeout)
        except aiohttp.ClientConnectorError:
            return outcomes.NOT_CONNECTED
        except aiohttp.ClientHttpProxyError:
            return outcomes.REFUSED_BY_PROXY
        except (aiohttp.ClientConnectionError, ConnectionError, ssl.SSLError):
            return outcomes.CONNECTION_LOST
        except (aiohttp.InvalidURL, UnicodeError) as error:
            return outcomes.unaddressable(error)
        except (aiohttp.ClientError, ValueError) as error:
            return outcomes.protocol_error(error)


async def _note_sent(session: object, context: Any, params: object) -> None:
    """Note that a request has been sent, in the list that came with it."""
    context.trace_request_ctx.append(True)


def _proxy_of(site: str) -> str | None:
    """
    Return the proxy that the environment names for ``https://host:port``: the same one that requests takes.

    aiohttp's own ``trust_env`` would do, but adds what ~/.netrc holds for the host as an Authorization header.
    """
    proxy = requests.utils.select_proxy(site, requests.utils.get_environ_proxies(site))
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
