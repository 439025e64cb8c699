"""What real workers and a real triggerer send to a StatsD server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.metrics import DOCUMENTED, undocumented
from tests.support.statsd import StatsdServer
from tests.system.steps import check_run, wait_until_parked

DAG = "metered"


def polls(sandbox: Sandbox) -> int:
    return sum("/fetch/" in request.path for request in sandbox.requests)


@pytest.mark.selection(provokes_errors=True)
def test_every_documented_metric_arrives_and_nothing_else(
    airflow: AirflowInstance, statsd: StatsdServer, connected_sandbox: Callable[..., Sandbox], tmp_path: Path
):
    good = connected_sandbox("modelslab_well", duration=float("inf"))
    failing = connected_sandbox("modelslab_failing", duration=1.0, retry_after=10, faults={"failed": 1.0})
    failing.script("submit", ["rate_limit"])
    failing.script("fetch", ["rate_limit"] * 2)  # the worker may be the one to meet the first
    losing = connected_sandbox("modelslab_losing", duration=1.0)
    losing.script("submit", ["drop"])

    conf = {"folder": str(tmp_path)}
    well = airflow.trigger(DAG, {**conf, "connection": "modelslab_well"})
    bad = [
        airflow.trigger(DAG, {**conf, "connection": "modelslab_failing", "endpoint": "v9/future/make"}),
        airflow.trigger(DAG, {**conf, "connection": "modelslab_losing"}),
    ]
    wait_until_parked(airflow, DAG, well, "generate")
    before = polls(good)
    airflow.wait_until(lambda: polls(good) > before + 1, PATIENCE, "the triggerer does not poll")
    good.finish_all()
    check_run(airflow, DAG, well)
    assert [airflow.wait_for_run(DAG, run_id, PATIENCE) for run_id in bad] == ["failed", "failed"]

    def missing() -> set[str]:
        return DOCUMENTED - {sample.name for sample in statsd.samples}

    airflow.wait_until(lambda: len(missing()) == 0, PATIENCE, "not all metrics have come")
    samples = statsd.samples
    assert undocumented(samples) == []
    assert len({sample.tags["hostname"] for sample in samples if "hostname" in sample.tags}) == 1
    assert {sample.tags.get("endpoint") for sample in samples} >= {"v6/images", "other"}
    assert any(sample.name == "modelslab.jobs.failed" and sample.tags["reason"] == "failed" for sample in samples)
    (size,) = (file.stat().st_size for file in tmp_path.glob("*.png"))
    assert size in {sample.value for sample in samples if sample.name == "modelslab.outputs.bytes"}
