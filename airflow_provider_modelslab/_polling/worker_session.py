"""How a worker keeps its requests, from several threads, to the pace that the account allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Lock

from airflow_provider_modelslab._polling.pace import Pace
from airflow_provider_modelslab._polling.policy import Clock
from airflow_provider_modelslab._protocol.replies import Reply
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab.jobs import Job

LONGEST_TURN = 5.0
"""Seconds for which a worker waits for its turn; where it comes later, the request is not sent."""


class WorkerSession:
    """
    Sends the requests of a worker: as they come until the first rate limit, then at a pace. For several threads.

    :param ceiling: requests a second after a rate limit at the most.
    :param clock: the time.
    :ivar paused: seconds without requests that ModelsLab has asked for, those to come included.
    """

    def __init__(self, ceiling: float, clock: Clock) -> None:
        self.paused = 0.0
        self._pace = Pace(ceiling)
        self._clock = clock
        self._lock = Lock()

    def send(self, request: Callable[[], Reply], job: Job) -> Reply:
        """
        Send a request when its turn comes, and return the reply.

        :param request: sends it.
        :param job: what it is about.
        :return: the reply; a rate limit, and nothing sent, where the turn comes later than :data:`LONGEST_TURN`.
        """
        with self._lock:
            now = self._clock.monotonic()
            delay = max(0.0, self._pace.delay(now))
            if delay > LONGEST_TURN:
                message = "not asked: ModelsLab has refused too many requests"
                return Reply(Verdict.RATE_LIMITED, replace(job, message=message), retry_after=delay)
            if self._pace.slowed:
                self._pace.start(now)
        if delay:
            self._clock.sleep(delay)
        started = self._clock.monotonic()
        reply = request()
        # A full queue is no matter of the pace.
        if reply.verdict is Verdict.RATE_LIMITED and reply.queue_slots is None:
            with self._lock:
                self.paused += self._pace.refuse(started, self._clock.monotonic(), reply.retry_after or 0.0)
        return reply
