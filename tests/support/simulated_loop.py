"""An event loop on simulated time over real sockets: hours of waiting pass in the time that the requests take."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from airflow_provider_modelslab._http import async_transport
from tests.support.pacing import SimulatedClock

_SLICE = 0.02
"""Seconds of real time for which a loop with something under way looks for its end at a time."""

_TURN = 1e-6
"""Seconds that a turn of the loop takes at the least: so little that floats still tell the difference."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """
    Moves a clock to the next timer whenever nothing is under way: no thread at work, and no request that awaits a reply.

    :param clock: the clock.
    :ivar requests: how many requests await their replies; those who send them count.
    """

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__(_Selector(self))
        self.clock = clock
        self.requests = 0
        self.threads = 0

    def time(self) -> float:
        return self.clock.monotonic()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(lambda _: setattr(self, "threads", self.threads - 1))
        return future


_Result = TypeVar("_Result")


def run_simulated(clock: SimulatedClock, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine that sends requests, on simulated time."""
    loop = SimulatedLoop(clock)
    send = async_transport.Session.send

    async def counted(*args: Any, **options: Any) -> Any:
        loop.requests += 1
        try:
            return await send(*args, **options)
        finally:
            loop.requests -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(async_transport.Session, "send", counted)
        try:
            return loop.run_until_complete(work)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select()
        under_way = self._loop.requests or self._loop.threads
        events = super().select(min(timeout, _SLICE) if under_way else 0)
        if not events and not under_way:
            self._loop.clock.move(max(timeout, _TURN))
        return events
