"""The reports of pollers to the metrics: each count reaches them once, also when a poller closes during a report."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from airflow_provider_modelslab._polling.reporting import Ends, Reporter
from airflow_provider_modelslab._polling.statistics import PollerStatistics
from airflow_provider_modelslab._protocol.verdicts import Verdict
from tests.support.metrics import RecordedStats, record_metrics
from tests.support.waiting import await_until


class Polled:
    """A poller that has polled once, since the reports on it began."""

    def __init__(self) -> None:
        self.asked = 0

    def statistics(self) -> PollerStatistics:
        self.asked += 1
        replies = {Verdict.SUCCESS: 1} if self.asked > 1 else {}
        return PollerStatistics(replies, triggers=1, waiting=0, due=0, next_due=None, pace=10.0, paused=0.0)

    def take_ends(self) -> Ends:
        return Ends()


def test_a_poller_that_closes_while_a_report_waits_for_a_thread_loses_no_count(monkeypatch):
    stats, poller, reporter, over = RecordedStats(), Polled(), Reporter(), threading.Event()
    record_metrics(monkeypatch, stats)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, over.wait)
        reporter.start(poller, gap=0.0)
        await await_until(lambda: poller.asked > 1)
        closing = asyncio.ensure_future(reporter.stop(poller))
        for _ in range(10):  # turns of the loop, in which it would be cancelled
            await asyncio.sleep(0)
        over.set()
        await asyncio.gather(busy, closing)

    asyncio.run(scenario())
    assert stats.totals("polls") == {("success",): 1}
    assert stats.values("triggerer.waits") == [1, 0]
