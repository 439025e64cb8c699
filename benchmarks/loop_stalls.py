"""
How long does a hostile reply hold up an event loop? CPU time between two turns of the loop while a thread reads one.

Counted in CPU time of the process, so that a busy machine does not change it: what another thread computes while the
loop waits for its turn is what holds it up.

    python benchmarks/loop_stalls.py
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab._protocol.replies import read_fetch_reply
from airflow_provider_modelslab.jobs import Job

KEY = "_" * 20 + "Kq7ZpX2mVb9TrLw4"
MIB = 2**20


def output(filler: bytes) -> bytes:
    """Return a reply with one output."""
    return b'{"status": "success", "output": ["' + filler + b'"]}'


BODIES = {
    "a picture of 28 MiB": output(b"QUJD" * (7 * MIB)),
    "its slashes escaped": output((b"A" * 60 + b"\\/") * (MIB // 2)),
    "backslashes": output(b"\\\\" * (15 * MIB)),
    "60,000 backslashes": json.dumps({"status": "processing", "message": "\\" * 60_000}).encode(),
    "escaped letters": output(b"\\u0041" * (5 * MIB)),
    "percents": output(b"%41" * (10 * MIB)),
    "beginnings of the key": output(b"_" * (30 * MIB)),
    "parts of the key": output(KEY[:15].encode() * (2 * MIB)),
    "empty lists": b'{"status": "processing", "meta": {"a": [' + b"[]," * 99_000 + b"1]}}",
    "100,000 fields": json.dumps({f"{number:x}": number % 10 for number in range(100_000)}).encode(),
    "deep lists": b'{"a": ' + b"[" * 100_000,
    "a number without end": b'{"a": 0.' + b"1" * (30 * MIB) + b"}",
    "blanks without end": b'{"a": 1' + b" " * (30 * MIB) + b"}",
}


async def longest_stall(body: bytes) -> tuple[float, float, str]:
    """Return the longest stall and the whole time in seconds, and what the reply means."""
    longest, reading = 0.0, True

    async def beat() -> None:
        nonlocal longest
        last = time.process_time()
        while reading:
            await asyncio.sleep(0.001)
            now = time.process_time()
            longest, last = max(longest, now - last), now

    heart = asyncio.ensure_future(beat())
    await asyncio.sleep(0.05)
    longest, started = 0.0, time.process_time()
    reply = await asyncio.to_thread(read_fetch_reply, HttpReply(200, body), Job("1", "v6/video"), KEY)
    seconds, reading = time.process_time() - started, False
    await heart
    return longest, seconds, reply.verdict.name


def main() -> None:
    """Print the table."""
    sys.stdout.write(f"{'reply':24} {'MiB':>6} {'CPU to read':>12} {'longest stall':>14}   verdict" + "\n")
    for name, body in BODIES.items():
        longest, seconds, verdict = asyncio.run(longest_stall(body))
        sys.stdout.write(
            f"{name:24} {len(body) / MIB:6.1f} {seconds:10.2f} s {longest * 1000:11.0f} ms   {verdict}" + "\n"
        )


if __name__ == "__main__":
    main()
