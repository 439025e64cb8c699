"""
Measure whether the ceiling holds, whether anybody starves, and how long the event loop is blocked.

Three scenes on one connection, over TLS, all of whose waits are due at once, as after a restart of the triggerer. In
the first, 5,000 waits share 10 requests a second for some minutes; recorded is when each request departs, before
anything is done to send it. In the others there is no ceiling, so that 5,000 waits are polled and finish as fast
as the machine can: as triggers with a single job, and as one trigger. A watchdog measures how long the event loop
keeps others waiting. For comparison, one garbage collection is measured among as many coroutines that only sleep.
``--frozen`` leaves what Airflow has loaded out of the collections, as the plugin in docs/costs.md does in a triggerer.

    python benchmarks/ceiling.py [--minutes 10] [--waits 5000] [--frozen]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from statistics import median
from typing import Any

from stand_in import StandIn, standing_in

CEILING = 10.0
STEP = 0.005


class Watchdog:
    """
    Measures how late a coroutine is that wants to run every few milliseconds.

    By the clock, other processes on the machine count, too; so the CPU time that the event loop's thread uses between
    two turns of the watchdog is told as well, and apart from it the longest garbage collection: its pauses grow with
    all that lives in the process, of which Airflow's modules are the most.
    """

    def __init__(self) -> None:
        self.late = self.busy = self.collecting = 0.0
        self._collected = self._collecting_since = 0.0

    async def watch(self) -> None:
        clock, cpu = time.perf_counter(), time.thread_time()
        while True:
            self._collected = 0.0
            await asyncio.sleep(STEP)
            clock_now, cpu_now = time.perf_counter(), time.thread_time()
            self.late = max(self.late, clock_now - clock - STEP)
            self.busy = max(self.busy, cpu_now - cpu - self._collected)
            clock, cpu = clock_now, cpu_now

    def collection(self, phase: str, info: dict[str, int]) -> None:
        """Take the time of garbage collections: a callback of ``gc``."""
        if phase == "start":
            self._collecting_since = time.thread_time()
            return
        seconds = time.thread_time() - self._collecting_since
        self._collected += seconds
        self.collecting = max(self.collecting, seconds)

    async def lateness(self) -> tuple[float, float, float]:
        """Return the greatest lateness, CPU time and collection since the last call, in milliseconds."""
        await asyncio.sleep(2 * STEP)  # its own turn, after what has just blocked it
        lateness = 1000 * self.late, 1000 * self.busy, 1000 * self.collecting
        self.late = self.busy = self.collecting = 0.0
        return lateness


@contextmanager
def watched() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    gc.callbacks.append(watchdog.collection)
    task = asyncio.create_task(watchdog.watch())
    yield watchdog
    task.cancel()
    gc.callbacks.remove(watchdog.collection)


async def waiting(singles: int, together: int) -> list[asyncio.Task[Any]]:
    """Start so many triggers with a single job, and one with so many jobs, one by one as Airflow's runner does."""
    from airflow_provider_modelslab.triggers import ModelsLabJobTrigger

    jobs = [{"id": str(number), "endpoint": "v6/images"} for number in range(singles + together)]
    now = time.time()

    async def payload(jobs: list[dict[str, str]]) -> Any:
        trigger = ModelsLabJobTrigger(
            modelslab_conn_id="modelslab_default", jobs=jobs, started=now - 3600, deadline=now + 1e6
        )
        async for event in trigger.run():
            return event.payload

    groups = [[job] for job in jobs[:singles]] + ([jobs[singles:]] if together else [])
    tasks = []
    for group in groups:
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(payload(group)))
    return tasks


@contextmanager
def departures() -> Iterator[list[tuple[float, str]]]:
    """Record the moment and the URL of each request that departs while the block runs."""
    from airflow_provider_modelslab._http.async_transport import Session

    recorded = []
    send = Session.send

    async def record(session: Session, request: Any, **options: Any) -> Any:
        recorded.append((time.monotonic(), request.url))
        return await send(session, request, **options)

    Session.send = record  # type: ignore[method-assign,assignment]
    yield recorded
    Session.send = send  # type: ignore[method-assign]


async def collection_among_sleepers(count: int) -> float:
    """Return the CPU seconds of a garbage collection among so many coroutines that only sleep."""
    tasks = [asyncio.create_task(asyncio.sleep(1e6)) for _ in range(count)]
    await asyncio.sleep(0)
    seconds = collection()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return seconds


async def under_the_ceiling(waits: int, seconds: float) -> tuple[list[tuple[float, str]], list[Any]]:
    """Run half of the waits as triggers of their own, half as one; return the departures and the lateness."""
    with watched() as watchdog, departures() as departed:
        tasks = await waiting(waits - waits // 2, waits // 2)
        await asyncio.sleep(10)
        lateness = [("start", await watchdog.lateness())]
        await asyncio.sleep(seconds - 10)
        lateness.append(("waiting", await watchdog.lateness()))
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    return departed, lateness


async def as_fast_as_can_be(server: StandIn, singles: int, together: int) -> list[Any]:
    """Run waits without a ceiling until each has been polled twice, then let all finish; return the lateness."""
    server.process()
    with watched() as watchdog:
        tasks = await waiting(singles, together)
        before = server.count.value
        while server.count.value - before < singles + together:
            await asyncio.sleep(0.05)
        lateness = [("start, all polled", await watchdog.lateness())]
        server.finish()
        payloads = await asyncio.gather(*tasks)
        lateness.append(("all finish", await watchdog.lateness()))
    if {payload["status"] for payload in payloads} != {"finished"}:
        raise RuntimeError("a wait did not end well")
    return lateness


def main() -> None:
    parser = argparse.ArgumentParser(description="Test the ceiling, the turns and the event loop under many waits.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--waits", type=int, default=5000)
    parser.add_argument("--frozen", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelslab-benchmark-home-") as home, standing_in() as server:
        os.environ.update(server.environment(home, CEILING))
        from airflow_provider_modelslab import triggers  # noqa: F401  importing Airflow is no part of it

        if options.frozen:
            gc.freeze()
        before = collection()
        sleepers = asyncio.run(collection_among_sleepers(options.waits))
        departed, lateness = asyncio.run(under_the_ceiling(options.waits, 60 * options.minutes))
        scenes = {f"{CEILING:g} requests/s": lateness}
        os.environ.update(server.environment(home))
        name = f"no ceiling, {options.waits} triggers"
        scenes[name] = asyncio.run(as_fast_as_can_be(server, options.waits, 0))
        scenes["no ceiling, one trigger"] = asyncio.run(as_fast_as_can_be(server, 0, options.waits))
    sys.stdout.write(table_of_departures(departed, options.waits) + "\n" + table_of_lateness(scenes))
    sys.stdout.write(
        f"\nA full garbage collection before the first wait: {1000 * before:.0f} ms; "
        f"among {options.waits} coroutines that only sleep: {1000 * sleepers:.0f} ms\n"
    )


def collection() -> float:
    """Return the CPU seconds of one full garbage collection of this process as it is."""
    before = time.thread_time()
    gc.collect()
    return time.thread_time() - before


def table_of_departures(departed: list[tuple[float, str]], waits: int) -> str:
    moments = sorted(moment for moment, _ in departed)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    polls = Counter(int(path.rpartition("/")[2]) for _, path in departed)
    first_seen: dict[int, float] = {}
    for moment, path in departed:
        first_seen.setdefault(int(path.rpartition("/")[2]), moment - moments[0])
    spans = [later - earlier for earlier, later in zip(moments, moments[10:], strict=False)]
    own = [polls[job] for job in range(waits - waits // 2)]
    shared = [polls[job] for job in range(waits - waits // 2, waits)]
    rows = {
        "requests": f"{len(moments)} in {moments[-1] - moments[0]:.0f} s",
        "most in any window of 1 s": f"{most_in_a_window(moments, 1.0)}",
        "most in any window of 10 s": f"{most_in_a_window(moments, 10.0)}",
        "shortest time from one to the tenth after it": f"{min(spans):.4f} s",
        "gap between requests: least, median": f"{1000 * min(gaps):.1f} ms, {1000 * median(gaps):.1f} ms",
        "jobs without a poll": f"{own.count(0) + shared.count(0)} of {waits}",
        "last first poll": f"after {max(first_seen.values()):.0f} s",
        "polls per job, triggers of a single job": f"{min(own)} to {max(own)}",
        "polls per job, the trigger of many": f"{min(shared)} to {max(shared)}",
    }
    return "| requests as they depart | |\n|---|---|\n" + "".join(
        f"| {name} | {value} |\n" for name, value in rows.items()
    )


def table_of_lateness(scenes: dict[str, list[Any]]) -> str:
    names = [
        "scene",
        "phase",
        "late by the clock, ms",
        "longest turn (CPU), ms",
        "longest garbage collection (CPU), ms",
    ]
    lines = [f"| {' | '.join(names)} |\n|---|---|---|---|---|\n"]
    for scene, phases in scenes.items():
        for phase, figures in phases:
            lines.append(f"| {scene} | {phase} | {' | '.join(f'{figure:.0f}' for figure in figures)} |\n")
    return "".join(lines)


def most_in_a_window(moments: list[float], seconds: float) -> int:
    """Return the greatest number of moments in any half-open window of this length."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


if __name__ == "__main__":
    main()
