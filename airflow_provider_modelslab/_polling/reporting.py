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
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from airflow_provider_modelslab._polling.statistics import PollerStatistics
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab._telemetry import metrics

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ends:
    """
    What has ended.

    :param jobs: how many jobs of an endpoint ended how, in waits that are over.
    :param times: of jobs for which both are known, the endpoint, the seconds from the submission until it was ready,
        and those from then to the poll that found it so.
    """

    jobs: Counter[tuple[str, Verdict]] = field(default_factory=Counter)
    times: list[tuple[str, float, float]] = field(default_factory=list)


class Reported(Protocol):
    """What is reported on: a poller."""

    def statistics(self) -> PollerStatistics:
        """Return what it has done, and what it has before it."""

    def take_ends(self) -> Ends:
        """Return what has ended since the last call."""


class Reporter:
    """Reports on the open pollers of one event loop."""

    def __init__(self) -> None:
        self._reported: dict[Reported, PollerStatistics] = {}
        self._task: asyncio.Task[None] | None = None
        # A report that is under way comes to its end before the next one, and before the last.
        self._reporting = asyncio.Lock()

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
        async with self._reporting:
            emissions = list(self._news(poller))
            del self._reported[poller]
            if not self._reported and self._task is not None:
                self._task.cancel()
                self._task = None
            await asyncio.to_thread(_emit, [*emissions, self._waiting()])

    async def _report_often(self, gap: float) -> None:
        while True:
            await asyncio.sleep(gap)
            async with self._reporting:
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
        ends = poller.take_ends()
        for (endpoint, verdict), jobs in ends.jobs.items():
            yield partial(metrics.jobs_finished, endpoint, verdict, jobs)
        for times in ends.times:
            yield partial(metrics.job_timed, *times)

    def _waiting(self) -> Callable[[], None]:
        pollers = self._reported.values()
        return partial(
            metrics.waiting,
            triggers=sum(statistics.triggers for statistics in pollers),
            jobs=sum(statistics.waiting for statistics in pollers),
            next_due=min((each.next_due for each in pollers if each.next_due is not None), default=0.0),
        )


def _emit(emissions: list[Callable[[], None]]) -> None:
    for emission in emissions:
        emission()
