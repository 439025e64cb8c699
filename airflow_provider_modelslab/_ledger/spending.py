"""
A guard for spending: how many jobs a day, and for what estimated amount.

It is a guard, not accounting. Each job leaves a mark in the ledger's folder of its UTC day before it is submitted. A
task lists that folder once per execution, and from then on counts its own marks. What others submit after that is not
seen: tasks that run at the same time may exceed a limit together.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from airflow_provider_modelslab._ledger.identity import ReceiptName, TaskTry
from airflow_provider_modelslab._protocol.formatting import count
from airflow_provider_modelslab._protocol.prices import Prices, price_of
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabBudgetExceeded

DAYS_FOLDER = "_days"
"""The folder of the marks, by UTC day."""

_ROUNDING = 1e-9
"""What sums of prices may differ by."""


class MarkStore(Protocol):
    """What is used of the ledger's store."""

    def names(self, folder: str) -> Iterable[str]:
        """Return the names in a folder: one listing."""

    def write(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep records."""

    def delete(self, name: str) -> None:
        """Remove a record, if it is there."""


@dataclass(frozen=True, slots=True)
class Mark:
    """
    What a job of a day is counted by: all of it is in its name, so that a listing is enough.

    :param account: who paid, as a digest.
    :param task: the task, whichever run, as a digest.
    :param endpoint: the path of the generation endpoint.
    :param receipt: the receipt, as a digest.
    """

    account: str
    task: str
    endpoint: str
    receipt: str

    @classmethod
    def of(cls, account: str, endpoint: str, task: TaskTry, name: ReceiptName) -> Mark:
        """Return the mark of a job."""
        return cls(_digest(account), _digest(task.dag_id, task.task_id), endpoint, _digest(str(name)))

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """Return the mark of a name, or ``None`` where it is none."""
        match = re.fullmatch(r"([0-9a-f]{16})\.([0-9a-f]{16})\.(.+)\.([0-9a-f]{16})", text)
        return cls(match[1], match[2], match[3].replace("+", "/"), match[4]) if match else None

    def __str__(self) -> str:
        return ".".join([self.account, self.task, self.endpoint.replace("/", "+"), self.receipt])


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one place allows a day.

    :param place: where they are set, for example ``"connection 'modelslab_default'"``.
    :param whole_account: whether all jobs of the account count; else those of the task, in all its runs.
    :param max_jobs: jobs a day; ``None`` for any number.
    :param max_spending: the estimated amount a day; ``None`` for any.
    """

    place: str
    whole_account: bool
    max_jobs: int | None = None
    max_spending: float | None = None

    def __bool__(self) -> bool:
        return self.max_jobs is not None or self.max_spending is not None


@dataclass(slots=True)
class SpendingGuard:
    """
    Counts the jobs of a UTC day, and refuses what would exceed a limit.

    :param limits: the limits, each with its place: one at least.
    :param prices: what one job costs, by endpoint.
    :param store: where the ledger is kept; ``None`` where that is no path.
    :param account: the host and the account that pays.
    :param endpoint: the path of the generation endpoint.
    :param task: this try.
    :param wall: tells the time, in seconds since the epoch.
    """

    limits: Sequence[Limits]
    prices: Prices
    store: MarkStore | None
    account: str
    endpoint: str
    task: TaskTry
    wall: Callable[[], float]
    _day: str = ""
    _marks: set[Mark] = field(default_factory=set)
    _paths: dict[ReceiptName, str] = field(default_factory=dict)

    def admit(self) -> None:
        """
        Let one more job pass.

        :raises ModelsLabBudgetExceeded: it would exceed a limit.
        :raises ModelsLabArgumentError: a limit cannot be kept.
        """
        if self.store is None:
            raise ModelsLabArgumentError(
                f"Set ledger_path, on the task or in the connection: the limits of {self.limits[0].place} count what "
                "the ledger has there. Nothing was submitted"
            )
        day = f"{datetime.fromtimestamp(self.wall(), timezone.utc):%Y-%m-%d}"
        if day != self._day:
            found = map(Mark.parse, self.store.names(f"{DAYS_FOLDER}/{day}"))
            self._day, self._marks = day, {mark for mark in found if mark is not None}
        for limits in self.limits:
            self._check(limits)

    def count(self, name: ReceiptName) -> None:
        """Count a job that is about to be submitted."""
        if self.store is None:
            return
        mark = Mark.of(self.account, self.endpoint, self.task, name)
        path = f"{DAYS_FOLDER}/{self._day}/{mark}"
        self.store.write({path: {}})
        self._paths[name] = path
        self._marks.add(mark)

    def discount(self, name: ReceiptName) -> None:
        """Take back that a job was counted: it was not submitted after all."""
        path = self._paths.pop(name, None)
        if path is not None and self.store is not None:
            self._marks.discard(Mark.of(self.account, self.endpoint, self.task, name))
            self.store.delete(path)

    def _check(self, limits: Limits) -> None:
        own = Mark.of(self.account, self.endpoint, self.task, ReceiptName(""))
        counted = [
            mark
            for mark in self._marks
            if (mark.account == own.account if limits.whole_account else mark.task == own.task)
        ]
        whose = "its account" if limits.whole_account else "the task"
        if limits.max_jobs is not None and len(counted) >= limits.max_jobs:
            raise ModelsLabBudgetExceeded(
                f"Raise max_jobs_per_day ({limits.max_jobs}) of {limits.place}, or clear the task after 00:00 UTC: "
                f"on {self._day} (UTC), {whose} has submitted {count(len(counted), 'job')} and no further one"
            )
        if limits.max_spending is None:
            return
        price = price_of(self.endpoint, self.prices)
        if price is None:
            raise ModelsLabArgumentError(
                f"Add a price for {self.endpoint!r} to prices: max_spending_per_day of {limits.place} needs it to "
                "estimate an amount. Nothing was submitted"
            )
        estimate = sum(price_of(mark.endpoint, self.prices) or 0.0 for mark in counted)
        if estimate + price > limits.max_spending + _ROUNDING:
            raise ModelsLabBudgetExceeded(
                f"Raise max_spending_per_day ({limits.max_spending:g}) of {limits.place}, or clear the task after "
                f"00:00 UTC: on {self._day} (UTC), {whose} has submitted {count(len(counted), 'job')} for an estimated "
                f"{estimate:.6g}, one more costs {price:.6g}. No further one was submitted"
            )


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
