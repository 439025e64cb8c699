"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

_STEP = 0.01


def wait_until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    """Block until a condition holds; fail when it has not after ``timeout`` seconds, which is far too long."""
    pause = threading.Event()
    for _ in range(int(timeout / _STEP)):
        if condition():
            return
        pause.wait(_STEP)
    raise AssertionError("the condition did not come true")


async def await_until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    """As :func:`wait_until`, for code on an event loop."""
    await asyncio.to_thread(wait_until, condition, timeout)
