"""A retry is told from a clear by what Airflow itself writes of a task instance."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_modelslab._ledger.identity import TaskTry
from airflow_provider_modelslab._tasks.ledgers import task_try
from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.dag_runs import TEST_DAGS, load_dags

pytestmark = pytest.mark.usefixtures("airflow_database")


def next_try(ti: Any) -> TaskTry:
    """Return the next try: a higher number."""
    known = task_try({"ti": ti})
    return TaskTry(**{**{name: getattr(known, name) for name in TaskTry.__slots__}, "try_number": ti.try_number + 1})


def test_a_clear_by_airflow_is_told_from_a_retry(monkeypatch):
    from airflow.models.taskinstance import TaskInstance, clear_task_instances
    from airflow.utils.session import create_session

    dag = load_dags(TEST_DAGS / "generates.py")["decorated_blocking"]
    with Sandbox(duration=0.1) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", sandbox.connection)
        run = dag.test()
    with create_session() as session:
        query = session.query(TaskInstance).filter_by(dag_id=run.dag_id, run_id=run.run_id, task_id="draw")
        ti = query.one()
        first = task_try({"ti": ti})
        assert (first.dag_id, first.run_id, first.task_id) == (run.dag_id, run.run_id, "draw")
        assert next_try(ti).is_retry_of(first)
        clear_task_instances([ti], session)
        session.flush()
        cleared = next_try(query.one())
        assert not cleared.is_retry_of(first)
        assert cleared.folder == first.folder
