"""Making a trigger and running it to its event, as a triggerer does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger
from tests.support.pacing import SimulatedClock
from tests.support.simulated_loop import run_simulated


def submitted(sandbox: Sandbox, count: int) -> list[dict[str, Any]]:
    """Submit jobs without a client; return them as a trigger's argument ``jobs``."""
    jobs = [sandbox.submit("v6/video/text2video", {"prompt": "a lighthouse at dusk"})["id"] for _ in range(count)]
    return [{"id": str(job), "endpoint": "v6/video"} for job in jobs]


def fetches(sandbox: Sandbox) -> int:
    """Return how many polls have come."""
    polls: int = sandbox.state()["requests"].get("fetch", 0)
    return polls


def make_trigger(jobs: list[dict[str, Any]], seconds: float = 3600.0, **arguments: Any) -> ModelsLabJobTrigger:
    """Return a trigger that has started now and polls without delay, unless other arguments are given."""
    now = ModelsLabJobTrigger.pacing.clock.wall()
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
    """As :func:`aevent_of`, on an event loop of its own: on simulated time, where the trigger's clock is simulated."""
    clock, work = trigger.pacing.clock, aevent_of(trigger)
    return run_simulated(clock, work) if isinstance(clock, SimulatedClock) else asyncio.run(work)
