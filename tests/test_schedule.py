from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_modelslab.schedule import (
    MAX_DELAY,
    MIN_DELAY,
    backoff_delay,
    first_delay,
    jittered,
    next_delay,
    spread_pause,
)

etas = st.none() | st.floats(0, 1e9)


@given(etas, st.floats(0, 1e9))
def test_delays_stay_between_a_second_and_a_minute(eta, elapsed):
    assert MIN_DELAY <= first_delay(eta) <= MAX_DELAY
    assert MIN_DELAY <= next_delay(elapsed, eta) <= MAX_DELAY


@given(etas, st.floats(0, 1e6), st.floats(0, 1e6))
def test_gaps_only_grow(eta, elapsed, later):
    assert next_delay(elapsed, eta) <= next_delay(elapsed + later, eta)


@given(st.floats(4, 1e6))
def test_the_first_look_does_not_wait_for_the_eta(eta):
    assert first_delay(eta) <= eta


def test_longer_etas_are_asked_for_later_and_less_often():
    assert first_delay(5) < first_delay(60) < first_delay(300)
    assert next_delay(0, 5) < next_delay(0, 60) < next_delay(0, 300)


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
