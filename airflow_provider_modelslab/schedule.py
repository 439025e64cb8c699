"""
When to ask again: pure functions of what is known about a job and of the time.

Nothing here knows a clock, a network or a reply; times come in and delays, in seconds, go out. The pacing
treats the duration of a job as log-normal around what its ETA and experience suggest. It never puts off the
first look because an ETA says so: where ETAs are poor, sleeping until the ETA loses minutes.
"""

from __future__ import annotations

import math
from random import Random

MIN_DELAY = 1.0
"""Seconds between two looks at one job, at the least: a triggerer's own loop turns no faster."""

MAX_DELAY = 60.0
"""Seconds between two looks at one job, at the most."""

_COST_OF_A_REQUEST = 0.2
"""Seconds of latency that one request more must save to be worth it."""

_JITTER = 0.1

# What is believed before anything is known: mean and spread of ln(duration), and of ln(duration / ETA).
_PRIOR_DURATION = (math.log(30.0), 1.2)
_PRIOR_RATIO = (0.0, 0.7)


def first_delay(eta: float | None) -> float:
    """
    Return the seconds from submission to the first look: early enough that few jobs are ready before it.

    :param eta: ModelsLab's estimate of the job's duration in seconds, or ``None``.
    """
    median, spread = _expected_duration(eta)
    return _clip(median * math.exp(-1.3 * spread))


def next_delay(elapsed: float, eta: float | None) -> float:
    """
    Return the seconds to the next look at a job that is still in progress.

    The gaps grow with the square root of the time that the job has taken: the longer it takes already,
    the longer it may take still.

    :param elapsed: seconds since the job was submitted, or first looked at.
    :param eta: ModelsLab's estimate of the job's duration in seconds, or ``None``.
    """
    median, spread = _expected_duration(eta)
    return _clip(math.sqrt(2.5 * _COST_OF_A_REQUEST * spread * max(elapsed, median)))


def backoff_delay(failures: int) -> float:
    """
    Return the seconds to wait after a fault or a doubtful reply: 2, 4, 8, … up to a minute.

    :param failures: how many there have been in a row, this one included.
    """
    return _clip(2.0 ** min(failures, 10))


def jittered(delay: float, random: Random) -> float:
    """Return a delay moved by up to a tenth, so that jobs submitted together are not asked for together."""
    return delay * random.uniform(1 - _JITTER, 1 + _JITTER)


def spread_pause(pause: float, random: Random) -> float:
    """Return the seconds to stay away when asked for a pause: never less, and not all waits to the same second."""
    return max(pause, MIN_DELAY) * random.uniform(1.0, 1.0 + 2 * _JITTER)


def _expected_duration(eta: float | None) -> tuple[float, float]:
    """Return the median and the log-spread of a job's duration: the prior and the ETA, weighted by precision."""
    mean, spread = _PRIOR_DURATION
    if eta is None or eta <= 0:
        return math.exp(mean), spread
    bias, error = _PRIOR_RATIO
    weight, eta_weight = spread**-2, error**-2
    combined = (mean * weight + (math.log(eta) + bias) * eta_weight) / (weight + eta_weight)
    return math.exp(combined), (weight + eta_weight) ** -0.5


def _clip(delay: float) -> float:
    return min(max(delay, MIN_DELAY), MAX_DELAY)
