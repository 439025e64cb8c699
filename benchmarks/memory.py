"""
Measure what a waiting job weighs, and how long waits take to start, in Airflow's own trigger runner.

For each kind of trigger a runner of its own is started (see runner.py), with one trigger of that kind in it, so that
all is imported, and its garbage has been collected; then its memory is compared with what it is when all others have
polled once and wait. The start of waits is measured from the moment at which the runner takes them up, which it does
once a second, until the server has seen each job's first poll.

    python benchmarks/memory.py [--waits 1000 10000] [--rounds 3]
    python benchmarks/memory.py --traced    # what Python has allocated, instead of the pages of memory in use
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stand_in import PROCESSES, StandIn, standing_in

INTERVAL = 3600.0
"""Seconds between two polls of one job: each polls once and then waits."""

STEP = 250
"""Triggers that are handed over at a time, so that memory is not that of thousands of first polls at once."""

Triggers = list[tuple[str, Mapping[str, Any]]]

OURS = "airflow_provider_modelslab.triggers.ModelsLabJobTrigger"


def our_trigger(jobs: range) -> tuple[str, Mapping[str, Any]]:
    now = time.time()
    return OURS, {
        "modelslab_conn_id": "modelslab_default",
        "jobs": [{"id": str(30_000_000 + job), "endpoint": "v6/images", "eta": 20.5} for job in jobs],
        "started": now - INTERVAL,  # the first poll is due at once, as the peers' is
        "deadline": now + 100 * INTERVAL,
        "poke_interval": INTERVAL,
    }


def ours_single(jobs: range) -> Triggers:
    return [our_trigger(range(job, job + 1)) for job in jobs]


def ours_together(jobs: range) -> Triggers:
    return [our_trigger(jobs)]


def dbt_cloud(jobs: range) -> Triggers:
    def arguments(job: int) -> dict[str, Any]:
        end = time.time() + 100 * INTERVAL
        return {"conn_id": "dbt_cloud_default", "run_id": job, "end_time": end, "poll_interval": INTERVAL}

    path = "airflow.providers.dbt.cloud.triggers.dbt.DbtCloudRunJobTrigger"
    return [(path, {**arguments(job), "account_id": None}) for job in jobs]


def http_sensor(jobs: range) -> Triggers:
    path = "airflow.providers.http.triggers.http.HttpSensorTrigger"
    return [(path, {"endpoint": f"sensor/{job}", "poke_interval": INTERVAL}) for job in jobs]


def sleeping(jobs: range) -> Triggers:
    return [("sleeping.SleepingTrigger", {}) for job in jobs]


WITHOUT_PORTALS = "AIRFLOW_DISABLE_GREENBACK_PORTAL"
"""The variable by which Airflow leaves out what lets a trigger call its synchronous code; ours never does."""

KINDS: dict[str, tuple[str, Callable[[range], Triggers]]] = {
    "sleeping": ("a trigger that only sleeps: Airflow's own share", sleeping),
    "ours": ("ours, one trigger per job", ours_single),
    "ours without portals": (f"ours, one trigger per job, with `{WITHOUT_PORTALS}=true`", ours_single),
    "ours together": ("ours, one trigger for all", ours_together),
    "dbt cloud": ("dbt Cloud provider, DbtCloudRunJobTrigger", dbt_cloud),
    "http": ("http provider, HttpSensorTrigger", http_sensor),
}


def measure(kind: str, waits: int, step: int, traced: bool, server: StandIn, result: Connection) -> None:
    """Start waits of one kind and send the seconds that took and the bytes per job: what a process of its own does."""
    if traced:
        tracemalloc.start()  # the runner's process is forked from this one, and goes on with it
    import logging

    from runner import running

    logging.disable(logging.CRITICAL)
    if kind == "ours without portals":
        os.environ[WITHOUT_PORTALS] = "true"
    make = KINDS[kind][1]
    with running() as runner:
        _start(runner, make(range(1)), 1, kind, server)
        _start(runner, [("sleeping.CollectingTrigger", {})], 1, "sleeping", server)
        memory = _memory(runner, traced)
        seconds = 0.0
        for first in range(1, waits + 1, step):
            jobs = range(first, min(first + step, waits + 1))
            seconds += _start(runner, make(jobs), len(jobs), kind, server)
        pause = time.monotonic() + 3  # two turns of the runner's own loop
        runner.work_until(lambda: time.monotonic() > pause)
        result.send((seconds, (_memory(runner, traced) - memory) / waits))
    result.close()


def _memory(runner: Any, traced: bool) -> int:
    """Return the bytes of memory that the runner's process has in use, or that Python has allocated in it."""
    if not traced:
        return int(runner.memory())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bytes")
        runner.start([("sleeping.TracingTrigger", {"file": str(file)})])
        runner.work_until(lambda: file.exists() and file.read_text().endswith("\n"))
        return int(file.read_text())


def _start(runner: Any, triggers: Triggers, jobs: int, kind: str, server: StandIn) -> float:
    """Start triggers, and return the seconds until each of their jobs has been polled."""
    before = server.count.value
    runner.start(triggers)
    runner.work_until(lambda: runner.has_taken_all)
    begin = time.perf_counter()
    if kind == "sleeping":  # nobody sees them start: the runner asks for more when it has started them
        turn = time.monotonic() + 1.5
        runner.work_until(lambda: time.monotonic() > turn)
    else:
        runner.work_until(lambda: server.count.value - before >= jobs)
    return time.perf_counter() - begin


def in_process(
    kind: str, waits: int, step: int, server: StandIn, home: str, *, traced: bool = False
) -> tuple[float, float]:
    os.environ.update(server.environment(home))
    receiver, sender = PROCESSES.Pipe(duplex=False)
    visible = StandIn(server.port, server.authority, server.count, None)  # type: ignore[arg-type]
    process = PROCESSES.Process(target=measure, args=(kind, waits, step, traced, visible, sender))
    process.start()
    sender.close()
    try:
        measured: tuple[float, float] = receiver.recv()
    finally:
        process.join()
    sys.stderr.write(f"{kind}, {waits} waits: {measured[0]:.2f} s, {measured[1]:.0f} bytes per job\n")
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the memory and the start of waits.")
    parser.add_argument("--waits", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3, help="how often the start is measured; medians are shown")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--traced", action="store_true", help="measure what Python has allocated, and no start")
    options = parser.parse_args()
    memory: dict[tuple[str, int], float] = {}
    start: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="modelslab-benchmark-home-") as home, standing_in() as server:
        for _ in range(0 if options.traced else options.rounds):
            for kind in options.kinds:
                if kind != "sleeping":
                    start.setdefault(kind, []).append(in_process(kind, 1000, 1000, server, home)[0])
        for waits in options.waits:
            for kind in options.kinds:
                step = waits if kind == "ours together" else STEP
                memory[kind, waits] = in_process(kind, waits, step, server, home, traced=options.traced)[1]
    sys.stdout.write(table(memory, start, options.waits, options.kinds))


def table(
    memory: dict[tuple[str, int], float], start: dict[str, list[float]], sizes: list[int], kinds: list[str]
) -> str:
    names = ["waits", *(f"KB per job, {waits:,} waiting" for waits in sizes), "start of 1,000 waits, s", "times ours"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    ours = start.get("ours", [])
    for kind in kinds:
        cells = [KINDS[kind][0], *(f"{memory[kind, waits] / 1000:.1f}" for waits in sizes)]
        if seconds := start.get(kind, []):
            cells.append(f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})")
            ratios = [one / own for one, own in zip(seconds, ours, strict=False)]
            cells.append(f"{statistics.median(ratios):.1f}" if ratios else "")
        else:
            cells += ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
