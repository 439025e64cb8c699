"""
Carries bytes between sockets and the sandbox: an aiohttp server with an event loop and a thread of its own.

It knows nothing about ModelsLab. A function that it is handed makes the replies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from threading import Thread
from typing import Any

import aiohttp
from aiohttp import web

from airflow_provider_modelslab.sandbox.http import ReceivedRequest, Reply

logger = logging.getLogger(__name__)

# Pictures may be submitted inside the JSON, as base64.
_MAX_BODY = 64 * 1024 * 1024

# A reply that is being delayed on purpose must not delay the end of the server.
_SHUTDOWN_SECONDS = 0.1


class Server:
    """
    An HTTP server in a background thread. Once stopped it can be started again, on the same port.

    :param respond: returns the reply to a request; called in the server's thread, with the request and the base URL
        under which the client sees the server.
    :param host: the address to listen on.
    :param port: the port; 0 for any free one.
    """

    def __init__(self, respond: Callable[[ReceivedRequest, str], Reply], host: str, port: int) -> None:
        self._respond = respond
        self._host = host
        self._port = port
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._session: aiohttp.ClientSession
        self._stopping: asyncio.Event
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        return self._thread is not None

    @property
    def url(self) -> str:
        """
        The address of the server as this machine sees it, without a slash at the end.

        :raises RuntimeError: it is to listen on any free port, and has not been started yet.
        """
        if self._port == 0:
            raise RuntimeError("the sandbox has no address yet: it has not been started")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - nothing is bound here
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def start(self) -> None:
        """
        Listen.

        :raises OSError: the address is not available, for example because another program listens there.
        :raises RuntimeError: it is listening already.
        """
        if self._thread is not None:
            raise RuntimeError("the sandbox is running already")
        listening: Future[tuple[str, int]] = Future()
        thread = Thread(target=lambda: asyncio.run(self._serve(listening)), name="modelslab-sandbox", daemon=True)
        thread.start()
        self._host, self._port = listening.result()
        self._thread = thread

    def stop(self) -> None:
        """Close all connections and end the thread; nothing happens if it is not running."""
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call a function in the server's thread after a while; from any thread."""
        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, callback)

    def spawn(self, send: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine in the server's thread, with the server's client session; from any thread."""
        self._loop.call_soon_threadsafe(self._spawn, send)

    def _spawn(self, send: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(send(self._session))
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, listening: Future[tuple[str, int]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except Exception as error:
            listening.set_exception(error)
        else:
            async with aiohttp.ClientSession() as self._session:
                listening.set_result(runner.addresses[0][:2])
                await self._stopping.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        received = ReceivedRequest(
            method=request.method,
            path=request.path_qs,
            headers=request.headers,
            body=await request.read(),
            at=time.monotonic(),
        )
        reply = self._respond(received, f"{request.scheme}://{request.host}")
        note = "" if reply.sent == "all" else f" ({reply.sent} sent)"
        logger.info("%s %s %s%s", request.method, request.rel_url.raw_path, reply.status, note)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        return await _send(request, reply)


async def _send(request: web.Request, reply: Reply) -> web.StreamResponse:
    if reply.sent == "all":
        headers = {"Cache-Control": f"max-age={reply.max_age}"} if reply.max_age else None
        return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type, headers=headers)
    response = web.StreamResponse(status=reply.status)
    response.content_type = reply.content_type
    response.content_length = len(reply.body)
    if reply.sent == "part":
        await response.prepare(request)
        await response.write(reply.body[: len(reply.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
