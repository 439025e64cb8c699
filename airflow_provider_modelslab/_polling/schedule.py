"""
When to ask again: pure functions of what is known about a job and of the time.

Nothing here knows a clock, a network or a reply; times come in and delays, in seconds, go out.

The duration of a job is taken as log-normal, and what is expected of it comes from one straight line: ln(duration)
over ln(ETA), fitted to the jobs of that endpoint that got done. Before there are any, the line says what ETAs are
usually worth. A line covers all that ETAs do: right ones (slope 1), biased ones (shifted), meaningless ones (slope 0).
Looks then begin shortly before the job is likely to be ready, and their gaps grow with the square root of the time
that it has taken, which is close to the best that can be done. An ETA never postpones the polls by itself: where
ETAs are poor, sleeping until the ETA loses minutes.
"""

from __future__ import annotations

import math
from random import Random

MIN_DELAY = 1.0
"""Seconds between two polls at one job, at the least: a triggerer's own loop turns no faster."""

MAX_DELAY = 120.0
"""Seconds between two polls at one job, at the most."""

MAX_FIRST_DELAY = 600.0
"""Seconds from the submission to the first poll, at the most: an ETA may be in another unit than it should."""

MAX_BACKOFF = 60.0
"""Seconds to stay away after faults, at the most."""

SECONDS_PER_REQUEST = 0.4
"""What one request more must save, in seconds of latency, to be worth it: about six requests to a job of a minute."""

_JITTER = 0.1

# What is believed before anything is known: durations around 80 s, within a factor of e**1.2; and jobs that take 1.4
# times their ETA, within a factor of e**0.7. Together that counts as much as a few jobs.
_USUAL_DURATION = math.log(80.0)
_DURATION_SPREAD = 1.2
_USUAL_ETA = math.log(80.0 / 1.4)
_ETA_ERROR = 0.7
_WEIGHT_OF_BELIEF = 3.0

_MEMORY = 400.0
"""Older jobs count less and less: about so many are remembered."""

_LEAST_SPREAD = 0.1


class DurationModel:
    """
    What has been learned about how long the jobs of one endpoint take.

    Weighted means and sums of squares of x = ln(ETA) and y = ln(duration), updated job by job.
    """

    __slots__ = ("_all", "_mean_all", "_mean_x", "_mean_y", "_weight", "_xx", "_xy", "_yy", "_yy_all")

    def __init__(self) -> None:
        duration_variance, error_variance = _DURATION_SPREAD**2, _ETA_ERROR**2
        self._weight = self._all = _WEIGHT_OF_BELIEF
        self._mean_x = _USUAL_ETA
        self._mean_y = self._mean_all = _USUAL_DURATION
        self._xx = _WEIGHT_OF_BELIEF * (duration_variance + error_variance)
        self._xy = self._yy = self._yy_all = _WEIGHT_OF_BELIEF * duration_variance

    def observe(self, eta: float | None, duration: float) -> None:
        """
        Take in a job that got done.

        :param eta: the estimate that ModelsLab gave at first, in seconds, or ``None``.
        :param duration: the seconds that it took.
        """
        kept = 1 - 1 / _MEMORY
        y = math.log(max(duration, 0.1))
        self._all = self._all * kept + 1
        from_mean = y - self._mean_all
        self._mean_all += from_mean / self._all
        self._yy_all = self._yy_all * kept + from_mean * (y - self._mean_all)
        if eta is None or eta <= 0:
            return
        x = math.log(eta)
        self._weight = self._weight * kept + 1
        x_from_mean, y_from_mean = x - self._mean_x, y - self._mean_y
        self._mean_x += x_from_mean / self._weight
        self._mean_y += y_from_mean / self._weight
        self._xx = self._xx * kept + x_from_mean * (x - self._mean_x)
        self._xy = self._xy * kept + x_from_mean * (y - self._mean_y)
        self._yy = self._yy * kept + y_from_mean * (y - self._mean_y)

    def expected_duration(self, eta: float | None) -> tuple[float, float]:
        """
        Return the median of the duration in seconds, and the standard deviation of its logarithm.

        :param eta: ModelsLab's estimate in seconds, or ``None``.
        """
        if eta is None or eta <= 0:
            mean, variance = self._mean_all, self._yy_all / self._all
        else:
            slope = min(max(self._xy / self._xx, 0.0), 1.0)
            mean = self._mean_y + slope * (math.log(eta) - self._mean_x)
            variance = (self._yy - 2 * slope * self._xy + slope**2 * self._xx) / self._weight
        return math.exp(mean), max(_LEAST_SPREAD, math.sqrt(max(variance, 0.0)))


PRIOR = DurationModel()
"""What is believed before any job got done."""


def duration_between(last_poll: float, look: float) -> float:
    """
    Return the likely duration of a job that one poll found in progress and the next one done.

    :param last_poll: seconds from the start to the poll that found it in progress; 0 where there was none. Such jobs
        must count, too: without them, only the slow ones would be learned from.
    :param look: seconds from the start to the poll that found it done.
    """
    return math.sqrt(max(last_poll, look / 2) * look)


def first_delay(eta: float | None, durations: DurationModel = PRIOR) -> float:
    """
    Return the seconds from submission to the first poll: early enough that few jobs are ready before it.

    :param eta: ModelsLab's estimate of the job's duration in seconds, or ``None``.
    :param durations: what has been learned about the endpoint.
    """
    median, spread = durations.expected_duration(eta)
    return min(max(MIN_DELAY, median * math.exp(-1.3 * spread)), MAX_FIRST_DELAY)


def next_delay(
    elapsed: float,
    eta: float | None,
    durations: DurationModel = PRIOR,
    seconds_per_request: float = SECONDS_PER_REQUEST,
) -> float:
    """
    Return the seconds to the next poll at a job that is still in progress.

    :param elapsed: seconds since the job was submitted, or first polled.
    :param eta: ModelsLab's estimate of the job's duration in seconds, or ``None``.
    :param durations: what has been learned about the endpoint.
    :param seconds_per_request: what one request more must save, in seconds of latency, to be worth it.
    """
    median, spread = durations.expected_duration(eta)
    gap = math.sqrt(2.5 * seconds_per_request * spread * max(elapsed, median))
    return min(max(gap, MIN_DELAY), MAX_DELAY)


def backoff_delay(failures: int) -> float:
    """
    Return the seconds to wait after a fault or a doubtful reply: 2, 4, 8, … up to a minute.

    :param failures: how many there have been in a row, this one included.
    """
    return min(2.0 ** min(failures, 10), MAX_BACKOFF)


def jittered(delay: float, random: Random) -> float:
    """Return a delay moved by up to a tenth, so that jobs submitted together are not asked for together."""
    return delay * random.uniform(1 - _JITTER, 1 + _JITTER)


def spread_pause(pause: float, random: Random) -> float:
    """Return the seconds to stay away when asked for a pause: never less, and not all waits to the same second."""
    return max(pause, MIN_DELAY) * random.uniform(1.0, 1.0 + 2 * _JITTER)
