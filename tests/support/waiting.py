"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

_STEP = 0.01


def wait_until(condition: Callable[[], bool], timeout: float = 300.0) -> None:
    """Block until a condition holds; fail when it has not after ``timeout`` seconds, which is far too long."""
    pause = threading.Event()
    for seconds in _steps(condition, timeout):
        pause.wait(seconds)


async def await_until(condition: Callable[[], bool], timeout: float = 300.0) -> None:
    """As :func:`wait_until`, on an event loop, so that the condition may ask what only the loop's own code may ask."""
    for seconds in _steps(condition, timeout):
        await asyncio.sleep(seconds)


def _steps(condition: Callable[[], bool], timeout: float) -> Iterator[float]:
    """Yield pauses until a condition holds. It counts pauses, not seconds, so a stalled machine does not use them up."""
    for _ in range(int(timeout / _STEP)):
        if condition():
            return
        yield _STEP
    raise AssertionError("the condition did not come true")
