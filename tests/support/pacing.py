"""Waiting with other numbers, and on a clock that a test moves."""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from airflow_provider_modelslab._polling.clock import DEFAULT_PACING
from airflow_provider_modelslab._polling.policy import DEFAULT_POLICY, Pacing
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger

AT_ONCE = {"brief_wait": 0.0, "settling": 0.0}
"""Tasks defer at once, and triggers tell at once; tests of that say otherwise."""

FAST = {"min_delay": 0.01, "max_backoff": 0.01}


def set_policy(monkeypatch: pytest.MonkeyPatch, **numbers: Any) -> None:
    """Let hooks and triggers wait by these numbers, and the usual ones besides."""
    pacing = replace(DEFAULT_PACING, policy=replace(DEFAULT_POLICY, **{**AT_ONCE, **numbers}))
    _set_pacing(monkeypatch, pacing)


def _set_pacing(monkeypatch: pytest.MonkeyPatch, pacing: Pacing) -> None:
    for waiting in (ModelsLabHook, ModelsLabJobTrigger):
        monkeypatch.setattr(waiting, "pacing", pacing)


class SimulatedClock:
    """A clock that moves when it is told to, and when somebody sleeps."""

    def __init__(self, wall: float = 1_000_000.0, monotonic: float = 500.0) -> None:
        self.time = wall
        self.passed = monotonic
        self.naps: list[float] = []

    def wall(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.move(seconds)

    def move(self, seconds: float) -> None:
        self.time += seconds
        self.passed += seconds


def simulated(clock: SimulatedClock | None = None, **numbers: Any) -> Pacing:
    """Return a pacing on a simulated clock, without jitter unless it is asked for."""
    return Pacing(
        replace(DEFAULT_POLICY, **{"jitter": 0.0, **AT_ONCE, **numbers}), clock or SimulatedClock(), Random(1)
    )


def simulate(monkeypatch: pytest.MonkeyPatch, **numbers: Any) -> SimulatedClock:
    """
    Let hooks and triggers wait by these numbers on a simulated clock, and return it: a wait takes as long as its requests.

    Triggers run on it in :func:`tests.support.triggers.event_of`.
    """
    clock = SimulatedClock(time.time())
    _set_pacing(monkeypatch, simulated(clock, **numbers))
    return clock
