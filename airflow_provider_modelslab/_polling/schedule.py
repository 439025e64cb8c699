"""
When to poll again: pure functions of what is known about a job and of the time.

Nothing here knows a clock, a network or a reply; times come in and delays, in seconds, go out.

The duration of a job is taken as log-normal. One straight line predicts it: ln(duration) over ln(ETA), fitted to the
jobs of that endpoint that have finished; before there are any, the line is a prior. A line covers all that ETAs do:
right ones (slope 1), biased ones (shifted), meaningless ones (slope 0). Polls begin shortly before the job is likely
to be ready, and their gaps grow with the square root of the time that it has taken, which is close to the optimum.
An ETA never postpones the polls by itself: where ETAs are poor, sleeping until the ETA loses minutes.
"""

from __future__ import annotations

import math
from random import Random

from airflow_provider_modelslab._polling.policy import DEFAULT_POLICY, PollingPolicy

# The prior: durations around 80 s, within a factor of e**1.2; and jobs that take 1.4 times their ETA, within a factor
# of e**0.7. It counts as much as a few jobs.
_USUAL_DURATION = math.log(80.0)
_DURATION_SPREAD = 1.2
_USUAL_ETA = math.log(80.0 / 1.4)
_ETA_ERROR = 0.7
_PRIOR_WEIGHT = 3.0

_MEMORY = 400.0
"""Older jobs count less and less: about so many are remembered."""

_LEAST_SPREAD = 0.1

_LONGEST = 1e9

_LONG_SHARE = 0.05
"""How late, as a share of its duration, the end of long work may be found; its bounds count more."""

_WIDEST_GAP = 3.0
"""How many times as late as the poll before it a poll may be that still tells a duration."""

_EARLINESS = 1.6
"""
Spreads before the expected end at which the first poll comes.

The jobs that it finds done teach nothing, because no poll has seen them in progress. The later it came, the more of the
quick jobs would be missing, which would move it later still. Here that settles with one job in seven; from 1.3 on, it
ends with every third one, and twice the latency.
"""


class DurationModel:
    """
    What has been learned about how long the jobs of one endpoint take.

    Weighted means and sums of squares of x = ln(ETA) and y = ln(duration), updated job by job.
    """

    def __init__(self) -> None:
        duration_variance, error_variance = _DURATION_SPREAD**2, _ETA_ERROR**2
        self._weight = self._all = _PRIOR_WEIGHT
        self._mean_x = _USUAL_ETA
        self._mean_y = self._mean_all = _USUAL_DURATION
        self._xx = _PRIOR_WEIGHT * (duration_variance + error_variance)
        self._xy = self._yy = self._yy_all = _PRIOR_WEIGHT * duration_variance

    def observe(self, eta: float | None, duration: float) -> None:
        """
        Learn from a finished job.

        :param eta: the estimate that ModelsLab gave at first, in seconds, or ``None``.
        :param duration: the seconds that it took.
        """
        kept = 1 - 1 / _MEMORY
        y = math.log(min(max(duration, 0.1), _LONGEST))
        self._all = self._all * kept + 1
        from_mean = y - self._mean_all
        self._mean_all += from_mean / self._all
        self._yy_all = self._yy_all * kept + from_mean * (y - self._mean_all)
        if eta is None or eta <= 0:
            return
        x = math.log(min(eta, _LONGEST))
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
"""What is known before any job has finished."""


def duration_between(last_poll: float, poll: float) -> float | None:
    """
    Return the likely duration of a job that one poll found in progress and a later one done.

    :param last_poll: seconds from the submission to the last poll that found it in progress.
    :param poll: seconds from the submission to the poll that found it done.
    :return: seconds; ``None`` where the polls are too far apart to tell, as after a pause or an outage.
    """
    if not 0 < last_poll <= poll <= _WIDEST_GAP * last_poll:
        return None
    return math.sqrt(last_poll * poll)


def first_delay(eta: float | None, durations: DurationModel = PRIOR, policy: PollingPolicy = DEFAULT_POLICY) -> float:
    """
    Return the seconds from submission to the first poll: early enough that few jobs are ready before it.

    :param eta: ModelsLab's estimate of the job's duration in seconds, or ``None``.
    :param durations: what has been learned about the endpoint.
    :param policy: the bounds.
    """
    median, spread = durations.expected_duration(eta)
    return min(max(policy.min_delay, median * math.exp(-_EARLINESS * spread)), policy.max_first_delay)


def next_delay(
    elapsed: float,
    eta: float | None,
    durations: DurationModel = PRIOR,
    policy: PollingPolicy = DEFAULT_POLICY,
) -> float:
    """
    Return the seconds to the next poll at a job that is still in progress.

    :param elapsed: seconds since the job was submitted, or first polled.
    :param eta: ModelsLab's estimate of the job's duration in seconds, or ``None``.
    :param durations: what has been learned about the endpoint.
    :param policy: the bounds, and what a request is worth.
    """
    median, spread = durations.expected_duration(eta)
    gap = math.sqrt(2.5 * policy.seconds_per_request * spread * max(elapsed, median))
    return min(max(gap, policy.min_delay), policy.max_delay)


def long_delay(elapsed: float, random: Random, policy: PollingPolicy = DEFAULT_POLICY) -> float:
    """
    Return the seconds to the next poll at work that takes up to hours: a minute at first, two after forty minutes.

    :param elapsed: seconds since the work was started, or first polled.
    :param random: the chance behind jitter.
    :param policy: the bounds.
    """
    delay = max(policy.min_long_delay, _LONG_SHARE * elapsed)
    return min(delay * random.uniform(1.0, 1.0 + policy.jitter), max(policy.max_long_delay, policy.min_long_delay))


def backoff_delay(failures: int, policy: PollingPolicy = DEFAULT_POLICY) -> float:
    """
    Return the seconds to wait after a fault or an inconclusive reply: 2, 4, 8, … up to a minute.

    :param failures: how many there have been in a row, this one included.
    :param policy: the bound.
    """
    return min(2.0 ** min(failures, 10), policy.max_backoff)


def jittered(delay: float, random: Random, policy: PollingPolicy = DEFAULT_POLICY) -> float:
    """Return a delay moved by up to a tenth, so that jobs submitted together are not polled together."""
    return delay * random.uniform(1 - policy.jitter, 1 + policy.jitter)


def spread_pause(pause: float, random: Random, policy: PollingPolicy = DEFAULT_POLICY) -> float:
    """Return the seconds to keep a pause that ModelsLab asks for: never less, and not all waits to the same second."""
    return max(pause, policy.min_delay) * random.uniform(1.0, 1.0 + 2 * policy.jitter)
