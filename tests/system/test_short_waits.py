"""Waits of a few seconds under a real scheduler, which has heard of a deferral before the task resumes."""

from __future__ import annotations

from airflow_instance import AirflowInstance

from tests.dags.short_waits import COUNT
from tests.system.steps import check_run


def test_no_task_that_waits_for_seconds_fails_without_retries(airflow: AirflowInstance, connected_sandbox):
    sandbox = connected_sandbox("modelslab_short", duration=5.0, duration_sigma=0.3, queue_limit=None)
    jobs = [sandbox.submit("v6/images/text2img", {"prompt": f"poster {number}"}) for number in range(COUNT)]
    run_id = airflow.trigger("short_waits", {"jobs": jobs})
    check_run(airflow, "short_waits", run_id)
    assert sandbox.state()["submissions"]["accepted"] == 2 * COUNT
