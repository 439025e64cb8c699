"""Waits of a few seconds under a real scheduler, which has heard of a deferral before the task resumes."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from airflow_instance import AirflowInstance

from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sandbox import Sandbox
from tests.dags.short_waits import COUNT

SETTLING = timedelta(seconds=ModelsLabHook.pacing.policy.settling)
"""What a scheduler has to hear of a deferral; the tests of this process do without, the tasks do not."""


def moments(log: str, *words: str) -> list[datetime]:
    """Return when a log has lines with all these words; each line begins with its time."""
    times = [
        re.match(r"\[?(\S+?)(Z|\+0000|\+00:00)\b", line) for line in log.splitlines() if all(map(line.count, words))
    ]
    return [datetime.fromisoformat(f"{time[1]}+00:00") for time in times if time]


def is_heard_in_time(airflow: AirflowInstance, task: dict[str, Any]) -> bool:
    """Tell whether the scheduler has heard of a task's deferral while no event may come, or there was none."""
    log = airflow.task_log(task["dag_id"], task["dag_run_id"], task["task_id"], map_index=task["map_index"])
    key = f"task_id={task['task_id']!r}, run_id={task['dag_run_id']!r}, try_number=1, map_index={task['map_index']})"
    deferred = moments(log, "Deferring: ")
    heard = moments(airflow.component_log("scheduler"), "Received executor event with state success", key)
    return not deferred or not heard or heard[0] - deferred[0] < SETTLING


def test_no_task_that_waits_for_seconds_fails_without_retries(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox]
):
    sandbox = connected_sandbox("modelslab_short", duration=5.0, duration_sigma=0.3, queue_limit=None)
    jobs = [sandbox.submit("v6/images/text2img", {"prompt": f"poster {number}"}) for number in range(COUNT)]
    run_id = airflow.trigger("short_waits", {"jobs": jobs})
    airflow.wait_for_run("short_waits", run_id)
    failed = [task for task in airflow.task_instances("short_waits", run_id) if task["state"] != "success"]
    # A scheduler that hears of deferrals later than anybody may expect, on a busy machine, fails tasks itself.
    assert not [task for task in failed if is_heard_in_time(airflow, task)], airflow.failures("short_waits", run_id)
    assert sandbox.state()["submissions"]["accepted"] == 2 * COUNT
