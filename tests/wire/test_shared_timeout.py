"""The timeout that a session's exchanges share."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from airflow_provider_modelslab._http.shared_timeout import SharedTimeout


async def seconds_until_interrupted(timeout: SharedTimeout) -> float:
    begin = time.monotonic()
    with pytest.raises(TimeoutError), timeout:
        await asyncio.Event().wait()
    return time.monotonic() - begin


async def nothing() -> None:
    pass


def test_each_block_has_its_own_time():
    async def scenario() -> list[float]:
        timeout = SharedTimeout(0.2)

        async def begin_after(seconds: float) -> float:
            await seconds_until_interrupted(SharedTimeout(seconds))
            return await seconds_until_interrupted(timeout)

        return await asyncio.gather(*(begin_after(number / 20) for number in range(8)))

    assert all(0.2 <= seconds < 2 for seconds in asyncio.run(scenario()))


def test_one_timer_serves_all_blocks(monkeypatch):
    async def scenario() -> list[float]:
        loop = asyncio.get_running_loop()
        set_timer, moments = loop.call_at, []
        monkeypatch.setattr(loop, "call_at", lambda when, *args: moments.append(when) or set_timer(when, *args))
        timeout = SharedTimeout(60)
        for _ in range(1000):
            with timeout:
                await asyncio.create_task(nothing())
        timeout.close()
        return moments

    assert len(asyncio.run(scenario())) == 1


def test_a_block_in_time_is_left_alone_and_so_is_what_its_task_does_next():
    async def scenario() -> str:
        timeout = SharedTimeout(0.05)
        with timeout:
            await asyncio.create_task(nothing())
        await seconds_until_interrupted(timeout)
        return "undisturbed"

    assert asyncio.run(scenario()) == "undisturbed"


def test_a_task_may_go_on_after_its_block_was_interrupted():
    async def scenario() -> int:
        timeout = SharedTimeout(0.01)
        for _ in range(3):
            await seconds_until_interrupted(timeout)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling() if sys.version_info >= (3, 11) else 0

    assert asyncio.run(scenario()) == 0


def test_who_else_cancels_the_task_is_obeyed():
    async def block(timeout: SharedTimeout, entered: asyncio.Event) -> None:
        with timeout:
            entered.set()
            await asyncio.Event().wait()

    async def scenario() -> None:
        entered = asyncio.Event()
        task = asyncio.create_task(block(SharedTimeout(60), entered))
        await entered.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="nobody can tell who has cancelled a task before Python 3.11")
@pytest.mark.parametrize("timeout_first", [True, False])
def test_who_else_cancels_the_task_is_obeyed_at_the_last_moment(timeout_first: bool):
    async def block(timeout: SharedTimeout, entered: asyncio.Event) -> None:
        with timeout:
            entered.set()
            await asyncio.Event().wait()

    async def scenario() -> None:
        timeout, entered = SharedTimeout(60), asyncio.Event()
        task = asyncio.create_task(block(timeout, entered))
        await entered.wait()
        steps = [lambda: interrupt_all(timeout), task.cancel]
        for step in steps if timeout_first else reversed(steps):
            step()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())


def interrupt_all(timeout: SharedTimeout) -> None:
    for task, block in timeout._blocks.items():
        timeout._blocks[task] = block._replace(end=0.0)
    timeout._interrupt()


def test_a_result_in_the_last_moment_does_not_leave_the_task_interrupted():
    """The interruption of a task that is about to go on reaches it at its next step, inside the block or not at all."""

    async def scenario() -> str:
        timeout = SharedTimeout(60)
        ready, entered = asyncio.get_running_loop().create_future(), asyncio.Event()

        async def block() -> str:
            try:
                with timeout:
                    entered.set()
                    await ready
            except TimeoutError:
                return "interrupted"
            return "done"

        task = asyncio.create_task(block())
        await entered.wait()
        ready.set_result(None)
        interrupt_all(timeout)
        return await task

    assert asyncio.run(scenario()) == "interrupted"


def test_errors_of_a_block_come_out_as_they_are():
    async def scenario() -> None:
        with SharedTimeout(60):
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        asyncio.run(scenario())
