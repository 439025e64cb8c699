from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_modelslab._polling.policy import DEFAULT_POLICY as POLICY
from airflow_provider_modelslab._polling.schedule import (
    PRIOR,
    DurationModel,
    backoff_delay,
    duration_between,
    first_delay,
    jittered,
    next_delay,
    spread_pause,
)

etas = st.none() | st.floats(0, 1e9)


@given(etas, st.floats(0, 1e9))
def test_gaps_stay_between_their_bounds(eta, elapsed):
    assert POLICY.min_delay <= next_delay(elapsed, eta) <= POLICY.max_delay


@given(etas)
def test_the_first_poll_is_before_the_expected_end(eta):
    median, _ = PRIOR.expected_duration(eta)
    assert POLICY.min_delay <= first_delay(eta) <= max(POLICY.min_delay, median)


@given(etas, st.floats(0, 1e6), st.floats(0, 1e6))
def test_gaps_only_grow(eta, elapsed, later):
    assert next_delay(elapsed, eta) <= next_delay(elapsed + later, eta)


@given(st.floats(20, 1e6))
def test_the_first_poll_does_not_wait_for_the_eta(eta):
    assert first_delay(eta) <= eta


@pytest.mark.parametrize("seconds", [12_000.0, 1e9])
def test_an_eta_in_another_unit_postpones_the_first_poll_by_minutes_only(seconds):
    assert first_delay(seconds) == POLICY.max_first_delay


def test_longer_etas_are_polled_later_and_less_often():
    assert first_delay(5) < first_delay(60) < first_delay(300)
    assert next_delay(0, 5) < next_delay(0, 60) < next_delay(0, 300)


def learned(jobs: list[tuple[float | None, float]]) -> DurationModel:
    durations = DurationModel()
    for eta, duration in jobs:
        durations.observe(eta, duration)
    return durations


def durations(median: float, spread: float, count: int = 300) -> list[float]:
    random = Random(1)
    return [median * math.exp(random.gauss(0, spread)) for _ in range(count)]


def test_etas_that_are_right_are_learned_to_be_trusted():
    model = learned([(duration, duration) for duration in durations(300, 0.5)])
    for eta in (200, 300, 500):
        median, spread = model.expected_duration(eta)
        assert median == pytest.approx(eta, rel=0.15)
        assert spread < 0.25


def test_a_bias_is_learned():
    model = learned([(duration * 0.3, duration) for duration in durations(90, 0.8)])
    assert model.expected_duration(30)[0] == pytest.approx(100, rel=0.2)


def test_etas_that_say_nothing_are_learned_to_be_ignored():
    model = learned([(5.0, duration) for duration in durations(120, 0.7)])
    median, spread = model.expected_duration(5.0)
    assert median == pytest.approx(120, rel=0.2)
    assert spread == pytest.approx(0.7, rel=0.25)


def test_durations_without_etas_are_learned():
    model = learned([(None, duration) for duration in durations(60, 1.0)])
    assert model.expected_duration(None)[0] == pytest.approx(60, rel=0.2)
    assert model.expected_duration(None)[1] == pytest.approx(1.0, rel=0.2)


def test_a_change_is_learned():
    model = learned([(None, each) for each in durations(10, 0.3, 1000) + durations(100, 0.3, 1500)])
    assert model.expected_duration(None)[0] == pytest.approx(100, rel=0.3)


@given(st.lists(st.tuples(st.none() | st.floats(-1, 1e9), st.floats(0, 1e9)), max_size=50), etas)
def test_whatever_is_learned_the_delays_stay_sane(jobs, eta):
    model = learned(jobs)
    median, spread = model.expected_duration(eta)
    assert 0 < median < math.inf
    assert 0 < spread < math.inf
    assert POLICY.min_delay <= next_delay(1.0, eta, model) <= POLICY.max_delay


def requests_for(duration: float, eta: float | None) -> int:
    """Play a wait: how many requests it takes until a job of this duration is noticed."""
    now, requests = first_delay(eta), 1
    while now < duration:
        now += next_delay(now, eta)
        requests += 1
    return requests


def test_a_wait_takes_few_requests():
    assert requests_for(duration=12, eta=12) <= 8
    assert requests_for(duration=60, eta=60) <= 14
    assert requests_for(duration=600, eta=300) <= 80
    assert requests_for(duration=3600, eta=None) <= 150


def test_backoff_doubles_up_to_a_minute():
    assert [backoff_delay(failures) for failures in (1, 2, 3, 6, 1000)] == [2, 4, 8, 60, 60]


@given(st.floats(1, 60), st.randoms(use_true_random=False))
def test_jitter_moves_by_a_tenth(delay, random: Random):
    assert 0.9 * delay <= jittered(delay, random) <= 1.1 * delay


@given(st.floats(0, 1e4), st.randoms(use_true_random=False))
def test_a_pause_is_never_cut_short(pause, random: Random):
    assert spread_pause(pause, random) >= pause


@given(st.floats(0.001, 1e9), st.floats(1, 3))
def test_a_duration_lies_between_two_polls(last_poll, times):
    duration = duration_between(last_poll, last_poll * times)
    assert duration is None or last_poll * 0.999 <= duration <= last_poll * times * 1.001


@pytest.mark.parametrize(("last_poll", "poll"), [(0, 10), (-5, 10), (10, -5), (20, 10), (0.1, 10), (60, 3600)])
def test_polls_that_are_far_apart_or_out_of_order_tell_no_duration(last_poll, poll):
    assert duration_between(last_poll, poll) is None


@pytest.mark.parametrize("spread", [0.4, 0.8, 1.2])
def test_learning_from_jobs_seen_in_progress_only_leaves_most_of_them_to_be_seen(spread):
    model, first_polls = DurationModel(), 0
    for duration in durations(60, spread, 3000):
        last_poll, now = 0.0, first_delay(None, model)
        while now < duration:
            last_poll, now = now, now + next_delay(now, None, model)
        if learned := duration_between(last_poll, now):
            model.observe(None, learned)
        first_polls += not last_poll
    assert first_polls < 0.25 * 3000
