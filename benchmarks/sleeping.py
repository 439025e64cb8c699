"""A trigger that does nothing but wait: what a wait costs in Airflow's runner before anybody polls anything."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class SleepingTrigger(BaseTrigger):
    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "sleeping.SleepingTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(1e9)
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]


class CollectingTrigger(SleepingTrigger):
    """Collects what garbage there is in the runner, so that no measurement pays for what came before it."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        gc.collect()
        async for event in super().run():
            yield event


class TracingTrigger(SleepingTrigger):
    """
    Writes to a file how many bytes Python has allocated in the runner and not freed.

    :param file: the path.
    """

    def __init__(self, file: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.file = file

    async def run(self) -> AsyncIterator[TriggerEvent]:
        gc.collect()
        allocated, _ = tracemalloc.get_traced_memory()
        await asyncio.to_thread(Path(self.file).write_text, f"{allocated}\n")
        async for event in super().run():
            yield event
