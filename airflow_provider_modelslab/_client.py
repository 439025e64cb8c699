"""
The client: an API key, options and a transport. It polls, submits and asks for the balance.

:class:`Client` serves workers and :class:`AsyncClient` event loops. Both only send what the pure functions below
build, and hand the bytes that come back to the same functions. A client raises nothing for what a network can do, and
repeats nothing: its callers do, each at its own pace.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import urlsplit

from airflow_provider_modelslab._http.connection import ClientOptions
from airflow_provider_modelslab._protocol.assets import Asset, assets_request, read_assets_reply
from airflow_provider_modelslab._protocol.http_request import HttpRequest
from airflow_provider_modelslab._protocol.kinds import ask_request, cancel_request
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply
from airflow_provider_modelslab._protocol.replies import (
    Balance,
    Reply,
    read_balance_reply,
    read_count_reply,
    read_fetch_reply,
)
from airflow_provider_modelslab._protocol.submissions import Submission
from airflow_provider_modelslab.endpoints import api_url
from airflow_provider_modelslab.jobs import Job

if TYPE_CHECKING:
    import ssl

LONG_BODY = 16 * 2**10
"""Bytes of a reply from which on reading it would hold up an event loop."""

_log = logging.getLogger(__name__)

_Read = TypeVar("_Read")


# The transports are imported when a client is made: parsing a DAG needs neither requests nor aiohttp.


def create_ssl_context(options: ClientOptions) -> ssl.SSLContext | None:
    """
    Return the certificates that the connection trusts; ``None`` without TLS. Reads a long file.

    :raises ValueError: ``ca_bundle``, or the environment, names no certificates.
    """
    from airflow_provider_modelslab._http import tls

    return None if (options.base_url or "").startswith("http://") else tls.create_ssl_context(options.ca_bundle)


class Client:
    """
    A client for worker code. Several threads may use it.

    :param options: key, host and limits.
    """

    def __init__(self, options: ClientOptions) -> None:
        from airflow_provider_modelslab._http import sync_transport

        self.options = options
        self._transport = sync_transport
        self._ssl_context = create_ssl_context(options)
        self._session = sync_transport.open_session(self._ssl_context)

    def poll(self, job: Job) -> Reply:
        """Ask for a job with one request."""
        return self._send(_poll(job, self.options))

    def submit(self, submission: Submission) -> Reply:
        """Submit a generation with one request."""
        # A connection that was kept alive may die with the request half sent: then it is unknown whether it arrived.
        return self._send_apart(_submit(submission, self.options))

    def cancel(self, job: Job) -> Reply:
        """
        Cancel a job with one request.

        :raises ValueError: see :func:`~airflow_provider_modelslab._protocol.kinds.cancel_request`.
        """
        # Airflow kills a task by a signal, perhaps amid another request.
        return self._send_apart(_cancel(job, self.options))

    def upload(self, data: str) -> Reply:
        """Upload a file, as a ``data:`` URL, with one request; the output of the reply's job is where it is then."""
        return self._send(_upload(data, self.options))

    def balance(self) -> Balance:
        """Ask for the account's balance."""
        return self._send(_balance(self.options))

    def count(self) -> int | None:
        """Ask how many of the account's requests are in flight; ``None`` where ModelsLab does not tell."""
        return self._send(_count(self.options))

    def assets(self, path: str) -> list[Asset] | None:
        """Ask for the account's newest outputs of an endpoint's kind; ``None`` where ModelsLab does not tell."""
        return self._send(_assets(path, self.options))

    def _send_apart(self, call: _Call[_Read]) -> _Read:
        """Send a request over a connection of its own."""
        with self._transport.open_session(self._ssl_context) as session:
            return call.reply(self._transport.send(session, call.request, self.options.request_timeout))

    def _send(self, call: _Call[_Read]) -> _Read:
        timeout = self.options.request_timeout
        return call.reply(self._transport.send(self._session, call.request, timeout, cut_running=call.cut_running))


class AsyncClient:
    """
    A client for event loops. Its opener closes it.

    :param options: key, host and limits. They may be replaced, for example after a change of the key, by others for
        the same host.
    :param ssl_context: what :func:`create_ssl_context` returns.
    """

    def __init__(self, options: ClientOptions, ssl_context: ssl.SSLContext | None) -> None:
        from airflow_provider_modelslab._http import async_transport

        self.options = options
        self._session = async_transport.Session(options.request_timeout, ssl_context)
        self._reading = asyncio.Lock()

    @classmethod
    async def open(cls, options: ClientOptions) -> AsyncClient:
        """
        Return a client, made without holding up the event loop.

        :raises ValueError: see :func:`create_ssl_context`.
        """
        await asyncio.to_thread(import_module, f"{__package__}._http.async_transport")  # aiohttp takes long
        return cls(options, await asyncio.to_thread(create_ssl_context, options))

    async def poll(self, job: Job) -> Reply:
        """Ask for a job with one request."""
        return await self._send(_poll(job, self.options))

    async def submit(self, submission: Submission) -> Reply:
        """Submit a generation with one request, as the first one of this client: see :meth:`Client.submit`."""
        return await self._send(_submit(submission, self.options))

    async def cancel(self, job: Job) -> Reply:
        """Cancel a job with one request; see :meth:`Client.cancel`."""
        return await self._send(_cancel(job, self.options))

    async def close(self) -> None:
        """Close all connections."""
        await self._session.client.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, call: _Call[_Read]) -> _Read:
        received = await self._session.send(call.request, cut_running=call.cut_running)
        if isinstance(received, HttpReply) and len(received.body) > LONG_BODY:
            async with self._reading:  # one at a time: the more threads compute, the later each gets its turn
                return await asyncio.to_thread(call.reply, received)
        return call.reply(received)


# --- the calls ------------------------------------------------------------------------------------------


@dataclass(slots=True)  # a frozen one takes three times as long to make, and there is one for each poll
class _Call(Generic[_Read]):
    """What to send where, and how to read the reply."""

    request: HttpRequest
    read: Callable[[HttpReply | NoReply], _Read]
    cut_running: bool = False

    def reply(self, received: HttpReply | NoReply) -> _Read:
        """Read the outcome of the request; one without a reply names the host that was asked."""
        if isinstance(received, NoReply):
            received = NoReply(f"{received.reason} (host {urlsplit(self.request.url).netloc})", received.sent)
        return self.read(received)


def _poll(job: Job, options: ClientOptions) -> _Call[Reply]:
    def read(received: HttpReply | NoReply) -> Reply:
        reply = read_fetch_reply(received, job, options.key)
        _log.debug("Polled job %s: %s", job, reply.verdict.value)
        return reply

    return _Call(ask_request(job, options.key, options.base_url), read, cut_running=True)


def _submit(submission: Submission, options: ClientOptions) -> _Call[Reply]:
    request = submission.request(options.key, options.base_url)
    return _Call(request, lambda received: submission.read(received, options.key, options.base_url))


def _cancel(job: Job, options: ClientOptions) -> _Call[Reply]:
    return _Call(cancel_request(job, options.key, options.base_url), partial(_read_outcome, key=options.key))


def _upload(data: str, options: ClientOptions) -> _Call[Reply]:
    url = api_url("v6/base64_to_url", base_url=options.base_url)
    request = HttpRequest(url, {"key": options.key, "base64_string": data})
    return _Call(request, partial(_read_outcome, key=options.key))


def _read_outcome(received: HttpReply | NoReply, key: str) -> Reply:
    """Read the reply to a request that is about no job."""
    return read_fetch_reply(received, Job(id="", endpoint=""), key)


def _balance(options: ClientOptions) -> _Call[Balance]:
    url = api_url("wallet_balance", base_url=options.base_url)
    request = HttpRequest(url, {"key": options.key})
    return _Call(request, lambda received: read_balance_reply(received, options.key))


def _assets(path: str, options: ClientOptions) -> _Call[list[Asset] | None]:
    request = assets_request(path, options.key, options.base_url)
    return _Call(request, lambda received: read_assets_reply(received, options.key))


def _count(options: ClientOptions) -> _Call[int | None]:
    url = api_url("v6/processing/request_count", base_url=options.base_url)
    request = HttpRequest(url, {"key": options.key})
    return _Call(request, lambda received: read_count_reply(received, options.key))
