"""
What the pollers of an event loop hand to the metrics: not with every poll, but every few seconds and in a thread.

So a poll costs no more for it, and a backend that is slow, or is loaded at its first use, holds up no trigger.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from typing import NamedTuple, Protocol

from airflow_provider_modelslab._polling.statistics import PollerStatistics
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab._telemetry import metrics

_log = logging.getLogger(__name__)


class FinishedJob(NamedTuple):
    """
    A job that a wait has found done or failed.

    :param endpoint: its family.
    :param verdict: what the last reply said.
    :param duration: seconds from its submission until it was ready; ``None`` where that cannot be told.
    :param noticed_after: then: seconds from then to the poll that found it so.
    """

    endpoint: str
    verdict: Verdict
    duration: float | None
    noticed_after: float


class Reported(Protocol):
    """What is reported on: a poller."""

    def statistics(self) -> PollerStatistics:
        """Return what it has done, and what it has before it."""

    def take_finished(self) -> list[FinishedJob]:
        """Return the jobs that have finished since the last call."""


class Reporter:
    """Reports on the open pollers of one event loop."""

    def __init__(self) -> None:
        self._reported: dict[Reported, PollerStatistics] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, poller: Reported, gap: float) -> None:
        """
        Report on a poller from now on, unless that is done.

        :param poller: the poller, which is open.
        :param gap: seconds between two reports, of all pollers together.
        """
        if poller in self._reported:
            return
        self._reported[poller] = poller.statistics()
        if self._task is None:
            # In an empty context, as all tasks that outlive the trigger that happened to start them.
            self._task = Context().run(asyncio.ensure_future, self._report_often(gap))

    async def stop(self, poller: Reported) -> None:
        """Report on a poller for the last time; it has closed."""
        if poller not in self._reported:
            return
        emissions = list(self._news(poller))
        del self._reported[poller]
        if not self._reported and self._task is not None:
            self._task.cancel()
            self._task = None
        await asyncio.to_thread(_emit, [*emissions, self._waiting()])

    async def _report_often(self, gap: float) -> None:
        while True:
            await asyncio.sleep(gap)
            try:
                news = [emission for poller in self._reported for emission in self._news(poller)]
                await asyncio.to_thread(_emit, [*news, self._waiting()])
            except Exception:  # the waits do not depend on it
                _log.exception("The metrics were not reported")

    def _news(self, poller: Reported) -> Iterator[Callable[[], None]]:
        """Yield what has happened since the last report."""
        now, before = poller.statistics(), self._reported[poller]
        self._reported[poller] = now
        for verdict, polls in now.replies.items():
            yield partial(metrics.polled, verdict, polls - before.replies.get(verdict, 0))
        yield partial(metrics.paused, "polls", now.paused - before.paused)
        finished = poller.take_finished()
        for (endpoint, verdict), jobs in Counter((job.endpoint, job.verdict) for job in finished).items():
            yield partial(metrics.jobs_finished, endpoint, verdict, jobs)
        for job in finished:
            if job.duration is not None:
                yield partial(metrics.job_timed, job.endpoint, job.duration, job.noticed_after)

    def _waiting(self) -> Callable[[], None]:
        open_pollers = self._reported.values()
        jobs = sum(statistics.waiting for statistics in open_pollers)
        return partial(metrics.waiting, sum(statistics.triggers for statistics in open_pollers), jobs)


def _emit(emissions: list[Callable[[], None]]) -> None:
    for emission in emissions:
        emission()
