"""Limits of spending, as a task meets them: refused before paying, not retried, and named where they are set."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabBudgetExceeded
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from tests.conftest import unhurried
from tests.support.pacing import simulate
from tests.support.tasks import RecordingTaskInstance, deferral_of, run

PATH = "v6/images/text2img"
NOON = 1_795_867_200.0  # 2026-11-28T12:00:00Z


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    """No day ends amid a test."""
    simulate(monkeypatch).time = NOON


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def operator(count: int = 1, **kwargs: Any) -> ModelsLabGenerateOperator:
    payloads = [{"prompt": f"picture {number}"} for number in range(count)]
    defaults: dict[str, Any] = {"task_id": "generate", "endpoint": PATH, "payloads": payloads, "deferrable": True}
    return ModelsLabGenerateOperator(**{**defaults, "max_in_flight": 10, **kwargs})


def new_try(task_id: str = "generate", run_id: str = "run_1", clears: int = 0) -> Any:
    ti = RecordingTaskInstance(clears)
    ti.task_id, ti.run_id = task_id, run_id
    return {"ti": ti}


def submissions(sandbox: Sandbox) -> int:
    count: int = sandbox.state()["requests"].get("submit", 0)
    return count


@pytest.fixture
def limited(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, ledger: str) -> Sandbox:
    """A sandbox whose connection allows three jobs a day."""
    connection = json.loads(unhurried(sandbox.connection))
    connection["extra"] |= {"ledger_path": ledger, "max_jobs_per_day": 3}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    return sandbox


def test_one_job_more_than_the_task_may_submit_is_refused_unpaid(sandbox: Sandbox, ledger: str):
    task = operator(5, ledger_path=ledger, max_jobs_per_day=3)
    with pytest.raises(ModelsLabBudgetExceeded) as caught:
        task.execute(new_try())
    assert re.match(
        r"Raise max_jobs_per_day \(3\) of task 'generate', or clear the task after 00:00 UTC: on "
        r"\d{4}-\d\d-\d\d \(UTC\), the task has submitted 3 jobs and no further one",
        str(caught.value),
    )
    assert submissions(sandbox) == 3


def test_without_a_limit_no_job_is_counted(sandbox: Sandbox, ledger: str):
    run(operator(ledger_path=ledger), new_try(), lambda _: sandbox.finish_all())
    assert [folder.name for folder in Path(ledger).iterdir()] == ["dag"]


def test_the_cleared_task_goes_on_where_it_was_stopped(sandbox: Sandbox, ledger: str):
    with pytest.raises(ModelsLabBudgetExceeded):
        operator(5, ledger_path=ledger, max_jobs_per_day=3).execute(new_try())
    sandbox.finish_all()
    with pytest.raises(ModelsLabBudgetExceeded):
        operator(5, ledger_path=ledger, max_jobs_per_day=3).execute(new_try(clears=1))
    assert submissions(sandbox) == 3
    context = new_try(clears=2)
    urls = run(operator(5, ledger_path=ledger, max_jobs_per_day=5), context, lambda _: sandbox.finish_all())
    assert (len(urls), submissions(sandbox)) == (5, 5)


def test_a_limit_of_the_connection_counts_all_tasks_of_its_account(limited: Sandbox):
    deferral_of(operator(2, task_id="draw"), new_try("draw"))
    with pytest.raises(
        ModelsLabBudgetExceeded, match=r"of connection 'modelslab_default'.*its account has submitted 3 jobs"
    ):
        operator(2, task_id="paint").execute(new_try("paint", "run_2"))
    assert submissions(limited) == 3


def test_re_attaching_counts_for_nothing(limited: Sandbox):
    deferral_of(operator(3), new_try())
    deferral_of(operator(3), new_try())
    limited.finish_all()
    assert len(run(operator(3), new_try(clears=1))) == 3
    assert submissions(limited) == 3


def test_what_modelslab_refuses_counts_for_nothing(limited: Sandbox):
    limited.script("submit", ["dict_message", None, "rate_limit"])
    context = new_try()
    task = operator(4, poke_interval=0.1, fail_on_partial_error=False)
    urls = run(task, context, lambda _: limited.finish_all())
    assert (len(urls), len(limited.jobs)) == (3, 3)


def test_an_amount_is_estimated_by_the_prices_of_task_and_connection(limited: Sandbox, monkeypatch, ledger):
    connection = json.loads(unhurried(limited.connection))
    prices = json.dumps({"v6/images": 0.005, "v6/video": 0.5})
    connection["extra"] |= {"ledger_path": ledger, "max_spending_per_day": 0.51, "prices": prices}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    deferral_of(operator(1, endpoint="v6/video/text2video"), new_try())
    with pytest.raises(ModelsLabBudgetExceeded, match=r"3 jobs for an estimated 0\.51, one more costs 0\.005"):
        operator(3, task_id="draw").execute(new_try("draw"))
    with pytest.raises(ModelsLabBudgetExceeded, match=r"one more costs 1\."):
        operator(1, task_id="paint", prices={PATH: 1}).execute(new_try("paint"))
    assert submissions(limited) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "Set ledger_path, on the task or in the connection"),
        ({"output_path": "/tmp/outputs"}, "Set ledger_path, on the task or in the connection"),
        ({"max_jobs_per_day": None, "max_spending_per_day": 5}, "Set ledger_path"),
    ],
)
def test_a_limit_without_a_common_ledger_is_refused_before_paying(sandbox: Sandbox, arguments, words):
    with pytest.raises(ModelsLabArgumentError, match=words):
        operator(**{"max_jobs_per_day": 5, **arguments}).execute(new_try())
    assert submissions(sandbox) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_jobs_per_day": 0}, "max_jobs_per_day"),
        ({"max_jobs_per_day": "many"}, "max_jobs_per_day"),
        ({"max_spending_per_day": -1}, "max_spending_per_day"),
        ({"prices": {"v6/images": "cheap"}}, "prices"),
        ({"max_jobs_per_day": 5, "durable": False}, "durable=False"),
    ],
)
def test_a_wrong_limit_is_refused_when_the_dag_is_parsed(arguments, words):
    with pytest.raises(ModelsLabArgumentError, match=words):
        operator(**arguments)
