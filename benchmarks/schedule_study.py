"""
How good is the schedule? A seeded simulation: how long ready jobs go unnoticed at the same number of requests.

Each strategy has one number that trades requests for latency. It is set so that a job takes five requests on average,
and then the mean time from ready to noticed is compared: for a fixed interval, for sleeping until the ETA and polling
after it, for the provider's schedule before and after it has seen 200 jobs of the endpoint, and for the optimum, which
knows the distribution and asks with the density sqrt(hazard / 2c).

    python benchmarks/schedule_study.py [--jobs 3000] [--requests 5]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from statistics import NormalDist, fmean

from airflow_provider_modelslab._polling import schedule
from airflow_provider_modelslab._polling.policy import DEFAULT_POLICY

NORMAL = NormalDist()

LEARNED_FROM = 200
"""Jobs of the endpoint that the provider has seen, for "learned"."""


@dataclass(frozen=True)
class Scenario:
    """
    How long jobs take and what ModelsLab says of it.

    :param median: of the duration, in seconds.
    :param spread: standard deviation of ln(duration).
    :param bias: the ETA's median as a multiple of the duration; ``None`` where there is no ETA.
    :param error: standard deviation of ln(ETA / duration); ``None`` where the ETA is always ``bias`` seconds.
    """

    median: float
    spread: float
    bias: float | None = None
    error: float | None = None

    def jobs(self, count: int, seed: int) -> list[tuple[float, float | None]]:
        """Return durations with ETAs."""
        random = Random(f"{self}/{seed}")
        durations = (self.median * math.exp(random.gauss(0, self.spread)) for _ in range(count))
        return [(duration, self._eta(duration, random)) for duration in durations]

    def expected_duration(self, eta: float | None) -> tuple[float, float]:
        """Return what one who knows the scenario expects: the median, and the spread of the logarithm."""
        if self.bias is None or self.error is None or eta is None:
            return self.median, self.spread
        weight, eta_weight = self.spread**-2, self.error**-2
        mean = (math.log(self.median) * weight + math.log(eta / self.bias) * eta_weight) / (weight + eta_weight)
        return math.exp(mean), (weight + eta_weight) ** -0.5

    def _eta(self, duration: float, random: Random) -> float | None:
        if self.bias is None:
            return None
        return self.bias if self.error is None else duration * self.bias * math.exp(random.gauss(0, self.error))


SCENARIOS = {
    "images": Scenario(12, 0.6, 1, 0.3),
    "images under load": Scenario(90, 0.8, 0.3, 0.6),
    "audio": Scenario(60, 0.7, 1, 0.6),
    "video": Scenario(300, 0.5, 1, 0.3),
    "video, poor ETAs": Scenario(300, 0.5, 1, 1.0),
    "no ETA": Scenario(60, 1.0),
    "ETA always 5": Scenario(120, 0.7, 5),
}

Polls = Callable[[float | None], Iterator[float]]
"""A strategy: the moments at which a job with this ETA is polled."""


def fixed_interval(interval: float) -> Polls:
    """Poll at once and then at a fixed pace, as Airflow's sensors do."""

    def polls(eta: float | None) -> Iterator[float]:
        moment = 0.0
        while True:
            yield moment
            moment += max(interval, DEFAULT_POLICY.min_delay)

    return polls


def eta_then_interval(interval: float) -> Polls:
    """Sleep until the ETA and then poll at a fixed pace, as a loop with ``time.sleep(eta)`` does."""

    def polls(eta: float | None) -> Iterator[float]:
        moment = eta or interval
        while True:
            yield moment
            moment += max(interval, DEFAULT_POLICY.min_delay)

    return polls


def provider(durations: schedule.DurationModel, seconds_per_request: float) -> Polls:
    policy = replace(DEFAULT_POLICY, seconds_per_request=seconds_per_request)

    def polls(eta: float | None) -> Iterator[float]:
        moment = schedule.first_delay(eta, durations, policy)
        while True:
            yield moment
            moment += schedule.next_delay(moment, eta, durations, policy)

    return polls


def optimum(scenario: Scenario, seconds_per_request: float) -> Polls:
    def polls(eta: float | None) -> Iterator[float]:
        median, spread = scenario.expected_duration(eta)
        moment = median * math.exp(-5 * spread)
        last = 0.0
        asked_for = 0.0
        while True:
            step = max(0.02 * median * spread, 0.01 * moment)
            asked_for += step * math.sqrt(_hazard(moment + step / 2, median, spread) / (2 * seconds_per_request))
            moment += step
            if asked_for >= 1 and moment - last >= DEFAULT_POLICY.min_delay:
                yield moment
                last, asked_for = moment, 0.0

    return polls


def _hazard(moment: float, median: float, spread: float) -> float:
    deviation = math.log(moment / median) / spread
    survival = 1 - NORMAL.cdf(deviation)
    if survival < 1e-9:
        return deviation / (spread * moment)
    return NORMAL.pdf(deviation) / (survival * spread * moment)


def play(jobs: list[tuple[float, float | None]], polls: Polls) -> tuple[float, float]:
    """Return the mean seconds from ready to noticed, and the mean requests."""
    latencies, requests = [], []
    for duration, eta in jobs:
        for count, moment in enumerate(polls(eta), 1):
            if moment >= duration:
                latencies.append(moment - duration)
                requests.append(count)
                break
    return fmean(latencies), fmean(requests)


def latency_at(requests: float, jobs: list[tuple[float, float | None]], strategy: Callable[[float], Polls]) -> float:
    """Return the mean latency of a strategy when its number is set so that a job takes so many requests."""
    low, high = 1e-3, 1e3
    latency = math.nan
    for _ in range(25):
        number = math.sqrt(low * high)
        latency, used = play(jobs, strategy(number))
        low, high = (number, high) if used > requests else (low, number)
    return latency


def learned(scenario: Scenario, seconds_per_request: float) -> schedule.DurationModel:
    """Return what the provider knows after some jobs, each of which it noticed only at a poll."""
    durations = schedule.DurationModel()
    for duration, eta in scenario.jobs(LEARNED_FROM, seed=2):
        before = 0.0
        for moment in provider(durations, seconds_per_request)(eta):
            if moment >= duration:
                if (estimate := schedule.duration_between(before, moment)) is not None:
                    durations.observe(eta, estimate)
                break
            before = moment
    return durations


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare schedules by simulation.")
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--requests", type=float, default=5.0, help="requests a job")
    options = parser.parse_args()
    write = sys.stdout.write
    unlearned = schedule.DurationModel()
    write(f"Mean seconds from ready to noticed at {options.requests:g} requests a job, {options.jobs} jobs each.\n\n")
    write("| scenario | fixed interval | ETA, then interval | ours, nothing learned | ours, learned | optimum |\n")
    write("|---|---|---|---|---|---|\n")
    for name, scenario in SCENARIOS.items():
        jobs = scenario.jobs(options.jobs, seed=1)
        row = [
            latency_at(options.requests, jobs, fixed_interval),
            latency_at(options.requests, jobs, eta_then_interval),
            latency_at(options.requests, jobs, lambda number: provider(unlearned, number)),
            latency_at(options.requests, jobs, lambda number: provider(learned(scenario, number), number)),  # noqa: B023
            latency_at(options.requests, jobs, lambda number: optimum(scenario, number)),  # noqa: B023
        ]
        write(f"| {name} | {' | '.join(f'{latency:.2f}' for latency in row)} |\n")
        sys.stdout.flush()
    write("\nThe default trade-off: mean requests a job and mean seconds from ready to noticed.\n\n")
    write("| scenario | nothing learned | learned |\n|---|---|---|\n")
    for name, scenario in SCENARIOS.items():
        jobs = scenario.jobs(options.jobs, seed=1)
        default = DEFAULT_POLICY.seconds_per_request
        outcomes = [play(jobs, provider(known, default)) for known in (unlearned, learned(scenario, default))]
        cells = (f"{requests:.1f} requests, {latency:.1f} s" for latency, requests in outcomes)
        write(f"| {name} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
