"""
One timeout for everything that a session does at a time: a timer for all its exchanges, not one for each.

Nothing of HTTP or ModelsLab is known here.
"""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Any, NamedTuple, cast


class SharedTimeout:
    """
    A context manager for any number of tasks at a time: a block that takes too long ends with a ``TimeoutError``.

    All blocks may take as long, so they run out of time in the order in which they began, and a timer for the oldest
    one does for all. A timer for each, as :func:`asyncio.timeout` sets it, is a tenth of what a poll costs.
    Blocks of one task must not be nested.

    :param seconds: how long a block may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._blocks: dict[asyncio.Task[Any], _Block] = {}
        self._late: dict[asyncio.Task[Any], _Block] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task that could be interrupted")
        loop = asyncio.get_running_loop()
        block = self._blocks[task] = _Block(loop.time() + self.seconds, _cancellations(task))
        if self._timer is None:
            self._timer = loop.call_at(block.end, self._interrupt)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        if self._blocks.pop(task, None) is not None:
            return
        block = self._late.pop(task)
        if _cancellations_but_one(task) <= block.cancellations and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Let go of the event loop; no block may be running."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _interrupt(self) -> None:
        """Interrupt the blocks whose time is over, and come again for the next."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, block in list(self._blocks.items()):
            if block.end > loop.time():
                self._timer = loop.call_at(block.end, self._interrupt)
                return
            self._late[task] = self._blocks.pop(task)
            task.cancel()


class _Block(NamedTuple):
    """When a block is to end, and how often its task had been cancelled before it began."""

    end: float
    cancellations: int


# Whoever else cancels a task is to be obeyed; before Python 3.11, nobody can tell.


def _cancellations(task: asyncio.Task[Any]) -> int:
    if sys.version_info >= (3, 11):
        return task.cancelling()
    return 0


def _cancellations_but_one(task: asyncio.Task[Any]) -> int:
    if sys.version_info >= (3, 11):
        return task.uncancel()
    return 0
