"""The same run again, where Airflow has no memory of its own: under ``dag.test()``, also after a killed process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

import pendulum
import pytest

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.dag_runs import TEST_DAGS, Run, load_dags
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("airflow_database")

MOMENT = pendulum.datetime(2026, 11, 28, tz="UTC")

IN_A_PROCESS = """
import pendulum
from tests.support.dag_runs import TEST_DAGS, Run, load_dags
Run(load_dags(TEST_DAGS / "paid_once.py")["paid_once"], moment=pendulum.parse("2026-11-28T00:00:00Z"))
"""


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox whose jobs end when the test says so, with a ledger in a folder of the test."""
    with Sandbox(duration=float("inf"), queue_limit=None, slow_seconds=600) as sandbox:
        connection = json.loads(sandbox.connection)
        connection["extra"] = {"ledger_path": str(tmp_path / "ledger"), "requests_per_second": 100}
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
        yield sandbox


def run_again() -> Run:
    return Run(load_dags(TEST_DAGS / "paid_once.py")["paid_once"], moment=MOMENT)


def kill_when(there: Callable[[], bool]) -> None:
    """Run the DAG in a process of its own, and kill that as soon as something is there."""
    folder = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_PROCESS], cwd=folder, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        try:
            wait_until(there)
        finally:
            process.kill()


def let_an_hour_pass(ledger: Path) -> None:
    """No request takes that long: its intent counts as given up."""
    for file in ledger.rglob("*.json"):
        receipt = json.loads(file.read_text())
        earlier = datetime.fromisoformat(receipt["submitted_at"]) - timedelta(hours=1)
        file.write_text(json.dumps({**receipt, "submitted_at": earlier.isoformat()}))


def submissions(sandbox: Sandbox) -> int:
    count: int = sandbox.state()["requests"]["submit"]
    return count


def test_a_finished_task_that_runs_again_pays_nothing(held: Sandbox):
    finishing = Thread(target=lambda: (wait_until(lambda: len(held.jobs) == 2), held.finish_all()))
    finishing.start()
    first = run_again()
    finishing.join()
    assert first.state == "success", first.states
    again = run_again()
    assert again.state == "success", again.states
    assert again.xcom("draw") == first.xcom("draw")
    assert submissions(held) == 2


def test_a_process_killed_after_the_reply_has_paid_once(held: Sandbox):
    kill_when(lambda: held.state()["requests"].get("fetch", 0) > 0)
    assert submissions(held) == 2
    held.finish_all()
    run = run_again()
    assert run.state == "success", run.states
    assert len(run.xcom("draw")) == 2
    assert submissions(held) == 2


def test_a_process_killed_in_the_midst_of_a_request_has_paid_once(held: Sandbox, tmp_path: Path):
    held.script("submit", [None, "slow"])
    kill_when(lambda: len(held.jobs) == 2)
    held.finish_all()
    let_an_hour_pass(tmp_path / "ledger")
    run = run_again()
    assert run.state == "failed", run.states
    items = run.xcom("draw", "manifest")["items"]
    assert [item["status"] for item in items] == ["success", "failed"]
    assert "may have been billed" in items[1]["message"]
    assert submissions(held) == 2
