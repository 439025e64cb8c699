"""How deferred waits end when it is not by a plain success: limits of time, failed jobs, and people who step in."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import NamedTuple

import pytest
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_4_PLUS,
)
from airflow_instance import AirflowInstance

from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sandbox import Sandbox
from tests.dags.ends import LIMITS, SENSORS
from tests.system.steps import (
    PATIENCE,
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

BRIEF_WAIT = ModelsLabHook.pacing.policy.brief_wait
"""Seconds that a task polls on before it is deferred; the tests of this process do without, the tasks do not."""

RESUMED, TOLERANCE = ("scheduled_when", 5.0) if AIRFLOW_V_3_0_PLUS else ("queued_when", 30.0)
"""
When a wait has ended, and the seconds by which it may exceed its limit.

Airflow 2 does not tell when the triggerer gives a task back to the scheduler, but the next step.
"""

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
    cancelled = time.monotonic()
    # The others are asked for as before, twice each.
    wait_until_asked_for(airflow, held_sandbox, [run.jobs["failing"]], since=cancelled)
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
    log = airflow.task_log(DAG, run.id, task_id)
    assert (task["state"], task["try_number"]) == (state, 1), log
    assert last_word in log
    # The wait began some seconds before it was handed over, and ended when the triggerer put the task on schedule again.
    # How long the scheduler and a worker take from there on is the machine's affair.
    (began,) = re.findall(r"^(\S+) INFO Deferring: 0 of 1 job done", log, re.MULTILINE)
    lasted = seconds_between(began, task[RESUMED])
    limit = LIMITS[task_id]
    earliest = limit - 1 if AIRFLOW_V_3_0_PLUS or task_id != "execution_timeout" else limit / 2
    assert earliest - BRIEF_WAIT <= lasted <= limit + TOLERANCE
