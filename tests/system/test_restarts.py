"""What is lost when Airflow's processes die without a word: nothing."""

from __future__ import annotations

import json
import time

import pytest
from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import (
    check_run,
    submit,
    urls_of,
    wait_for_log,
    wait_until_all_parked,
    wait_until_asked_for,
)

DAG = "restarts"


@pytest.mark.selection
def test_a_killed_triggerer_loses_nothing(airflow: AirflowInstance, held_sandbox: Sandbox):
    group, singles = submit(held_sandbox, 40), submit(held_sandbox, 10)
    run_id = airflow.trigger(DAG, {"group": json.dumps(group), "singles": json.dumps(singles)})
    wait_until_all_parked(airflow, DAG, run_id, 1 + len(singles))
    wait_until_asked_for(airflow, held_sandbox, [*group, *singles], since=time.monotonic())

    seen, unseen = group[:10], [*group[10:20], *singles[:5]]
    finishing = time.monotonic()
    for job_id in seen:
        held_sandbox.finish(job_id)
    # The triggerer knows of these, and its knowledge dies with it.
    wait_until_asked_for(airflow, held_sandbox, seen, since=finishing)
    airflow.kill("triggerer")
    for job_id in unseen:
        held_sandbox.finish(job_id)
    states = {task["state"] for task in airflow.task_instances(DAG, run_id) if task["task_id"] != "singles"}
    assert states == {"deferred"}

    killed = time.monotonic()
    airflow.launch("triggerer-2")
    # The second triggerer has taken all over.
    wait_until_asked_for(airflow, held_sandbox, [*group[20:], *singles[5:]], since=killed)
    held_sandbox.finish_all()

    check_run(airflow, DAG, run_id)
    assert airflow.xcom(DAG, run_id, "group") == urls_of(held_sandbox, group)
    for index, job_id in enumerate(singles):
        assert airflow.xcom(DAG, run_id, "single", map_index=index) == urls_of(held_sandbox, [job_id])
    records = airflow.xcom(DAG, run_id, "group", "jobs")
    assert [(record["id"], record["status"]) for record in records] == [(str(job_id), "success") for job_id in group]
    assert {task["try_number"] for task in airflow.task_instances(DAG, run_id)} == {1}
    # Resumed once. (Airflow's own "Trigger fired event" comes, now and then, in the triggerer's log instead.)
    done = "40 of 40 jobs succeeded, with 40 outputs"
    assert wait_for_log(airflow, DAG, run_id, "group", done).count(done) == 1
    airflow.wait_until(lambda: not airflow.database.sql("SELECT id FROM trigger"), PATIENCE, "triggers are left")


def triggers_by_triggerer(airflow: AirflowInstance) -> dict[int, int]:
    """Return how many triggers each triggerer has, by the id of its job: the later started, the higher."""
    rows = airflow.database.sql("SELECT triggerer_id, count(*) AS triggers FROM trigger GROUP BY triggerer_id")
    return {row["triggerer_id"]: row["triggers"] for row in rows if row["triggerer_id"] is not None}


def test_of_two_triggerers_one_may_die(airflow: AirflowInstance, held_sandbox: Sandbox):
    airflow.launch("triggerer-2")
    runs: dict[str, tuple[list[int], list[int]]] = {}

    def jobs_of_both() -> list[int] | None:
        """Start runs until both triggerers have triggers: the first to ask takes all that are waiting."""
        group, singles = submit(held_sandbox, 10), submit(held_sandbox, 6)
        run_id = airflow.trigger(DAG, {"group": json.dumps(group), "singles": json.dumps(singles)})
        runs[run_id] = group, singles
        wait_until_all_parked(airflow, DAG, run_id, 1 + len(singles))
        wait_until_asked_for(airflow, held_sandbox, [*group, *singles], since=time.monotonic())
        both = sorted(triggers_by_triggerer(airflow))
        return both if len(both) == 2 else None

    survivor, victim = airflow.wait_until(jobs_of_both, 3 * PATIENCE, "one triggerer takes all triggers")
    ids = [job_id for group, singles in runs.values() for job_id in (*group, *singles)]
    airflow.kill("triggerer-2")
    killed = time.monotonic()
    airflow.wait_until(
        lambda: triggers_by_triggerer(airflow).keys() == {survivor}, PATIENCE, f"triggerer {victim} has triggers still"
    )
    wait_until_asked_for(airflow, held_sandbox, ids, since=killed)
    held_sandbox.finish_all()

    for run_id, (group, singles) in runs.items():
        check_run(airflow, DAG, run_id)
        assert airflow.xcom(DAG, run_id, "group") == urls_of(held_sandbox, group)
        for index, job_id in enumerate(singles):
            assert airflow.xcom(DAG, run_id, "single", map_index=index) == urls_of(held_sandbox, [job_id])
            done = "1 of 1 job succeeded, with 1 output"
            assert wait_for_log(airflow, DAG, run_id, "single", done, map_index=index).count(done) == 1  # resumed once
        done = "10 of 10 jobs succeeded, with 10 outputs"
        assert wait_for_log(airflow, DAG, run_id, "group", done).count(done) == 1
        assert {task["try_number"] for task in airflow.task_instances(DAG, run_id)} == {1}
    airflow.wait_until(lambda: not triggers_by_triggerer(airflow), PATIENCE, "triggers are left")
