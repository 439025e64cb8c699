"""The guard for spending: what it counts, when a day begins, and what it says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_modelslab._ledger.identity import ReceiptName, TaskTry
from airflow_provider_modelslab._ledger.spending import Limits, Mark, SpendingGuard
from airflow_provider_modelslab._ledger.stores import FolderStore
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabBudgetExceeded

EVENING = 1_795_823_940.0  # 2026-11-27T23:59:00Z
PATH = "v6/images/text2img"
CONNECTION = "connection 'modelslab_default'"


class ListedStore(FolderStore):
    """A folder that counts how often it is listed."""

    listings = 0

    def names(self, folder: str) -> list[str]:
        self.listings += 1
        return super().names(folder)


@pytest.fixture
def store(tmp_path) -> ListedStore:
    return ListedStore(str(tmp_path / "ledger"))


def guard(store: FolderStore | None, *limits: Limits, now: float = EVENING, **other: Any) -> SpendingGuard:
    task = TaskTry(dag_id="gallery", run_id=other.pop("run_id", "run_1"), task_id=other.pop("task_id", "draw"))
    defaults: dict[str, Any] = {"prices": {}, "account": "host#1", "endpoint": PATH}
    return SpendingGuard(list(limits), store=store, task=task, wall=lambda: now, **(defaults | other))


def connection(**limits: Any) -> Limits:
    return Limits(CONNECTION, True, **limits)


def task(**limits: Any) -> Limits:
    return Limits("task 'gallery.draw'", False, **limits)


def submit(guard: SpendingGuard, *names: str) -> None:
    for name in names:
        guard.admit()
        guard.count(ReceiptName(f"gallery/{guard.task.run_id}/{guard.task.task_id}/{name}.d"))


def test_what_others_have_submitted_today_counts(store):
    submit(guard(store, connection(max_jobs=3), task_id="paint"), "a", "b")
    here = guard(store, connection(max_jobs=3))
    submit(here, "c")
    with pytest.raises(
        ModelsLabBudgetExceeded, match=r"on 2026-11-27 \(UTC\), its account has submitted 3 jobs"
    ) as caught:
        here.admit()
    assert f"Raise max_jobs_per_day (3) of {CONNECTION}" in str(caught.value)
    assert isinstance(caught.value, AirflowFailException)


def test_the_folder_of_the_day_is_listed_once_however_many_are_submitted(store):
    submit(guard(store, connection(max_jobs=100), task(max_jobs=100)), *map(str, range(20)))
    assert store.listings == 1


def test_a_task_counts_its_own_jobs_in_all_runs_and_an_account_its_own(store):
    submit(guard(store, task(max_jobs=2), task_id="paint"), "a", "b")
    submit(guard(store, task(max_jobs=2), run_id="run_0"), "c")
    here = guard(store, task(max_jobs=2))
    submit(here, "d")
    with pytest.raises(ModelsLabBudgetExceeded, match=r"of task 'gallery.draw', .* the task has submitted 2 jobs"):
        here.admit()
    submit(guard(store, connection(max_jobs=1), account="host#2"), "e")


def test_the_next_utc_day_begins_at_zero(store):
    submit(guard(store, connection(max_jobs=1)), "a")
    with pytest.raises(ModelsLabBudgetExceeded):
        guard(store, connection(max_jobs=1)).admit()
    moments = iter([EVENING, EVENING, EVENING + 61.0, EVENING + 61.0])
    over_midnight = guard(store, connection(max_jobs=2))
    over_midnight.wall = lambda: next(moments)
    submit(over_midnight, "b")
    with pytest.raises(ModelsLabBudgetExceeded, match="2026-11-27"):
        over_midnight.admit()
    submit(over_midnight, "c")
    assert [len(store.names(f"_days/2026-11-{day}")) for day in (27, 28)] == [2, 1]


def test_what_was_not_submitted_after_all_does_not_count(store):
    here = guard(store, connection(max_jobs=1))
    submit(here, "a")
    here.discount(ReceiptName("gallery/run_1/draw/a.d"))
    submit(here, "b")
    with pytest.raises(ModelsLabBudgetExceeded):
        guard(store, connection(max_jobs=1)).admit()


def test_amounts_are_estimates_by_the_price_table(store):
    prices = {"v6/images": 0.005, "v6/video": 0.2}
    submit(guard(store, connection(max_spending=1.0), prices=prices, endpoint="v6/video/text2video"), "a", "b")
    here = guard(store, connection(max_spending=0.41), prices=prices)
    submit(here, "c", "d")
    with pytest.raises(ModelsLabBudgetExceeded, match=r"estimated 0\.41, one more costs 0\.005") as caught:
        here.admit()
    assert f"Raise max_spending_per_day (0.41) of {CONNECTION}" in str(caught.value)


def test_the_last_cent_may_be_spent(store):
    here = guard(store, connection(max_spending=0.3), prices={"v6": 0.1})
    submit(here, "a", "b", "c")
    with pytest.raises(ModelsLabBudgetExceeded):
        here.admit()


def test_a_limit_that_cannot_be_kept_is_refused(store):
    with pytest.raises(ModelsLabArgumentError, match=r"Set ledger_path.*connection 'modelslab_default'"):
        guard(None, connection(max_jobs=5)).admit()
    with pytest.raises(ModelsLabArgumentError, match="Add a price for 'v6/images/text2img' to prices"):
        guard(store, connection(max_spending=5), prices={"v6/video": 1.0}).admit()


def test_a_mark_is_read_as_it_was_written_and_nothing_else_is_one(store):
    mark = Mark.of("host#1", PATH, TaskTry(dag_id="x\n", task_id="y/../z"), ReceiptName("a/b"))
    assert Mark.parse(str(mark)) == mark
    assert re.fullmatch(r"[\w.+-]+", str(mark))
    for other in ("", "x", f"{mark}.part", f"{mark}.json", f".{mark}", str(mark)[1:]):
        assert Mark.parse(other) is None
