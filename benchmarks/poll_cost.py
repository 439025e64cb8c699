"""
What does a poll cost? CPU time of the client per poll, and polls per second, over TLS, side by side.

Every client waits for the same number of jobs that never get done, each in a process of its own, against the same
server in another process. "Saturated" lets all jobs be due all the time; "calm" is about 100 polls a second, evenly
spread, where each poll also pays for waking up the process.

    python benchmarks/poll_cost.py [--rounds 5] [--jobs 100]
    python benchmarks/poll_cost.py --clients ours metrics --rounds 20 --seconds 10     what metrics add
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from stand_in import KEY, PROCESSES, StandIn, standing_in

CONNECTIONS = 30
FOR_EVER = 1e9


@dataclass(frozen=True)
class Load:
    """
    How hard the clients work.

    :param interval: seconds between two polls of one job.
    :param seconds: how long is measured.
    :param ceiling: ``requests_per_second`` of our connection.
    """

    interval: float
    seconds: float
    ceiling: float


LOADS = {
    "saturated": Load(interval=0.01, seconds=4, ceiling=FOR_EVER),
    # The ceiling, a little above the rate, spreads the jobs of one trigger as the others are spread by their start.
    "calm": Load(interval=1.0, seconds=8, ceiling=110),
}


def started(waits: list[Callable[[], Coroutine[Any, Any, Any]]], interval: float) -> list[asyncio.Task[Any]]:
    """Start waits evenly over one interval, so that they do not all poll at the same moment."""

    async def later(wait: Callable[[], Coroutine[Any, Any, Any]], delay: float) -> None:
        await asyncio.sleep(delay)
        await wait()

    return [asyncio.create_task(later(wait, interval * number / len(waits))) for number, wait in enumerate(waits)]


async def exhausted(events: AsyncIterator[Any]) -> None:
    """Run a trigger, whose event means that it did not do what is measured."""
    async for event in events:
        raise RuntimeError(f"a trigger ended: {event}")


# --- the clients: each starts waits for so many jobs, which never end ----------------------------------------


def our_trigger(jobs: list[int], interval: float) -> Coroutine[Any, Any, None]:
    from airflow_provider_modelslab.triggers import ModelsLabJobTrigger

    now = time.time()
    trigger = ModelsLabJobTrigger(
        modelslab_conn_id="modelslab_default",
        jobs=[{"id": str(job), "endpoint": "v6/images"} for job in jobs],
        started=now,
        deadline=now + FOR_EVER,
        poke_interval=interval,
    )
    return exhausted(trigger.run())


def ours_single(jobs: int, interval: float, url: str) -> list[Any]:
    return started([partial(our_trigger, [job], interval) for job in range(jobs)], interval)


def ours_together(jobs: int, interval: float, url: str) -> list[Any]:
    return started([lambda: our_trigger(list(range(jobs)), interval)], interval)


def dbt_cloud(jobs: int, interval: float, url: str) -> list[Any]:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    def wait(job: int) -> Coroutine[Any, Any, None]:
        end = time.time() + FOR_EVER
        return exhausted(DbtCloudRunJobTrigger("dbt_cloud_default", job, end, interval, account_id=None).run())

    return started([partial(wait, job) for job in range(jobs)], interval)


def http_sensor(jobs: int, interval: float, url: str) -> list[Any]:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    def wait(job: int) -> Coroutine[Any, Any, None]:
        return exhausted(HttpSensorTrigger(endpoint=f"sensor/{job}", poke_interval=interval).run())

    return started([partial(wait, job) for job in range(jobs)], interval)


def requests_threads(jobs: int, interval: float, url: str) -> list[Any]:
    import requests

    def wait(job: int) -> None:
        time.sleep(interval * job / jobs)
        session = requests.Session()
        while True:
            reply = session.post(f"{url}/api/v6/images/fetch/{job}", json={"key": KEY}, timeout=30).json()
            assert reply["status"] == "processing"
            time.sleep(interval)

    threads = [threading.Thread(target=wait, args=(job,), daemon=True) for job in range(jobs)]
    for thread in threads:
        thread.start()
    return threads


def aiohttp_session(jobs: int, interval: float, url: str) -> list[Any]:
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS))

    async def wait(job: int) -> None:
        while True:
            async with session.post(f"{url}/api/v6/images/fetch/{job}", json={"key": KEY}) as response:
                assert (await response.json())["status"] == "processing"
            await asyncio.sleep(interval)

    return started([partial(wait, job) for job in range(jobs)], interval)


def bare_asyncio(jobs: int, interval: float, url: str) -> list[Any]:
    import ssl

    context = ssl.create_default_context()
    host, port = url.removeprefix("https://").split(":")
    idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(None)
    body = json.dumps({"key": KEY}).encode()

    async def wait(job: int) -> None:
        head = f"POST /api/v6/images/fetch/{job} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        while True:
            connection = await idle.get() or await asyncio.open_connection(host, int(port), ssl=context)
            reader, writer = connection
            writer.write(request)
            reply_head = await reader.readuntil(b"\r\n\r\n")
            length = int(reply_head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length))["status"] == "processing"
            idle.put_nowait(connection)
            await asyncio.sleep(interval)

    return started([partial(wait, job) for job in range(jobs)], interval)


CLIENTS: dict[str, tuple[str, Callable[[int, float, str], list[Any]]]] = {
    "ours": ("ours, one trigger per job", ours_single),
    "metrics": ("ours, one trigger per job, metrics sent to StatsD", ours_single),
    "ours together": ("ours, one trigger for all", ours_together),
    "dbt cloud": ("dbt Cloud provider, DbtCloudRunJobTrigger", dbt_cloud),
    "http": ("http provider, HttpSensorTrigger", http_sensor),
    "requests": ("requests, a session and a thread per job", requests_threads),
    "aiohttp": ("bare aiohttp, one shared session", aiohttp_session),
    "asyncio": ("bare asyncio, hand-written request", bare_asyncio),
}


# --- the measurement -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """CPU milliseconds per poll, and polls per second."""

    cost: float
    rate: float


def measure(client: str, load: Load, jobs: int, server: StandIn, result: Connection) -> None:
    """Measure one client under one load: what a process of its own does."""
    # All live where a trigger lives: garbage collections go through Airflow's modules, no matter what causes them.
    import_module("airflow_provider_modelslab.triggers")
    result.send(asyncio.run(_measured(CLIENTS[client][1], load, jobs, server)))
    result.close()
    os._exit(0)  # the waits do not end by themselves


async def _measured(start: Callable[[int, float, str], list[Any]], load: Load, jobs: int, server: StandIn) -> Measured:
    before = server.count.value
    waits = start(jobs, load.interval, server.url)
    while server.count.value - before < 3 * jobs:  # all connections are open, all code is warm
        await asyncio.sleep(0.1)
    count, cpu, clock = server.count.value, time.process_time(), time.perf_counter()
    await asyncio.sleep(load.seconds)
    count, cpu, clock = server.count.value - count, time.process_time() - cpu, time.perf_counter() - clock
    for wait in waits:
        if isinstance(wait, asyncio.Task) and wait.done():
            wait.result()
            raise RuntimeError("a wait ended")
    return Measured(1000 * cpu / count, count / clock)


def in_process(client: str, load: Load, jobs: int, server: StandIn, home: str, statsd: socket.socket) -> Measured:
    os.environ.update(server.environment(home, load.ceiling))
    host, port = statsd.getsockname()
    os.environ["AIRFLOW__METRICS__STATSD_ON"] = str(client == "metrics")
    os.environ |= {"AIRFLOW__METRICS__STATSD_HOST": host, "AIRFLOW__METRICS__STATSD_PORT": str(port)}
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=measure, args=(client, load, jobs, _without_control(server), sender))
    process.start()
    sender.close()
    try:
        measured: Measured = receiver.recv()
        return measured
    finally:
        process.join()


def _without_control(server: StandIn) -> StandIn:
    return StandIn(server.port, server.authority, server.count, None)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare what a poll costs.")
    parser.add_argument("--rounds", type=int, default=5, help="how often all is measured; medians are shown")
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--seconds", type=float, help="how long is measured each time, if not as long as by default")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    options = parser.parse_args()
    results: dict[tuple[str, str], list[Measured]] = {}
    loads = {name: replace(LOADS[name], seconds=options.seconds or LOADS[name].seconds) for name in options.loads}
    with (
        tempfile.TemporaryDirectory(prefix="modelslab-benchmark-home-") as home,
        standing_in() as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd,  # what nobody reads costs the sender the same
    ):
        statsd.bind(("127.0.0.1", 0))
        # Round by round, and every other one the other way round, so that other work of the machine affects all alike.
        for number in range(options.rounds):
            for client in options.clients[:: -1 if number % 2 else 1]:
                for name, load in loads.items():
                    measured = in_process(client, load, options.jobs, server, home, statsd)
                    results.setdefault((client, name), []).append(measured)
                    sys.stderr.write(f"round {number + 1}, {name}, {client}: {measured}\n")
    sys.stdout.write(table(results, options.clients, options.loads))


def table(results: dict[tuple[str, str], list[Measured]], clients: list[str], loads: list[str]) -> str:
    """Return the Markdown table: medians with their range, and ratios with their standard error."""
    lines = ["| client |", "|---|"]
    for name in loads:
        lines[0] += f" {name}: CPU ms per poll | times ours | polls/s |"
        lines[1] += "---|---|---|"
    for client in clients:
        cells = []
        for name in loads:
            measured = results[client, name]
            cells.append(_spread([one.cost for one in measured]))
            # Within one round: what disturbs it disturbs both.
            ours = results.get(("ours", name), [])
            cells.append(_mean([one.cost / own.cost for one, own in zip(measured, ours, strict=False)]))
            cells.append(f"{statistics.median(one.rate for one in measured):.0f}")
        lines.append(f"| {CLIENTS[client][0]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _mean(ratios: list[float]) -> str:
    if not ratios:
        return ""
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}"
    return f"{statistics.fmean(ratios):.3f} ± {statistics.stdev(ratios) / math.sqrt(len(ratios)):.3f}"


if __name__ == "__main__":
    main()
