"""What a poller has done and has before it, as plain numbers: for a log line and for metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_modelslab._protocol.verdicts import Verdict


@dataclass(frozen=True)
class PollerStatistics:
    """
    A poller at a moment.

    :param replies: how many polls brought which verdict, since the poller was opened.
    :param triggers: how many triggers wait.
    :param waiting: how many jobs are unfinished.
    :param due: how many of them are to be polled now and wait for their turn.
    :param next_due: seconds until the next poll; ``None`` while no job waits for one.
    :param pace: how many polls may start in a second.
    :param paused: seconds without polls that ModelsLab has asked this poller for, those to come included.
    """

    replies: Mapping[Verdict, int]
    triggers: int
    waiting: int
    due: int
    next_due: float | None
    pace: float
    paused: float

    @property
    def polls(self) -> int:
        """How many polls have been answered, or have met a fault."""
        return sum(self.replies.values())

    @property
    def faults(self) -> int:
        """How many polls have met a fault of the network or of ModelsLab."""
        return self.replies.get(Verdict.TRANSIENT, 0)

    @property
    def rate_limits(self) -> int:
        """How many polls ModelsLab has refused because they were too many."""
        return self.replies.get(Verdict.RATE_LIMITED, 0)

    def __str__(self) -> str:
        next_due = "none" if self.next_due is None else f"in {self.next_due:.1f} s"
        return (
            f"{self.polls} polls, {self.faults} faults, {self.rate_limits} rate limits, {self.paused:.0f} s paused; "
            f"{self.triggers} triggers wait for {self.waiting} jobs, {self.due} due, next poll {next_due}, "
            f"at most {self.pace:.2f} a second"
        )
