"""How patient a wait is, in numbers, and what tells it the time: values that are passed in, so tests choose them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Protocol


@dataclass(frozen=True)
class PollingPolicy:
    """
    The numbers behind a wait; all times in seconds.

    :param min_delay: between two polls at one job, at the least: a triggerer's own loop turns no faster.
    :param max_delay: between two polls at one job, at the most.
    :param min_long_delay: between two polls at a training or a workflow's run, at the least.
    :param max_long_delay: between two such polls, at the most.
    :param max_first_delay: from the submission to the first poll, at the most: an ETA may be in another unit.
    :param max_backoff: after a fault, at the most.
    :param seconds_per_request: the latency that one request more must save to be worth it. 0.4 means about six
        requests to a job of a minute; four times as much means half as many, and jobs found twice as late.
    :param jitter: the share by which delays vary, so that jobs submitted together are not polled together.
    :param last_polls: before the deadline, from when on a job is polled every ``min_delay``.
    :param late_grace: how long a wait goes on that starts after its deadline: enough for another poll.
    :param inconclusive_grace: for which an inconclusive reply must have come again and again before it counts.
    :param not_found_limit: how many times in a row "Request not found" must have come besides.
    :param no_output_limit: how many times in a row a success without any output must have come besides.
    :param empty_error_limit: how many times in a row an error without a reason: running video jobs answer it.
    :param unusable_limit: for which a completed training may not be ready for inference before it counts as done: a
        model that is exported elsewhere never gets ready.
    :param fault_limit: how many polls of a job fail in a row before the log tells.
    :param linger: how long a wait for some of its jobs goes on after that, so that a task resumes once for several.
    :param first_progress_gap: until the first log line of a wait in which nothing happens; each next gap is twice
        as long.
    :param max_progress_gap: between two such lines, at the most.
    :param changes_gap: between two log lines about finished jobs, at the least: each costs the triggerer a round.
    :param update_gap: between two updates of a deferred task's XCom, at the least.
    :param update_spacing: between two such updates of all tasks together, at the least.
    :param brief_wait: seconds for which a task goes on polling on its worker, at the most, where its jobs may be done
        by then. The two processes of a deferral hold workers for as long: a wait never costs much more than twice that.
    :param settling: seconds after a deferral before which no event comes: a scheduler that has not yet read that the
        worker's process has ended would take the task that resumes for one that was killed. A worker often notices that
        only at its next heartbeat, 5 s later (``[workers] min_heartbeat_interval``); then the scheduler has to read it.
        No release is free of that: 3.2.2 spares a task that is scheduled by then, 3.4.0b2 one that is queued, too, or
        running where its executor counts what it has dispatched (LocalExecutor does, CeleryExecutor 3.26 does not).
    :param connection_attempts: how often a missing connection is looked up, over half a minute, until that counts.
    :param renewal_gap: between two look-ups of a connection whose key is refused.
    :param statistics_gap: between two debug lines with a poller's statistics, at the least.
    :param metrics_gap: between two reports of the pollers to Airflow's metrics.
    """

    min_delay: float = 1.0
    max_delay: float = 120.0
    min_long_delay: float = 60.0
    max_long_delay: float = 120.0
    max_first_delay: float = 600.0
    max_backoff: float = 60.0
    seconds_per_request: float = 0.4
    jitter: float = 0.1
    last_polls: float = 2.0
    late_grace: float = 5.0
    inconclusive_grace: float = 30.0
    not_found_limit: int = 3
    no_output_limit: int = 6
    empty_error_limit: int = 10
    unusable_limit: float = 1800.0
    fault_limit: int = 3
    linger: float = 5.0
    first_progress_gap: float = 30.0
    max_progress_gap: float = 600.0
    changes_gap: float = 2.0
    update_gap: float = 5.0
    update_spacing: float = 2.0
    brief_wait: float = 5.0
    settling: float = 8.0
    connection_attempts: int = 5
    renewal_gap: float = 60.0
    statistics_gap: float = 60.0
    metrics_gap: float = 10.0


DEFAULT_POLICY = PollingPolicy()


class Clock(Protocol):
    """What tells the time, and waits for it."""

    def wall(self) -> float:
        """Return the seconds since the epoch: for moments that other processes know, too."""

    def monotonic(self) -> float:
        """Return seconds of a clock that is never set: for everything within a process."""

    def sleep(self, seconds: float) -> None:
        """Block for so long."""


@dataclass(frozen=True)
class Pacing:
    """
    What a wait is paced by.

    :param policy: the numbers.
    :param clock: the time.
    :param random: the chance behind jitter.
    """

    policy: PollingPolicy
    clock: Clock
    random: Random

    def monotonic_of(self, moment: float) -> float:
        """Return what the monotonic clock shows at a moment of the wall clock."""
        return self.clock.monotonic() + moment - self.clock.wall()

    def wall_of(self, moment: float) -> float:
        """Return what the wall clock shows at a moment of the monotonic clock."""
        return self.clock.wall() + moment - self.clock.monotonic()
