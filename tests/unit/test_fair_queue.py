from __future__ import annotations

import pytest

from airflow_provider_modelslab._polling.fair_queue import FairQueue


def test_what_comes_first_is_served_first():
    queue: FairQueue[str, int] = FairQueue()
    for item in range(5):
        queue.push("only", item)
    assert [queue.pop() for _ in range(5)] == [("only", item) for item in range(5)]
    assert not queue


def test_one_item_is_not_kept_waiting_by_thousands_of_another_owner():
    queue: FairQueue[str, int] = FairQueue()
    for item in range(5000):
        queue.push("crowd", item)
    queue.push("single", -1)
    assert ("single", -1) in [queue.pop() for _ in range(4)]


@pytest.mark.parametrize("shared_come_first", [True, False])
def test_every_item_is_served_within_twice_as_many_turns_as_there_are_items(shared_come_first):
    """Half of the items have an owner each, the others share one; each comes back as soon as it was served."""
    queue: FairQueue[str, int] = FairQueue()
    items = [("shared", item) for item in range(100)], [(f"owner {item}", item) for item in range(100, 200)]
    for owner, item in [*items[0], *items[1]] if shared_come_first else [*items[1], *items[0]]:
        queue.push(owner, item)
    served = set()
    for _ in range(400):
        owner, item = queue.pop()
        served.add(item)
        queue.push(owner, item)
    assert served == set(range(200))


def test_an_owner_that_is_discarded_leaves_nothing():
    queue: FairQueue[str, int] = FairQueue()
    for item in range(4):
        queue.push("even" if item % 2 == 0 else "odd", item)
    queue.discard("even")
    queue.discard("unknown")
    assert sorted(queue.pop()[1] for _ in range(len(queue))) == [1, 3]
