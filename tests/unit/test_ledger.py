from __future__ import annotations

from airflow_provider_modelslab._ledger.ledger import ITEMS_PER_KEY, Ledger
from airflow_provider_modelslab._tasks.batches import Item
from airflow_provider_modelslab.jobs import Job
from tests.support.tasks import StateStore

PATH = "v6/images/text2img"


def items(*prompts: str) -> list[Item]:
    return [Item(str(position), {"prompt": prompt}) for position, prompt in enumerate(prompts)]


def job(number: int, **fields) -> Job:
    return Job(str(number), "v6/images", eta=5.0, submitted=1.0, **fields)


def test_the_next_try_finds_the_jobs():
    store = StateStore()
    first = Ledger(PATH, items("a", "b"), store)
    first.intend(0)
    first.accept(0, job(1, meta={"prompt": "a"}))
    again = Ledger(PATH, items("a", "b"), store)
    assert again.jobs == {0: job(1)}
    assert not again.orphans


def test_an_intent_without_a_job_is_an_orphan():
    store = StateStore()
    Ledger(PATH, items("a", "b"), store).intend(1)
    again = Ledger(PATH, items("a", "b"), store)
    assert (again.jobs, again.orphans) == ({}, {1})
    again.withdraw(1)
    assert not Ledger(PATH, items("a", "b"), store).orphans


def test_what_failed_is_forgotten_and_the_rest_is_kept():
    store = StateStore()
    first = Ledger(PATH, items("a", "b", "c"), store)
    for position in range(3):
        first.intend(position)
    first.accept(0, job(1))
    first.accept(1, job(2, status="failed", message="no"))
    again = Ledger(PATH, items("a", "b", "c"), store)
    assert (set(again.jobs), again.orphans) == ({0}, {2})
    first.settle()
    settled = Ledger(PATH, items("a", "b", "c"), store)
    assert (set(settled.jobs), settled.orphans) == ({0}, set())


def test_a_changed_payload_or_path_is_another_job():
    store = StateStore()
    Ledger(PATH, items("a"), store).accept(0, job(1))
    assert not Ledger(PATH, items("b"), store).jobs
    assert not Ledger("v6/realtime/text2img", items("a"), store).jobs


def test_a_new_order_is_followed():
    store = StateStore()
    first = Ledger(PATH, items("a", "b", "a"), store)
    for position in range(3):
        first.accept(position, job(position))
    moved = Ledger(PATH, items("new", "b", "a", "a"), store)
    assert {position: found.id for position, found in moved.jobs.items()} == {1: "1", 2: "0", 3: "2"}
    assert Ledger(PATH, items("new", "b", "a", "a"), store).jobs == moved.jobs


def test_many_items_are_spread_over_short_values():
    store = StateStore()
    prompts = [str(number) for number in range(2 * ITEMS_PER_KEY + 1)]
    first = Ledger(PATH, items(*prompts), store)
    for position in range(len(prompts)):
        first.accept(position, job(position))
    assert len(store.texts) == 3
    assert max(map(len, store.texts.values())) < 20_000
    assert Ledger(PATH, items(*prompts), store).jobs == first.jobs


def test_without_a_store_nothing_is_remembered():
    first = Ledger(PATH, items("a"), None)
    first.intend(0)
    first.accept(0, job(1))
    assert not first.durable
    assert not Ledger(PATH, items("a"), None).jobs
