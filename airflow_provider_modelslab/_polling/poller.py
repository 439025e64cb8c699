"""
The poller: one per event loop and connection, shared by every trigger that waits there.

It owns the HTTP session, opened by the first wait and closed by the last; it decides whose turn it is to look, and
keeps all polls together within what the account may ask. What a reply means for a wait is not known here
(:mod:`airflow_provider_modelslab._polling.waits` knows), nor what a trigger does with it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Sequence
from contextvars import Context
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from airflow_provider_modelslab._http.connection import MAX_CONNECTIONS
from airflow_provider_modelslab._polling.schedule import DurationModel
from airflow_provider_modelslab._polling.waits import JobWait
from airflow_provider_modelslab._protocol.replies import Reply
from airflow_provider_modelslab._protocol.verdicts import ACCOUNT_VERDICTS, Verdict
from airflow_provider_modelslab.hooks import ModelsLabHook

if TYPE_CHECKING:
    from airflow_provider_modelslab._client import AsyncClient

TICK = 0.001
"""Seconds to which an event loop's timers are good. What the ceiling allows within one leaves together: a turn of the
event loop for each costs more than the request itself where there are thousands a second."""

MARGIN = 0.02
"""Share of the ceiling that is not used: what leaves evenly arrives less so, and ModelsLab counts what arrives."""

KEY_RENEWAL_GAP = 60.0
"""Seconds between two attempts to find a new key after one was refused."""


class Group:
    """
    The waits of one trigger, as the poller serves them.

    :param deadline: when the trigger gives up, in seconds since the epoch.
    """

    # Thousands of triggers have one each.
    __slots__ = (
        "_listener",
        "_told",
        "account_reply",
        "alarm",
        "closed",
        "deadline",
        "defect",
        "finished",
        "left",
        "ready",
    )

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.finished: list[JobWait] = []
        self.account_reply: Reply | None = None
        self.defect: BaseException | None = None
        self.closed = False
        self.ready: dict[JobWait, None] = {}
        self.left = 0
        self.alarm = float("inf")
        self._told = False
        self._listener: asyncio.Future[None] | None = None

    def take(self) -> list[JobWait]:
        """Return the jobs that got done since the last time."""
        self._told = False
        if self.defect is not None:
            raise self.defect
        finished, self.finished = self.finished, []
        self.left -= len(finished)
        return finished

    def listen(self) -> asyncio.Future[None]:
        """Return a future that is done when there is something to take."""
        # No asyncio.Event, which weighs four times as much.
        self._listener = asyncio.get_running_loop().create_future()
        if self._told:
            self._listener.set_result(None)
        return self._listener

    def tell(self) -> None:
        """Wake the trigger."""
        self._told = True
        if self._listener is not None and not self._listener.done():
            self._listener.set_result(None)

    def fail(self, defect: Exception) -> None:
        """Wake the trigger with a defect of this provider, which ends its wait."""
        self.defect = defect
        self.tell()


class Poller:
    """
    Looks at jobs for all triggers of one event loop and connection.

    Every other turn goes round among the triggers that have a job due, so that one with thousands of jobs does not
    keep one with a single job waiting; the turns between go to the jobs that got due behind another one of their
    trigger, the one that is due longest first, so that thousands of triggers with a single job do not starve one with
    many. No two requests leave closer together than the connection's ``requests_per_second`` allows (of thousands,
    those of a millisecond leave together), and none at all while ModelsLab asks to stay away.

    :param conn_id: the connection.
    """

    def __init__(self, conn_id: str) -> None:
        self.durations: dict[str, DurationModel] = {}
        self._hook = ModelsLabHook(conn_id)
        self._users = 0
        self._opening = asyncio.Lock()
        self._session: AsyncClient | None = None
        self._groups: set[Group] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self._timers: list[tuple[float, int, JobWait, Group]] = []
        self._alarms: list[tuple[float, int, Group]] = []
        self._counter = itertools.count()
        self._round: dict[Group, None] = {}
        self._behind: dict[JobWait, Group] = {}
        self._goes_round = False
        self._next_beat: asyncio.TimerHandle | None = None
        # An empty one: otherwise log lines of a poll would belong to the trigger that happened to be there.
        self._context = Context()
        self._beginning = 0
        self._next_request = 0.0
        self._quiet_until = 0.0
        self._renewing = asyncio.Lock()
        self._renewed = float("-inf")

    async def join(self) -> None:
        """Keep the session open until :meth:`leave`; the connection is looked up by the first to come."""
        self._users += 1
        try:
            async with self._opening:
                if self._session is None:
                    await self._open()
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """Undo :meth:`join`; the last to leave closes the session."""
        self._users -= 1
        if not self._users:
            # To its end even when the trigger that leaves last is being cancelled.
            await asyncio.shield(asyncio.ensure_future(self._close()))

    def watch(self, waits: Sequence[JobWait], group: Group) -> None:
        """Look at the jobs of these waits for a group, each when it is due, until :meth:`forget` is called."""
        group.left = len(waits)
        self._groups.add(group)
        for wait in waits:
            self._set_timer(wait, group)

    def forget(self, group: Group) -> None:
        """Look no more at the jobs of a group."""
        group.closed = True
        self._groups.discard(group)
        self._round.pop(group, None)
        for wait in group.ready:
            self._behind.pop(wait, None)
        group.ready.clear()

    def news(self, group: Group, until: float) -> asyncio.Future[None]:
        """
        Return a future that is done when there is something to take from a group, or the time has come.

        :param group: one that is watched for.
        :param until: seconds since the epoch.
        """
        if until < group.alarm:
            group.alarm = until
            heapq.heappush(self._alarms, (until, next(self._counter), group))
            self._beat_in(until - time.time())
        return group.listen()

    def durations_of(self, endpoint: str) -> DurationModel:
        """Return what has been learned about an endpoint; it grows with every job that gets done."""
        return self.durations.setdefault(endpoint, DurationModel())

    async def _open(self) -> None:
        self._session = await self._hook.open_async_client()

    async def _close(self) -> None:
        async with self._opening:
            if self._users or self._session is None:
                return
            polls = list(self._looks)
            for look in polls:
                look.cancel()
            await asyncio.gather(*polls, return_exceptions=True)
            self._looks.clear()  # one that was cancelled before it began has not gone by itself
            await self._session.close()
            self._session = None
            if self._next_beat is not None:
                self._next_beat.cancel()
                self._next_beat = None
            self._timers.clear()
            self._alarms.clear()
            self._round.clear()
            self._behind.clear()
            self._beginning = 0
            # The next to come reads the connection anew.
            self._hook = ModelsLabHook(self._hook.modelslab_conn_id)

    def _timer_is_up(self) -> None:
        self._next_beat = None
        self._beat()

    def _beat(self) -> None:
        """Begin the polls whose turn it is, as far as the account allows them now; beat again when that may change."""
        try:
            now = time.time()
            self._ring_alarms(now)
            self._collect_due(now)
            if self._beginning:
                return  # they beat when they have begun
            if self._round and len(self._looks) < MAX_CONNECTIONS and self._pause() <= 0:
                self._begin_polls()
            else:
                self._beat_for_next()
        except Exception as defect:
            # It must not leave the triggers waiting for ever.
            for group in self._groups:
                group.fail(defect)

    def _pause(self) -> float:
        """Return the seconds until the account allows another request."""
        return max(self._next_request, self._quiet_until) - time.monotonic()

    def _beat_for_next(self) -> None:
        """Beat when a job is due and the account allows a request, and not before: it wakes up the process."""
        now = time.time()
        if self._alarms:
            self._beat_in(self._alarms[0][0] - now)
        if len(self._looks) >= MAX_CONNECTIONS:
            return  # the first to end beats
        if self._round:
            self._beat_in(self._pause())
        elif self._timers:
            self._beat_in(max(self._pause(), self._timers[0][0] - now))

    def _beat_in(self, seconds: float) -> None:
        """Beat after so many seconds, unless a beat comes earlier anyway."""
        loop = asyncio.get_running_loop()
        moment = loop.time() + max(0.0, seconds)
        if self._next_beat is not None:
            if self._next_beat.when() <= moment:
                return
            self._next_beat.cancel()
        self._next_beat = loop.call_at(moment, self._timer_is_up, context=self._context)

    def _begin_polls(self) -> None:
        """Begin one poll; and with it those that the ceiling allows within a tick, where it allows as many."""
        if self._session is None:
            raise RuntimeError("the poller has no session")
        loop = asyncio.get_running_loop()
        self._next_request = time.monotonic()
        end = self._next_request + TICK
        while self._round and self._next_request < end and len(self._looks) < MAX_CONNECTIONS:
            self._next_request += self._gap
            self._beginning += 1
            self._looks.add(loop.create_task(self._poll(*self._take_turn(), self._session)))

    @property
    def _gap(self) -> float:
        """The seconds from one request to the next; the connection was looked up when the session was opened."""
        return (1 + MARGIN) / self._hook.options.requests_per_second

    def _set_timer(self, wait: JobWait, group: Group) -> None:
        now = time.time()
        moment = now + wait.delay(now, group.deadline)
        heapq.heappush(self._timers, (moment, next(self._counter), wait, group))
        self._beat_in(moment - now)

    def _ring_alarms(self, now: float) -> None:
        while self._alarms and self._alarms[0][0] <= now:
            moment, _, group = heapq.heappop(self._alarms)
            if group.alarm == moment:
                group.alarm = float("inf")
                group.tell()

    def _collect_due(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, _, wait, group = heapq.heappop(self._timers)
            if group.closed:
                continue
            if group.ready:
                self._behind[wait] = group
            group.ready[wait] = None
            self._round.setdefault(group)

    def _take_turn(self) -> tuple[JobWait, Group]:
        """Return the wait whose turn it is: the first one of the next trigger, or one that got due behind another."""
        self._goes_round = not self._goes_round
        if self._behind and not self._goes_round:
            wait, group = next(iter(self._behind.items()))
        else:
            group = next(iter(self._round))
            wait = next(iter(group.ready))
            del self._round[group]
            self._round[group] = None  # at the end of the round
        self._behind.pop(wait, None)
        del group.ready[wait]
        if not group.ready:
            del self._round[group]
        return wait, group

    async def _poll(self, wait: JobWait, group: Group, session: AsyncClient) -> None:
        self._beginning -= 1
        try:
            if time.monotonic() < self._quiet_until:
                # ModelsLab has asked to stay away since this look was given its turn.
                self._set_timer(wait, group)
                return
            key = session.options.key
            self._next_request = max(self._next_request, time.monotonic() + self._gap)
            self._beat()
            reply = await session.poll(wait.job)
            if reply.verdict is Verdict.INVALID_KEY and await self._has_other_key_than(key, session):
                reply = await session.poll(wait.job)
            if reply.verdict is Verdict.RATE_LIMITED:
                self._quiet_until = max(self._quiet_until, time.monotonic() + (reply.retry_after or 0.0))
            self._deliver(reply, wait, group)
        except Exception as defect:
            group.fail(defect)
        finally:
            # Not in a callback of the task, which would be a turn of the event loop for each request.
            self._looks.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            if len(self._looks) == MAX_CONNECTIONS - 1:
                self._beat_in(0.0)

    def _deliver(self, reply: Reply, wait: JobWait, group: Group) -> None:
        if group.closed:
            return
        if reply.verdict in ACCOUNT_VERDICTS:
            group.account_reply = reply
            group.tell()
            return
        wait.take(reply, time.time())
        if not wait.job.finished:
            self._set_timer(wait, group)
            return
        if wait.duration is not None:
            self.durations_of(wait.job.endpoint).observe(wait.first_eta, wait.duration)
        group.finished.append(wait)
        group.tell()

    async def _has_other_key_than(self, refused: str, session: AsyncClient) -> bool:
        """Return whether there is another key than the one refused, reading the connection anew if need be."""
        async with self._renewing:
            if (await self._hook.aoptions()).key != refused:
                return True  # others were refused at the same time, and one of them has found it
            if time.monotonic() - self._renewed < KEY_RENEWAL_GAP:
                return False
            self._renewed = time.monotonic()
            renewed = ModelsLabHook(self._hook.modelslab_conn_id)
            try:
                if (await renewed.aoptions()).key == refused:
                    return False
            except Exception:
                return False
            self._hook = renewed
            session.options = await renewed.aoptions()
            return True


_POLLERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()


def poller_of(conn_id: str) -> Poller:
    """Return the poller of a connection on the running event loop."""
    pollers = _POLLERS.setdefault(asyncio.get_running_loop(), {})
    if conn_id not in pollers:
        pollers[conn_id] = Poller(conn_id)
    return pollers[conn_id]
