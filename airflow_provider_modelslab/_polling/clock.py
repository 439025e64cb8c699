"""The time and the chance of this machine."""

from __future__ import annotations

import time
from random import Random

from airflow_provider_modelslab._polling.policy import DEFAULT_POLICY, Pacing


class SystemClock:
    """The clocks of the operating system."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


DEFAULT_PACING = Pacing(DEFAULT_POLICY, SystemClock(), Random())
