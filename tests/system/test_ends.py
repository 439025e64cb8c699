"""How deferred waits end when it is not by a plain success: limits of time, failed jobs, and people who step in."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any, NamedTuple

import pytest
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_4_PLUS,
)
from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.dags.ends import LIMITS, SENSORS
from tests.system.steps import (
    REMEMBERS,
    asked_for,
    jobs_of_prompt,
    said_of_trigger,
    submit,
    urls_of,
    wait_for_end,
    wait_until_asked_for,
    wait_until_parked,
)

DAG = "ends"

RESUMED = "scheduled_when" if AIRFLOW_V_3_0_PLUS else "queued_when"
"""
When a deferred wait has ended: the triggerer has put the task on schedule again.

Airflow 2 has no such moment; it has that of the next step.
"""

DEFERRED = "Deferring: 0 of 1 job done"

EARLY = {"timeout": 0, "execution_timeout": 1 if AIRFLOW_V_3_0_PLUS else 20, "soft_fail": 0}
"""Seconds by which each limit may be anticipated, at the most: so the task ends by itself, and not by Airflow."""

BACKSTOP = 120
"""Seconds after a limit when Airflow itself would end the deferral."""

KEEPING = {"keep_task_state": True} if AIRFLOW_V_3_4_PLUS else {}
"""What Airflow 3.4 asks at a clear; 3.3 always keeps the state, and earlier releases have none."""


class Run(NamedTuple):
    id: str
    jobs: dict[str, int]


@pytest.fixture(scope="module")
def run(installation: AirflowInstance, held_sandbox: Sandbox) -> Run:
    """One run for all tests here: their tasks do not disturb one another, and wait at the same time."""
    installation.restore()
    jobs = dict(zip(SENSORS, submit(held_sandbox, len(SENSORS)), strict=True))
    return Run(installation.trigger(DAG, {"jobs": jobs}), jobs)


def trigger_id(airflow: AirflowInstance, run: Run, task_id: str) -> int:
    return airflow.task_instance(DAG, run.id, task_id)["trigger"]["id"]


def wait_until_trigger_is_gone(airflow: AirflowInstance, trigger: int) -> None:
    def gone() -> bool:
        return not airflow.database.sql("SELECT id FROM trigger WHERE id = :id", id=trigger)

    airflow.wait_until(gone, PATIENCE, f"trigger {trigger} is still there")


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def was_on_worker_too_late(task: dict[str, Any], log: str) -> bool:
    """
    Tell whether a machine was so busy that Airflow itself could end a task by its ``execution_timeout``.

    That is when the task was not deferred by then, or when Airflow 2 has needed most of the time that a wait leaves it
    to resume the task.
    """
    resumed = re.findall(r"^(\S+) INFO .*Resuming after deferral", log, re.MULTILINE)
    late = [seconds_between(task["start_date"], moment) > LIMITS["execution_timeout"] - 10 for moment in resumed]
    return DEFERRED not in log or (not AIRFLOW_V_3_0_PLUS and any(late))


def test_what_was_marked_failed_stays_failed_and_is_polled_no_more(
    airflow: AirflowInstance, held_sandbox: Sandbox, run: Run
):
    wait_until_parked(airflow, DAG, run.id, "marked")
    # By the triggerer: a trigger that is gone before it has begun leaves no trace in the log.
    wait_until_asked_for(airflow, held_sandbox, [run.jobs["marked"]], since=time.monotonic())
    trigger = trigger_id(airflow, run, "marked")
    airflow.mark(DAG, run.id, "marked", "failed")
    wait_until_trigger_is_gone(airflow, trigger)
    airflow.wait_until(
        lambda: said_of_trigger(airflow, DAG, run.id, "marked", " completed"),
        PATIENCE,
        "the triggerer has not ended the trigger",
    )
    # The others are asked for as before; after that, no request from before the end is on its way any more.
    wait_until_asked_for(airflow, held_sandbox, [run.jobs["failing"]], since=time.monotonic())
    cancelled = time.monotonic()
    for _ in range(2):
        wait_until_asked_for(airflow, held_sandbox, [run.jobs["failing"]], since=time.monotonic())
    assert run.jobs["marked"] not in asked_for(held_sandbox, since=cancelled)
    held_sandbox.finish(run.jobs["marked"])
    task = airflow.task_instance(DAG, run.id, "marked")
    assert (task["state"], task["try_number"]) == ("failed", 1)


def test_a_failed_job_fails_the_task_without_a_retry_and_says_why(
    airflow: AirflowInstance, held_sandbox: Sandbox, run: Run
):
    wait_until_parked(airflow, DAG, run.id, "failing")
    held_sandbox.fail(run.jobs["failing"], "No GPU left")
    task = wait_for_end(airflow, DAG, run.id, "failing")
    log = airflow.task_log(DAG, run.id, "failing")
    assert (task["state"], task["try_number"]) == ("failed", 1), log
    assert "ModelsLabJobFailed: Generate again, or from other input: 1 of 1 job failed: v6/video:" in log
    assert "(No GPU left)" in log


def test_a_cleared_wait_starts_again_and_ends_well(airflow: AirflowInstance, held_sandbox: Sandbox, run: Run):
    wait_until_parked(airflow, DAG, run.id, "cleared")
    first = trigger_id(airflow, run, "cleared")
    airflow.clear(DAG, run.id, "cleared")
    wait_until_parked(airflow, DAG, run.id, "cleared", try_number=2)
    wait_until_trigger_is_gone(airflow, first)
    held_sandbox.finish(run.jobs["cleared"])
    assert wait_for_end(airflow, DAG, run.id, "cleared")["state"] == "success"
    assert airflow.xcom(DAG, run.id, "cleared") == urls_of(held_sandbox, [run.jobs["cleared"]])


@pytest.mark.selection
@pytest.mark.parametrize(
    ("task_id", "options", "remembers"),
    [
        ("cleared_with_its_state", KEEPING, REMEMBERS),
        ("cleared_without_its_state", {}, REMEMBERS and not AIRFLOW_V_3_4_PLUS),
    ],
)
def test_a_cleared_generation_re_attaches_to_its_job_if_its_state_is_kept(
    airflow: AirflowInstance,
    held_sandbox: Sandbox,
    run: Run,
    task_id: str,
    options: dict[str, bool],
    remembers: bool,
):
    wait_until_parked(airflow, DAG, run.id, task_id)
    airflow.clear(DAG, run.id, task_id, **options)
    wait_until_parked(airflow, DAG, run.id, task_id, try_number=2)
    jobs = jobs_of_prompt(held_sandbox, f"{run.id} {task_id}")
    assert len(jobs) == (1 if remembers else 2)
    held_sandbox.finish(jobs[-1])
    assert wait_for_end(airflow, DAG, run.id, task_id)["state"] == "success"
    assert airflow.xcom(DAG, run.id, task_id) == urls_of(held_sandbox, jobs[-1:])
    log = airflow.task_log(DAG, run.id, task_id, try_number=2)
    assert ("Re-attaching to jobs of an earlier try" in log) == remembers


@pytest.mark.selection
@pytest.mark.parametrize(
    ("task_id", "state", "last_word"),
    [
        ("timeout", "failed", "ModelsLabTimeout: Clear the task, with a longer timeout,"),
        ("execution_timeout", "failed", "ModelsLabTimeout: Clear the task, with a longer execution_timeout,"),
        ("soft_fail", "skipped", "Skipped instead of failed: Clear the task, with a longer "),
    ],
)
def test_a_limit_of_time_ends_a_deferred_wait(
    airflow: AirflowInstance,
    run: Run,
    task_id: str,
    state: str,
    last_word: str,
):
    task = wait_for_end(airflow, DAG, run.id, task_id)
    # The limit is final; but on a busy machine Airflow itself fails a try that goes on before its scheduler has heard
    # of the deferral, and the next one has the whole limit again.
    *earlier, log = (airflow.task_log(DAG, run.id, task_id, number + 1) for number in range(task["try_number"]))
    assert task["state"] == state, log
    assert last_word in log or (was_on_worker_too_late(task, log) and "AirflowTaskTimeout" in log), log
    assert not any(last_word in log for log in earlier)
    # Where the limit was over before it could be deferred, the wait ended on its worker. How long the scheduler and a
    # worker take after a deferred one has ended is the machine's affair.
    ended = task[RESUMED] if DEFERRED in log else task["end_date"]
    lasted = seconds_between(task["start_date"], ended)
    assert LIMITS[task_id] - EARLY[task_id] <= lasted <= LIMITS[task_id] + BACKSTOP
