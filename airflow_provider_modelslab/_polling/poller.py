"""
The poller: one per event loop and connection, shared by every trigger that waits there.

It owns the HTTP client, opened by the first trigger and closed by the last, and keeps all polls together within what
the account allows: a fair queue, one dispatcher, at most :data:`MAX_CONNECTIONS` requests at a time, and one pause for
all. :mod:`airflow_provider_modelslab._polling.waits` says what a reply means for a wait, and when to poll again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from airflow_provider_modelslab._client import AsyncClient
from airflow_provider_modelslab._http.connection import MAX_CONNECTIONS, ClientOptions
from airflow_provider_modelslab._http.fingerprint import Fingerprint, fingerprint_of
from airflow_provider_modelslab._polling.fair_queue import FairQueue
from airflow_provider_modelslab._polling.pace import Pace
from airflow_provider_modelslab._polling.policy import Pacing
from airflow_provider_modelslab._polling.reporting import Ends, Reporter
from airflow_provider_modelslab._polling.schedule import DurationModel
from airflow_provider_modelslab._polling.statistics import PollerStatistics
from airflow_provider_modelslab._polling.waits import JobWait
from airflow_provider_modelslab._protocol.replies import Reply
from airflow_provider_modelslab._protocol.verdicts import ACCOUNT_VERDICTS, Verdict
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, argument_errors

TIMER_RESOLUTION = 0.001
"""Seconds to which an event loop's timers are good: a shorter pause is not slept, but counts for the next request."""

_log = logging.getLogger(__name__)

LookUp = Callable[[], Awaitable[ClientOptions]]
"""Looks the connection up."""


class ConnectionMoved(ModelsLabArgumentError):
    """
    The connection leads to another host than when the wait started, where its jobs are not known.

    :param conn_id: the connection.
    :param before: what it was.
    :param now: what it is.
    """

    def __init__(self, conn_id: str, before: Fingerprint, now: Fingerprint) -> None:
        hosts = [fingerprint.host or "the official hosts" for fingerprint in (before, now)]
        super().__init__(
            f"Put the host back into connection {conn_id!r}, and wait for the jobs again: they were "
            f"submitted to {hosts[0]}, and the connection now leads to {hosts[1]}, where they are not known"
        )


@dataclass
class News:
    """
    What has happened to the waits of a subscription.

    :param finished: the waits that have ended.
    :param remarks: lines for the log, each with the job that it is about.
    :param refused: whether ModelsLab has refused the account for one of the jobs.
    """

    finished: list[JobWait] = field(default_factory=list)
    remarks: list[tuple[JobWait, str]] = field(default_factory=list)
    refused: bool = False


@dataclass(eq=False)
class Subscription:
    """
    The waits of one trigger, as the poller serves them.

    :param deadline: when the trigger gives up, on the monotonic clock.
    :param news: what the trigger is told next.
    """

    deadline: float
    news: News = field(default_factory=News)
    closed: bool = False
    timers: dict[JobWait, asyncio.TimerHandle] = field(default_factory=dict)
    _defect: BaseException | None = None
    _notified: asyncio.Event = field(default_factory=asyncio.Event)

    def notify(self, defect: BaseException | None = None) -> None:
        """Wake the trigger; a defect of this provider ends its wait."""
        self._defect = defect or self._defect
        self._notified.set()

    async def wait(self, seconds: float) -> News:
        """
        Wait for news, but no longer than so many seconds, and return them.

        :raises Exception: a defect of this provider.
        """
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._notified.wait(), max(0.0, seconds))
        if self._defect is not None:
            raise self._defect
        self._notified.clear()
        news, self.news = self.news, News()
        return news


class Poller:
    """
    Polls jobs for all triggers of one event loop that started with the same connection.

    :param options: the connection's options.
    :param fingerprint: what tells them from others.
    :param look_up: looks the connection up again, should its key be refused.
    :param pacing: policy, clock and chance.
    :param pace: how fast polls may start, of all triggers together.
    :param durations: what the finished jobs of each endpoint have taught; it grows with every further one.
    """

    def __init__(
        self,
        options: ClientOptions,
        fingerprint: Fingerprint,
        look_up: LookUp,
        pacing: Pacing,
        pace: Pace,
        durations: Mapping[str, DurationModel],
    ) -> None:
        self.durations = durations
        self.fingerprint = fingerprint
        self.pace = pace
        self.users = 0
        self._options = options
        self._look_up = look_up
        self._now = pacing.clock.monotonic
        self._renewal_gap = pacing.policy.renewal_gap
        self._clients: list[AsyncClient] = []  # the last one is in use; those before it had a key that was refused
        self._opening = asyncio.Lock()
        self._renewing = asyncio.Lock()
        self._renewed = float("-inf")
        self._queue: FairQueue[Subscription, JobWait] = FairQueue()
        self._wake = asyncio.Event()
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self._subscriptions: set[Subscription] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._replies: Counter[Verdict] = Counter()
        self._paused = 0.0
        self._ends = Ends()
        self._next_line = float("-inf")
        self._line_gap = pacing.policy.statistics_gap

    async def open(self) -> None:
        """Open the client, unless that has been done."""
        async with self._opening:
            if not self._clients:
                self._clients.append(await AsyncClient.open(self._options))
                self._start(self._dispatch())

    async def close(self) -> None:
        """Stop polling and close the client."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients:
            await client.close()
        self._clients.clear()

    def statistics(self) -> PollerStatistics:
        """Return what this poller has done, and what it has before it."""
        timers = [timer for subscription in self._subscriptions for timer in subscription.timers.values()]
        moments = [timer.when() - asyncio.get_running_loop().time() for timer in timers]
        now, due = self._now(), len(self._queue)
        if due:
            moments.append(self.pace.delay(now))
        return PollerStatistics(
            replies=dict(self._replies),
            triggers=len(self._subscriptions),
            waiting=len(timers) + due + max(0, len(self._tasks) - 1),  # the dispatcher is a task, too
            due=due,
            next_due=max(0.0, min(moments)) if moments else None,
            pace=self.pace.rate(now),
            paused=self._paused,
        )

    def count_ends(self, waits: Iterable[JobWait]) -> None:
        """
        Count the jobs of a wait that is over, as far as they have finished.

        Not before: a triggerer that takes over a wait polls all its jobs again.
        """
        self._ends.jobs.update((wait.job.endpoint, end) for wait in waits if (end := wait.end) is not None)

    def take_ends(self) -> Ends:
        """Return what has ended since the last call."""
        ends, self._ends = self._ends, Ends()
        return ends

    @contextmanager
    def subscribed(self, waits: Sequence[JobWait], deadline: float) -> Iterator[Subscription]:
        """
        Poll the jobs of some waits, each when it is due.

        :param waits: the waits.
        :param deadline: when the trigger gives up, on the monotonic clock.
        """
        subscription = Subscription(deadline)
        self._subscriptions.add(subscription)
        for wait in waits:
            self._set_timer(wait, subscription)
        try:
            yield subscription
        finally:
            subscription.closed = True
            self._subscriptions.discard(subscription)
            self._queue.discard(subscription)
            for timer in subscription.timers.values():
                timer.cancel()
            subscription.timers.clear()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # In an empty context: otherwise log lines would belong to the trigger that happened to be there.
        task = Context().run(asyncio.ensure_future, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _set_timer(self, wait: JobWait, subscription: Subscription) -> None:
        delay = wait.delay(subscription.deadline)
        loop = asyncio.get_running_loop()
        subscription.timers[wait] = loop.call_later(delay, self._enqueue, wait, subscription)

    def _enqueue(self, wait: JobWait, subscription: Subscription) -> None:
        subscription.timers.pop(wait, None)
        if not subscription.closed:
            self._queue.push(subscription, wait)
            self._wake.set()

    async def _dispatch(self) -> None:
        """Start the polls that are due, one after the other, as fast as the account allows."""
        try:
            while True:
                await self._wake.wait()
                pause = self.pace.delay(self._now())
                if pause > TIMER_RESOLUTION:
                    await asyncio.sleep(pause)
                    continue
                await self._connections.acquire()
                if not self._queue:
                    self._connections.release()
                    self._wake.clear()
                    continue
                self.pace.start(self._now())
                subscription, wait = self._queue.pop()
                self._start(self._poll(wait, subscription))
        except Exception as defect:  # it must not leave the triggers waiting for ever
            for subscription in self._subscriptions:
                subscription.notify(defect)

    async def _poll(self, wait: JobWait, subscription: Subscription) -> None:
        """Poll a job with one request, or with a second one where the first had a key that was no longer valid."""
        try:
            started = self._now()
            if started < self.pace.quiet_until:  # ModelsLab has asked for a pause since the dispatcher started this
                self._enqueue(wait, subscription)
                return
            client = self._clients[-1]
            reply = await client.poll(wait.job)
            if reply.verdict is Verdict.INVALID_KEY and await self._has_other_key_than(client.options.key):
                reply = await self._clients[-1].poll(wait.job)
            self._count(reply, started)
            self._deliver(reply, wait, subscription)
        except Exception as defect:
            subscription.notify(defect)
        finally:
            self._connections.release()

    def _deliver(self, reply: Reply, wait: JobWait, subscription: Subscription) -> None:
        if subscription.closed:
            return
        if remark := wait.take(reply):
            subscription.news.remarks.append((wait, remark))
            subscription.notify()
        if reply.verdict in ACCOUNT_VERDICTS:
            subscription.news.refused = True
            subscription.notify()
            if len(wait.refusals) == 1:
                self._hasten_another(subscription)
        if not wait.job.finished:
            self._set_timer(wait, subscription)
            return
        subscription.news.finished.append(wait)
        subscription.notify()
        try:
            if wait.duration is not None:
                self._ends.times.append((wait.job.endpoint, wait.duration, wait.noticed_after))
                self.durations[wait.job.endpoint].observe(wait.first_eta, wait.duration)
        except Exception:  # a job that is done and paid for does not depend on what it teaches
            _log.exception("The duration of job %s does not count for the moments of later polls", wait.job)

    def _count(self, reply: Reply, started: float) -> None:
        """Count a reply, slow down where it asks for that, and log the statistics now and then."""
        now = self._now()
        self._replies[reply.verdict] += 1
        if reply.verdict is Verdict.RATE_LIMITED:
            self._paused += self.pace.refuse(started, now, reply.retry_after or 0.0)
        if now >= self._next_line:
            self._next_line = now + self._line_gap
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("Polling %s: %s", self._options.base_url or "ModelsLab", self.statistics())

    def _hasten_another(self, subscription: Subscription) -> None:
        """Poll another job now, whose reply tells whether the account is refused or a job."""
        for wait in subscription.timers:
            if not wait.refusals:
                subscription.timers[wait].cancel()
                self._enqueue(wait, subscription)
                return

    async def _has_other_key_than(self, refused: str) -> bool:
        """Whether there is another key than the one refused; the connection is looked up for it now and then."""
        async with self._renewing:
            if self._clients[-1].options.key != refused:
                return True  # others were refused at the same time, and one of them has found it
            if self._now() - self._renewed < self._renewal_gap:
                return False
            self._renewed = self._now()
            try:
                options = await self._look_up()
                if options.key == refused or options.base_url != self._options.base_url:
                    return False
                self._clients.append(await AsyncClient.open(options))
                self.fingerprint = await asyncio.to_thread(fingerprint_of, options)
            except Exception:
                return False
            self._options = options
            self.pace.ceiling = options.requests_per_second
            return True


@dataclass
class Pollers:
    """The pollers of one event loop, by connection and by the fingerprints that lead to them."""

    _pollers: dict[tuple[str, Fingerprint | None], Poller] = field(default_factory=dict)
    _look_ups: dict[tuple[str, Fingerprint | None], asyncio.Task[Poller]] = field(default_factory=dict)
    _paces: dict[tuple[str, str], Pace] = field(default_factory=dict)
    _durations: dict[str, dict[str, DurationModel]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(DurationModel))
    )
    _reporter: Reporter = field(default_factory=Reporter)

    @asynccontextmanager
    async def joined(
        self, conn_id: str, started_with: Fingerprint | None, look_up: LookUp, pacing: Pacing
    ) -> AsyncIterator[Poller]:
        """
        Return the poller for a wait, and keep it open for that long.

        :param conn_id: the connection.
        :param started_with: what the connection was when the wait started; ``None`` where that is not known.
        :param look_up: looks the connection up.
        :param pacing: policy, clock and chance.
        :raises ModelsLabArgumentError: the connection cannot be used; a :class:`ConnectionMoved` where it leads to
            another host by now.
        """
        address = conn_id, started_with
        poller = self._pollers.get(address)
        if poller is None:
            # One look-up for all that come at the same time, and not the business of the first that may be cancelled.
            if address not in self._look_ups:
                self._look_ups[address] = asyncio.ensure_future(self._find(address, look_up, pacing))
                self._look_ups[address].add_done_callback(lambda task: self._look_ups.pop(address, None))
            found = await asyncio.shield(self._look_ups[address])
            poller = self._pollers.setdefault((conn_id, found.fingerprint), found)
            self._pollers[address] = poller
        poller.users += 1
        try:
            with argument_errors(f"Correct connection {conn_id!r}: "):
                await poller.open()
            self._reporter.start(poller, pacing.policy.metrics_gap)
            yield poller
        finally:
            poller.users -= 1
            if not poller.users:
                self._pollers = {address: other for address, other in self._pollers.items() if other is not poller}
                # To its end even when the trigger that leaves last is being cancelled.
                await asyncio.shield(asyncio.ensure_future(self._close(poller)))

    async def _close(self, poller: Poller) -> None:
        await poller.close()
        await self._reporter.stop(poller)

    async def _find(self, address: tuple[str, Fingerprint | None], look_up: LookUp, pacing: Pacing) -> Poller:
        """Look the connection up, and return a poller for what it is now."""
        conn_id, started_with = address
        options = await look_up()
        fingerprint = await asyncio.to_thread(fingerprint_of, options)
        if started_with is not None and started_with.host != fingerprint.host:
            raise ConnectionMoved(conn_id, started_with, fingerprint)
        pace = self._paces.setdefault((conn_id, fingerprint.host), Pace(options.requests_per_second))
        pace.ceiling = options.requests_per_second
        return Poller(options, fingerprint, look_up, pacing, pace, self._durations[conn_id])


_POLLERS: WeakKeyDictionary[asyncio.AbstractEventLoop, Pollers] = WeakKeyDictionary()


def pollers() -> Pollers:
    """Return the pollers of the running event loop; what was learned on others is forgotten once they are closed."""
    for loop in [loop for loop in _POLLERS if loop.is_closed()]:
        del _POLLERS[loop]
    return _POLLERS.setdefault(asyncio.get_running_loop(), Pollers())
