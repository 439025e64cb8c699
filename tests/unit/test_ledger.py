"""What a task remembers of its submissions, try by try, without Airflow and without ModelsLab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from airflow_provider_modelslab._ledger.identity import TaskTry
from airflow_provider_modelslab._ledger.ledger import Ledger, Payer, Reuse
from airflow_provider_modelslab._ledger.receipts import StoredFile
from airflow_provider_modelslab._ledger.spending import Limits, SpendingGuard
from airflow_provider_modelslab._ledger.stores import FolderStore
from airflow_provider_modelslab._tasks.batches import Item
from airflow_provider_modelslab.exceptions import ModelsLabLedgerError
from airflow_provider_modelslab.jobs import Job

PATH = "v6/images/text2img"
FIRST = TaskTry("dag", "run", "task", try_number=1, max_tries=1)
RETRY = TaskTry("dag", "run", "task", try_number=2, max_tries=1)
CLEARED = TaskTry("dag", "run", "task", try_number=3, max_tries=3)
RETRIED = TaskTry("dag", "run", "task", try_number=4, max_tries=3)
OTHER = TaskTry("other", "run", "task")


@pytest.fixture
def store(tmp_path) -> FolderStore:
    return FolderStore(str(tmp_path))


def ledger(
    store: FolderStore | None,
    prompts: Sequence[str] | dict[str, str],
    task: TaskTry = FIRST,
    path: str = PATH,
    account: str = "host#1",
    reuse: Reuse = "task",
    **options: Any,
) -> Ledger:
    """Return the ledger of a try whose items have these prompts."""
    named = prompts if isinstance(prompts, dict) else dict(zip(map(str, range(len(prompts))), prompts, strict=True))
    items = [Item.of(name, {"prompt": prompt}) for name, prompt in named.items()]
    return Ledger.recall(items, Payer(account, path, task), store, lambda: 1_795_000_000.0, reuse=reuse, **options)


def job(number: int, **fields: Any) -> Job:
    return Job(str(number), "v6/images", eta=5.0, submitted=1.0, **fields)


def done(number: int) -> Job:
    return Job(str(number), "v6/images", "success", ["https://cdn/a"], submitted=1.0)


def submit(ledger: Ledger, *jobs: Job) -> None:
    """Let each item get its job."""
    for position, each in enumerate(jobs):
        assert ledger.intend(position)
        ledger.accept(position, each)


def finish(ledger: Ledger, *jobs: Job) -> None:
    submit(ledger, *jobs)
    ledger.settle("failed")
    ledger.settle("success")


# --- retries ---


def test_the_next_try_finds_the_jobs(store):
    submit(ledger(store, "ab"), job(1, meta={"prompt": "a"}))
    again = ledger(store, "ab", RETRY)
    assert again.jobs == {0: job(1)}
    assert (again.orphans, again.reattached) == (set(), {0})


@pytest.mark.parametrize("on_clear", ["reuse", "regenerate"])
def test_a_retry_takes_up_whatever_is_there(store, on_clear):
    finish(ledger(store, "abc"), done(1), job(2, status="failed", message="no GPU"))
    again = ledger(store, "abc", RETRY, on_clear=on_clear)
    assert {position: found.status for position, found in again.jobs.items()} == {0: "success", 1: "failed"}
    assert again.jobs[1].message == "no GPU"
    assert not again.may_renew(1, forgotten=False)


def test_an_intent_without_a_job_is_in_doubt_until_the_user_has_cleared_the_task(store):
    assert ledger(store, "ab").intend(1)
    for _ in range(2):
        again = ledger(store, "ab", RETRY)
        assert (again.jobs, again.orphans) == ({}, {1})
    cleared = ledger(store, "ab", CLEARED)  # by somebody who was not told: the try ended before
    assert cleared.orphans == {1}
    cleared.jobs[1] = Job("", "v6/images", "failed", message="This may have been billed")
    cleared.settle("failed")
    assert ledger(store, "ab", RETRIED).orphans == {1}
    after = ledger(store, "ab", TaskTry("dag", "run", "task", try_number=5, max_tries=5))
    assert (after.jobs, after.orphans) == ({}, set())
    assert str(after.names[1]).endswith(".2.json")


def test_what_was_refused_leaves_nothing(store):
    first = ledger(store, "a")
    first.intend(0)
    first.withdraw(0)
    assert store.read_all() == {}
    first.jobs[0] = Job("", "v6/images", "failed", message="refused")
    first.settle("failed")
    assert store.read_all() == {}


def test_an_id_in_an_unusable_reply_is_not_lost(store):
    first = ledger(store, "a")
    first.intend(0)
    first.doubt(0, Job("7", "v6/images"))
    again = ledger(store, "a", RETRY)
    assert again.jobs == {0: Job("7", "v6/images")}
    assert not again.may_renew(0, forgotten=True)


# --- clears ---


def test_a_clear_submits_again_what_failed_and_nothing_else(store):
    finish(ledger(store, "ab"), done(1), job(2, status="failed", message="no GPU"))
    for on_clear in ("reuse", "regenerate"):
        cleared = ledger(store, "ab", CLEARED, on_clear=on_clear)
        assert {position: found.id for position, found in cleared.jobs.items()} == {0: "1"}
        assert str(cleared.names[1]).endswith(".2.json")


def test_a_clear_takes_up_what_is_unfinished(store):
    submit(ledger(store, "ab"), job(1), job(2))
    assert set(ledger(store, "ab", CLEARED, on_clear="regenerate").jobs) == {0, 1}


def test_a_finished_task_that_is_cleared_generates_again_where_the_user_wants_that(store):
    finish(ledger(store, "ab"), done(1), done(2))
    assert set(ledger(store, "ab", CLEARED).jobs) == {0, 1}
    cleared = ledger(store, "ab", CLEARED, on_clear="regenerate")
    assert cleared.jobs == {}
    submit(cleared, job(3))  # and the worker dies
    retried = ledger(store, "ab", RETRIED, on_clear="regenerate")
    assert {position: found.id for position, found in retried.jobs.items()} == {0: "3"}
    assert len(store.read_all()) == 3  # the old receipts are left


def test_a_retry_of_a_cleared_task_generates_nothing_again(store):
    finish(ledger(store, "ab"), done(1), job(2, status="failed"))
    cleared = ledger(store, "ab", CLEARED, on_clear="regenerate")
    assert cleared.intend(1)
    cleared.accept(1, done(3))
    cleared.settle("success")  # and the worker dies
    retried = ledger(store, "ab", RETRIED, on_clear="regenerate")
    assert {position: found.id for position, found in retried.jobs.items()} == {0: "1", 1: "3"}


def test_a_regeneration_that_came_to_no_end_goes_on_at_the_next_clear(store):
    finish(ledger(store, "abc"), done(1), done(2), done(3))
    submit(ledger(store, "abc", CLEARED, on_clear="regenerate"), job(4))  # and the task fails
    cleared = ledger(store, "abc", TaskTry("dag", "run", "task", try_number=5, max_tries=5), on_clear="regenerate")
    assert {position: found.id for position, found in cleared.jobs.items()} == {0: "4"}
    assert cleared.intend(1)
    cleared.accept(1, job(5))  # and the worker dies
    last = TaskTry("dag", "run", "task", try_number=6, max_tries=5)
    retried = ledger(store, "abc", last, on_clear="regenerate")
    assert {position: found.id for position, found in retried.jobs.items()} == {0: "4", 1: "5"}


def test_of_a_regeneration_only_what_failed_is_generated_again(store):
    finish(ledger(store, "ab"), done(1), done(2))
    finish(ledger(store, "ab", CLEARED, on_clear="regenerate"), done(3), job(4, status="failed", message="no GPU"))
    cleared = ledger(store, "ab", TaskTry("dag", "run", "task", try_number=5, max_tries=5), on_clear="regenerate")
    assert {position: found.id for position, found in cleared.jobs.items()} == {0: "3"}


def test_a_task_that_does_not_wait_is_finished_when_it_has_returned_its_jobs(store):
    first = ledger(store, "a")
    submit(first, job(1))
    first.hand_over()
    assert ledger(store, "a", CLEARED).jobs == {0: job(1)}
    assert ledger(store, "a", CLEARED, on_clear="regenerate").jobs == {}


# --- identity ---


@pytest.mark.parametrize("changed", [{"prompts": "b"}, {"path": "v6/realtime/text2img"}, {"account": "host#2"}])
def test_another_payload_endpoint_or_account_is_another_job_and_the_old_one_is_named(store, changed):
    submit(ledger(store, "a"), job(1))
    other = ledger(store, **{"prompts": "a", "task": CLEARED, **changed})
    assert other.jobs == {}
    assert other.former["0"].job == job(1)


def test_a_new_order_is_followed(store):
    submit(ledger(store, "aba"), job(1), job(2), job(3))
    moved = ledger(store, ["new", "b", "a", "a"], CLEARED)
    assert {position: found.id for position, found in moved.jobs.items()} == {1: "2", 2: "3", 3: "1"}
    submit(moved, job(4))
    again = ledger(store, ["new", "b", "a", "a"], RETRIED)
    assert {position: found.id for position, found in again.jobs.items()} == {0: "4", 1: "2", 2: "3", 3: "1"}


def test_an_item_with_another_name_is_known_by_its_payload(store):
    submit(ledger(store, {"owl": "a"}), job(1))
    assert ledger(store, {"eule": "a"}, CLEARED).jobs == {0: job(1)}


def test_items_with_the_same_payload_are_jobs_of_their_own(store):
    submit(ledger(store, {"one": "a", "other": "a"}), job(1), job(2))
    swapped = ledger(store, {"other": "a", "one": "a"}, RETRY)
    assert {position: found.id for position, found in swapped.jobs.items()} == {0: "2", 1: "1"}


# --- two at a time ---


def test_of_two_tries_at_a_time_one_submits_and_the_other_takes_its_job_up(store):
    zombie, successor = ledger(store, "a"), ledger(store, "a", RETRY)
    assert zombie.intend(0)
    assert not successor.intend(0)
    assert successor.read_again(0) is not None
    assert successor.orphans == {0}
    zombie.accept(0, job(1))
    successor.read_again(0)
    assert (successor.jobs, successor.orphans) == ({0: job(1)}, set())


def test_what_the_other_has_withdrawn_may_be_submitted(store):
    zombie, successor = ledger(store, "a"), ledger(store, "a", RETRY)
    zombie.intend(0)
    assert not successor.intend(0)
    zombie.withdraw(0)
    assert successor.read_again(0) is None
    assert successor.intend(0)


# --- across tasks ---


def test_whatever_task_takes_up_the_same_job(store):
    finish(ledger(store, "a", reuse="always"), done(1))
    kept = store.read_all()
    other = ledger(store, "aa", OTHER, reuse="always")
    assert {position: found.id for position, found in other.jobs.items()} == {0: "1", 1: "1"}
    other.settle("success")
    assert store.read_all() == kept


def test_another_task_does_not_inherit_a_failure(store):
    finish(ledger(store, "a", reuse="always"), job(1, status="failed"))
    other = ledger(store, "a", OTHER, reuse="always")
    assert other.jobs == {}
    assert other.intend(0)
    assert not ledger(store, "a", RETRY, reuse="always").intend(0)


# --- the store ---


def test_without_a_store_nothing_is_remembered():
    first = ledger(None, "a")
    submit(first, job(1))
    first.settle("failed")
    first.hand_over()
    assert not first.survives_retry
    assert not first.survives_clear
    assert not ledger(None, "a", RETRY).jobs


class FailingStore(FolderStore):
    fails = False

    def write(self, records: Any) -> None:
        if self.fails:
            raise ModelsLabLedgerError("disk full")
        super().write(records)


def test_what_could_not_be_written_is_written_before_the_next_submission(tmp_path):
    store = FailingStore(str(tmp_path))
    first = ledger(store, "ab")
    first.intend(0)
    store.fails = True
    with pytest.raises(ModelsLabLedgerError):
        first.accept(0, job(1))
    with pytest.raises(ModelsLabLedgerError):
        first.intend(1)
    assert first.jobs == {0: job(1)}
    store.fails = False
    first.intend(1)
    assert ledger(store, "ab", RETRY).jobs == {0: job(1)}


def test_what_cannot_be_counted_is_not_submitted_and_leaves_no_doubt(tmp_path):
    store = FailingStore(str(tmp_path))
    first = ledger(store, "a")
    first.guard = SpendingGuard([Limits("the task", False, max_jobs=5)], {}, store, "host#1", PATH, FIRST, first.wall)
    store.fails = True
    with pytest.raises(ModelsLabLedgerError):
        first.intend(0)
    assert store.read_all() == {}
    assert ledger(store, "a", RETRY).intend(0)


def test_the_end_tells_what_is_stored(store):
    first = ledger(store, "a")
    submit(first, done(1))
    first.files[0] = (StoredFile("/data/a.png", 10),)
    first.settle("success")
    (record,) = store.read_all().values()
    assert record["files"] == [{"path": "/data/a.png", "size": 10}]
    assert record["outputs"] == ["https://cdn/a"]


def test_a_batch_costs_three_writes_per_job_and_no_more_reads_than_it_has_receipts(tmp_path):
    counts = dict.fromkeys(("read_folder", "read", "create", "write"), 0)

    class CountingStore(FolderStore):
        def read_folder(self, folder: str) -> Any:
            counts["read_folder"] += 1
            return super().read_folder(folder)

        def create(self, name: str, record: Any) -> bool:
            counts["create"] += 1
            return super().create(name, record)

        def write(self, records: Any) -> None:
            counts["write"] += len(records)
            super().write(records)

    finish(ledger(CountingStore(str(tmp_path)), [str(n) for n in range(100)]), *map(done, range(100)))
    assert counts == {"read_folder": 1, "read": 0, "create": 100, "write": 200}


def test_the_same_try_once_more_counts_as_cleared(store):
    """As with ``dag.test()``, which makes the run again."""
    finish(ledger(store, "ab"), done(1), job(2, status="failed"))
    again = ledger(store, "ab")
    assert set(again.jobs) == {0}
    assert again.intend(1)
    again.accept(1, done(3))
    again.settle("success")
    assert ledger(store, "ab", on_clear="regenerate").jobs == {}
