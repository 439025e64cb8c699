"""
How many jobs of a batch may be in flight: a fixed number, or as many as ModelsLab takes.

The number of queue slots of an account is not known, and others may use it at the same time. So a batch fills the queue
until ModelsLab refuses, and then holds what it has: a job that finishes makes room for the next. Where the refusal
names the number of the account's slots, ModelsLab's own count of the requests in flight tells when there is room for
more; else one more is tried now and then. A refused submission costs nothing, but a request. Pure.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

FIRST_PATIENCE = 2
MOST_PATIENCE = 8
"""Turns between two trials of one more job, where ModelsLab's count does not help: they double with each refusal."""


LONG_PAUSE = 60.0
"""Seconds of a pause that is no matter of queue slots: a job that finishes does not shorten it."""


@dataclass(slots=True)
class QueueSlots:
    """
    The queue slots that a batch uses.

    A turn begins whenever jobs may have finished; in it, jobs are submitted while :meth:`has_room`.

    :param fixed: the user's own number; ``None`` for as many as ModelsLab takes.
    :param account: how many slots the account has, where a refusal has named a number.
    :param held: how many jobs are kept in flight; ``None`` while nothing was refused.
    :param refusals: refused submissions in a row.
    :param patience: turns between two trials of one more job.
    :param turns: since the last such trial.
    :param is_counted: whether ModelsLab's count has been right so far.
    """

    fixed: int | None = None
    account: int | None = None
    held: int | None = None
    refusals: int = 0
    patience: int = FIRST_PATIENCE
    turns: int = 0
    is_counted: bool = True
    _target: int = 0
    _by_count: bool = False
    _is_paused: bool = False

    @property
    def wants_count(self) -> bool:
        """Whether it helps to know how many requests of the account are in flight: others seem to hold some slots."""
        return self.fixed is None and self.is_counted and None is not self.held and self.held < (self.account or 0)

    def begin_turn(self, in_flight: int, counted: int | None = None) -> None:
        """
        Judge how many jobs may be in flight until the next turn.

        :param in_flight: how many jobs of the batch are.
        :param counted: how many requests of the account are, by ModelsLab's count, if that was asked for and is known.
        """
        self._is_paused = False
        if self.fixed is not None:
            self._target = self.fixed
            return
        most = self.account or sys.maxsize
        if self.held is None:
            self._target = most
            return
        self.turns += 1
        self._by_count = self.account is not None and counted is not None and counted >= in_flight
        if not self._by_count:
            self._target = min(self.held + self._is_trial(), most)
        else:
            self._target = in_flight + max(0, most - (counted or 0))
            if self._is_trial():  # A count that has got stuck must not keep a batch out for ever.
                self._target = max(self._target, 1)

    def has_room(self, in_flight: int) -> bool:
        """Return whether one more job may be submitted in this turn."""
        return in_flight < self._target

    def accept(self, in_flight: int) -> None:
        """
        Note that a job was taken.

        :param in_flight: how many jobs of the batch are in flight now.
        """
        self.refusals = 0
        if self.held is None or in_flight <= self.held:
            return
        self.held, self.patience = in_flight, FIRST_PATIENCE
        if self._is_trial() and not self._by_count:  # there may be room for others, too
            self._target = min(in_flight + 1, self.account or sys.maxsize)

    def refuse(self, in_flight: int, account: int | None = None, pause: float = 0.0) -> None:
        """
        Note that a job was refused, which ends the turn.

        :param in_flight: how many jobs of the batch are in flight.
        :param account: how many slots the account has, where the refusal names a number.
        :param pause: seconds to pause, where it names them.
        """
        self._is_paused = account is None and pause > LONG_PAUSE
        if self.fixed is not None:
            return
        self.account = account or self.account
        self.refusals += 1
        if self._by_count and self.refusals > 1:
            self.is_counted = False
        if self.held is not None and in_flight >= self.held:
            self.patience = min(2 * self.patience, MOST_PATIENCE)
        self.held = max(1, in_flight if self.refusals == 1 else in_flight // 2)
        self.turns = 0
        self._target = in_flight

    def next_turn(self, in_flight: int) -> int | None:
        """Return how few jobs must be in flight for a further turn to be of use; ``None`` where only time helps."""
        return None if self._is_paused or in_flight == 0 else max(0, min(in_flight, self._target) - 1)

    def to_record(self) -> dict[str, Any]:
        """Return what another process must know: plain data."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> QueueSlots:
        """Return the slots of :meth:`to_record`."""
        return cls(**record)

    def _is_trial(self) -> bool:
        return self.turns >= self.patience
