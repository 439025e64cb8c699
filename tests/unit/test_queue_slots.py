"""How many jobs of a batch are kept in flight, on simulated accounts that somebody else uses, too."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from airflow_provider_modelslab._polling.queue_slots import QueueSlots

PROMPTS = 60
SECONDS = 10.0
"""How long a job takes, more or less."""

PAUSE = 30.0
"""Seconds to the next turn where nothing of the batch is in flight."""


@dataclass
class Account:
    """
    A simulated account.

    :param slots: how many requests it holds.
    :param foreign: how many of them somebody else wants, by time; what is free goes to them first.
    :param names_slots: whether a refusal names their number.
    :param counts: whether ModelsLab tells how many requests are in flight.
    """

    slots: int
    foreign: Callable[[float], int] = lambda now: 0
    names_slots: bool = True
    counts: bool = True
    ends: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    taken: int = 0

    def free(self, now: float) -> int:
        return self.slots - len(self.ends) - min(self.foreign(now), self.slots - len(self.ends))

    def submit(self, now: float) -> bool:
        if self.free(now) < 1:
            self.refused_at.append(now)
            return False
        self.taken += 1
        heapq.heappush(self.ends, now + SECONDS * (1 + (self.taken * 7 % 5 - 2) / 10))
        return True


def run(account: Account, slots: QueueSlots | None) -> float:
    """
    Generate all prompts, in turns as the operator takes them, and return how long that took.

    :param slots: what decides; ``None`` for one that always knows what is free.
    """
    now, left = 0.0, PROMPTS
    while left or account.ends:
        while account.ends and account.ends[0] <= now:
            heapq.heappop(account.ends)
        if slots is None:
            while left and account.free(now) and account.submit(now):
                left -= 1
        else:
            slots = QueueSlots.from_record(json.loads(json.dumps(slots.to_record())))  # as after a deferral
            counted = account.slots - account.free(now) if account.counts and slots.wants_count else None
            slots.begin_turn(len(account.ends), counted)
            while left and slots.has_room(len(account.ends)):
                if not account.submit(now):
                    slots.refuse(len(account.ends), account.slots if account.names_slots else None)
                    break
                left -= 1
                slots.accept(len(account.ends))
        in_flight = len(account.ends)
        few_enough = slots.next_turn(in_flight) if slots and left else max(0, in_flight - 1)
        now = (
            now + PAUSE if few_enough is None or not account.ends else sorted(account.ends)[in_flight - few_enough - 1]
        )
    return now


def between(start: float, end: float) -> Callable[[float], int]:
    return lambda now: 3 if start <= now < end else 0


FOREIGN = {
    "nobody": (lambda now: 0, 0),
    "from the start": (between(0, 45), 1),
    "in the middle": (between(25, 70), 2),
    "twice": (lambda now: between(12, 30)(now) + between(48, 71)(now), 4),
}


ACCOUNTS = [5, 10, 15]


def refusals_and_slowdown(
    account_slots: int, foreign: Callable[[float], int], names_slots: bool = True, counts: bool = True
) -> tuple[int, float]:
    account = Account(account_slots, foreign, names_slots, counts)
    seconds = run(account, QueueSlots())
    assert account.taken == PROMPTS
    return len(account.refused_at), seconds / run(Account(account_slots, foreign), None)


@pytest.mark.parametrize("account_slots", ACCOUNTS)
@pytest.mark.parametrize(("foreign", "changes"), FOREIGN.values(), ids=FOREIGN)
def test_a_batch_takes_what_it_can_get_with_few_refused_submissions(account_slots, foreign, changes):
    refused, slowdown = refusals_and_slowdown(account_slots, foreign)
    assert refused <= 2 * (1 + changes)
    assert slowdown <= 1.1


@pytest.mark.parametrize("account_slots", ACCOUNTS)
@pytest.mark.parametrize(("foreign", "changes"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize(("names_slots", "counts"), [(False, True), (True, False), (False, False)])
def test_where_modelslab_tells_less_a_batch_finds_out_by_trials(account_slots, foreign, changes, names_slots, counts):
    refused, slowdown = refusals_and_slowdown(account_slots, foreign, names_slots=names_slots, counts=counts)
    assert refused <= 12
    assert slowdown <= 1.2


@pytest.mark.parametrize("fixed", [None, 5])
def test_a_pause_of_minutes_is_no_matter_of_queue_slots(fixed):
    slots = QueueSlots(fixed)
    slots.begin_turn(0)
    slots.refuse(2, pause=1800)
    assert slots.next_turn(2) is None
    slots.begin_turn(2)
    slots.refuse(2, account=5, pause=1800)
    assert slots.next_turn(2) == 1


def test_a_fixed_number_stays_as_it_is():
    slots = QueueSlots(3)
    slots.begin_turn(2)
    assert slots.has_room(2)
    slots.refuse(2, 15)
    slots.begin_turn(2)
    assert slots.has_room(2)
    assert not slots.has_room(3)
    assert not slots.wants_count


def test_a_count_that_has_got_stuck_keeps_no_batch_out():
    account, slots = Account(5), QueueSlots()
    slots.begin_turn(0)
    slots.refuse(0, 5)
    tried = 0
    for _ in range(10):
        slots.begin_turn(0, counted=5)
        tried += slots.has_room(0)
    assert tried >= 1
    assert account.free(0) == 5


def test_a_count_that_promises_room_in_vain_is_no_longer_asked_for():
    slots = QueueSlots()
    slots.begin_turn(0)
    slots.refuse(4, 16)
    for _ in range(2):
        slots.begin_turn(3, counted=3)
        slots.refuse(3, 16)
    assert not slots.wants_count


def test_what_travels_is_small():
    assert len(json.dumps(QueueSlots(None, 15, 12, 1, 8, 3).to_record())) < 150
