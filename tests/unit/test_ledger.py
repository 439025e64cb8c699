from __future__ import annotations

from airflow_provider_modelslab._ledger.ledger import ITEMS_PER_KEY, Ledger
from airflow_provider_modelslab._tasks.batches import Item
from airflow_provider_modelslab.jobs import Job
from tests.support.tasks import StateStore

PATH = "v6/images/text2img"


def ledger(store: StateStore | None, *prompts: str, path: str = PATH, account: str = "host#1") -> Ledger:
    return Ledger(path, [Item.of("", {"prompt": prompt}).digest for prompt in prompts], store, account)


def job(number: int, **fields) -> Job:
    return Job(str(number), "v6/images", eta=5.0, submitted=1.0, **fields)


def test_the_next_try_finds_the_jobs():
    store = StateStore()
    first = ledger(store, "a", "b")
    first.intend(0)
    first.accept(0, job(1, meta={"prompt": "a"}))
    again = ledger(store, "a", "b")
    assert again.jobs == {0: job(1)}
    assert not again.orphans


def test_an_intent_without_a_job_is_an_orphan():
    store = StateStore()
    ledger(store, "a", "b").intend(1)
    again = ledger(store, "a", "b")
    assert (again.jobs, again.orphans) == ({}, {1})
    again.withdraw(1)
    assert not ledger(store, "a", "b").orphans


def test_what_failed_is_forgotten_and_the_rest_is_kept():
    store = StateStore()
    first = ledger(store, "a", "b", "c")
    for position in range(3):
        first.intend(position)
    first.accept(0, job(1))
    first.accept(1, job(2, status="failed", message="no"))
    again = ledger(store, "a", "b", "c")
    assert (set(again.jobs), again.orphans) == ({0}, {2})
    first.settle()
    settled = ledger(store, "a", "b", "c")
    assert (set(settled.jobs), settled.orphans) == ({0}, set())


def test_a_changed_payload_or_path_is_another_job():
    store = StateStore()
    ledger(store, "a").accept(0, job(1))
    assert not ledger(store, "b").jobs
    assert not ledger(store, "a", path="v6/realtime/text2img").jobs


def test_a_new_order_is_followed():
    store = StateStore()
    first = ledger(store, "a", "b", "a")
    for position in range(3):
        first.accept(position, job(position))
    moved = ledger(store, "new", "b", "a", "a")
    assert {position: found.id for position, found in moved.jobs.items()} == {1: "1", 2: "0", 3: "2"}
    assert ledger(store, "new", "b", "a", "a").jobs == moved.jobs


def test_many_items_are_spread_over_short_values():
    store = StateStore()
    prompts = [str(number) for number in range(2 * ITEMS_PER_KEY + 1)]
    first = ledger(store, *prompts)
    for position in range(len(prompts)):
        first.accept(position, job(position))
    assert len(store.texts) == 3
    assert max(map(len, store.texts.values())) < 20_000
    assert ledger(store, *prompts).jobs == first.jobs


def test_without_a_store_nothing_is_remembered():
    first = ledger(None, "a")
    first.intend(0)
    first.accept(0, job(1))
    assert not first.durable
    assert not ledger(None, "a").jobs


def test_outputs_are_not_remembered_since_urls_die():
    store = StateStore()
    ledger(store, "a").accept(0, job(1, status="success", outputs=["https://cdn/a"], meta={"prompt": "a"}))
    assert ledger(store, "a").jobs == {0: job(1)}


def test_outputs_of_a_job_without_an_id_are_all_that_there_is():
    store = StateStore()
    done = Job("", "v6/images", "success", ["https://cdn/a"])
    ledger(store, "a").accept(0, done)
    assert ledger(store, "a").jobs == {0: done}


def test_jobs_of_another_account_are_counted_and_not_taken():
    store = StateStore()
    ledger(store, "a").accept(0, job(1))
    other = ledger(store, "a", account="host#2")
    assert (other.jobs, other.of_other_accounts) == ({}, 1)


def test_a_forgotten_job_is_submitted_again():
    store = StateStore()
    first = ledger(store, "a")
    first.accept(0, job(1))
    first.forget(0)
    assert not first.jobs
    assert not ledger(store, "a").jobs
