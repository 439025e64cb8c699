"""What a triggerer holds of long replies: little, whatever they echo."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.pacing import FAST, set_policy
from tests.support.raw_server import RawServer, reply
from tests.support.transport_faults import job_id_of
from tests.support.triggers import event_of, make_trigger

JOBS = 1000

# Just below and above what is read of a reply about a running job.
ECHOES = {
    "1 MB": {"init_image": "A" * 10**6},
    "2 MB": {"init_image": "A" * 2 * 10**6},
}


def memory(name: str) -> float:
    """Return a line of the kernel's account of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(value) / 1000


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's account of the process")
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_a_thousand_running_jobs_with_long_echoes_need_little_memory(raw_server: RawServer, monkeypatch, echo):
    extra = {"requests_per_second": 10_000}
    connection = {"conn_type": "modelslab", "host": raw_server.url, "password": "the-api-key-of-a-test", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    set_policy(monkeypatch, **FAST)
    running = reply({"status": "processing", "meta": echo})
    finished = reply({"status": "success", "output": ["https://cdn.example/a.png"], "meta": echo})
    polls: Counter[str] = Counter()

    def answer_to(request: bytes) -> bytes:
        polls[job_id_of(request)] += 1
        return running if polls[job_id_of(request)] == 1 else finished

    raw_server.answer_to = answer_to
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now
    before = memory("VmRSS")
    event = event_of(make_trigger([{"id": str(number), "endpoint": "v6/images"} for number in range(JOBS)], 600))
    assert memory("VmHWM") - before < 200
    assert {job["status"] for job in event["jobs"]} == {"success"}
    assert len(json.dumps(event)) < 10**6
