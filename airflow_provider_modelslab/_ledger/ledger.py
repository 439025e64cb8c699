"""
What a task remembers of its submissions, so that no try of it pays for the same job twice.

Airflow keeps the memory: the task state store, which Airflow has from 3.3 on and which outlives tries and clearing.
Before a submission an intent is written, after it the job. A try that finds a job re-attaches to it; one that finds an
intent without a job knows that the worker died in between, and that the job may have been billed.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from airflow_provider_modelslab.jobs import Job

STATE_KEY = "modelslab_jobs"
"""The first part of the keys in the task state store; their number follows."""

ITEMS_PER_KEY = 100
"""So that no value gets long: it is written again with every submission."""


class StateStore(Protocol):
    """What is used of Airflow's task state store."""

    def get(self, key: str) -> Any:
        """Return the value, or ``None``."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""


class Ledger:
    """
    The submissions of one task, by the position of their items.

    A paid job is known by the account that paid, the generation endpoint and the payload. Where one of them has changed
    since the last try, what was submitted then is not the same job. A failed job is not remembered: the next try
    generates it again.

    :param path: the path of the generation endpoint.
    :param digests: the digests of the payloads.
    :param store: the task state store; ``None`` where nothing can or shall be remembered.
    :param account: the host and the account that pays.
    """

    def __init__(self, path: str, digests: Sequence[str], store: StateStore | None, account: str) -> None:
        self.jobs: dict[int, Job] = {}
        self.orphans: set[int] = set()
        self.reattached: set[int] = set()
        self.of_other_accounts = 0
        self._store = store
        self._account = account
        self._marks = [_mark(path, digest) for digest in digests]
        if store is not None:
            self._recall(store)

    @property
    def durable(self) -> bool:
        """Whether the next try will know of what is submitted now."""
        return self._store is not None

    def intend(self, position: int) -> None:
        """Remember that an item is about to be submitted."""
        self.orphans.add(position)
        self._keep(position)

    def accept(self, position: int, job: Job) -> None:
        """Remember the job of an item."""
        self.jobs[position] = job
        self.orphans.discard(position)
        self._keep(position)

    def withdraw(self, position: int) -> None:
        """Remember that an item was not submitted after all."""
        self.orphans.discard(position)
        self._keep(position)

    def forget(self, position: int) -> None:
        """Forget the job of an item that cannot be had any more: it may be submitted again."""
        self.jobs.pop(position, None)
        self.reattached.discard(position)
        self._keep(position)

    def settle(self) -> None:
        """Forget the failed and the ambiguous, once the user has been told: the next try submits them again."""
        failed = {position for position, job in self.jobs.items() if job.status == "failed"}
        ambiguous, self.orphans = self.orphans, set()
        for part in {position // ITEMS_PER_KEY for position in failed | ambiguous}:
            self._keep(part * ITEMS_PER_KEY)

    def _recall(self, store: StateStore) -> None:
        positions: dict[str, list[int]] = {}
        for position, mark in reversed(list(enumerate(self._marks))):
            positions.setdefault(mark, []).append(position)
        moved = False
        for stored_position, (mark, account, record) in _stored(store):
            if not positions.get(mark):
                continue
            if account != self._account:
                self.of_other_accounts += 1
                continue
            position = positions[mark].pop()
            moved |= position != stored_position
            if record is None:
                self.orphans.add(position)
            else:
                self.jobs[position] = Job.from_dict(record)
                self.reattached.add(position)
        if moved:
            for first in range(0, len(self._marks), ITEMS_PER_KEY):
                self._keep(first)

    def _keep(self, position: int) -> None:
        """Write the part of the memory in which a position lies."""
        if self._store is None:
            return
        part = position // ITEMS_PER_KEY
        positions = range(part * ITEMS_PER_KEY, min((part + 1) * ITEMS_PER_KEY, len(self._marks)))
        entries = {
            str(near): [self._marks[near], self._account, record] for near in positions for record in self._record(near)
        }
        self._store.set(_key(part), entries)

    def _record(self, position: int) -> list[dict[str, Any] | None]:
        """Return what is remembered of an item: a list of one, or of nothing."""
        if position in self.orphans:
            return [None]
        job = self.jobs.get(position)
        if job is None or job.status == "failed":
            return []
        # Not its outputs, whose URLs die: a job with an id is polled again.
        known = Job(job.id, job.endpoint, eta=job.eta, submitted=job.submitted) if job.id else replace(job, meta={})
        return [known.to_compact_dict()]


def _key(part: int) -> str:
    return f"{STATE_KEY}_{part}"


def _stored(store: StateStore) -> Iterator[tuple[int, tuple[str, str, dict[str, Any] | None]]]:
    """Yield what earlier tries have left, by position."""
    for part in itertools.count():
        entries = store.get(_key(part))
        if entries is None:
            return
        for position, (mark, account, record) in entries.items():
            yield int(position), (mark, account, record)


def _mark(path: str, digest: str) -> str:
    """Return a short text that differs where the endpoint or the payload does."""
    return hashlib.sha256(f"{path} {digest}".encode()).hexdigest()[:16]
