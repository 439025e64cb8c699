"""Making a trigger and running it to its event, as a triggerer does."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from airflow_provider_modelslab.triggers import ModelsLabJobTrigger


def make_trigger(jobs: list[dict[str, Any]], seconds: float = 60.0, **arguments: Any) -> ModelsLabJobTrigger:
    """Return a trigger that has started now and polls without delay, unless other arguments are given."""
    now = time.time()
    defaults = {
        "modelslab_conn_id": "modelslab_default",
        "started": now,
        "deadline": now + seconds,
        "poke_interval": 0.01,
    }
    return ModelsLabJobTrigger(jobs=jobs, **{**defaults, **arguments})


async def aevent_of(trigger: Any) -> dict[str, Any]:
    """Run a trigger to its end; return its only event, as it comes out of the database."""
    (event,) = [event async for event in trigger.run()]
    return json.loads(json.dumps(event.payload, allow_nan=False))


def event_of(trigger: Any) -> dict[str, Any]:
    """As :func:`aevent_of`, on an event loop of its own."""
    return asyncio.run(aevent_of(trigger))
