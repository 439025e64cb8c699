"""
The pacemaker: one per event loop and connection, shared by every trigger that waits there.

It owns the HTTP session, opened by the first wait and closed by the last; it decides whose turn it is to look, and
keeps all looks together within what the account may ask. What a reply means for a wait is not known here
(:mod:`airflow_provider_modelslab.waits` knows), nor what a trigger does with it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Reply, Verdict
from airflow_provider_modelslab.schedule import Experience
from airflow_provider_modelslab.transport import MAX_CONNECTIONS
from airflow_provider_modelslab.waits import ACCOUNT_VERDICTS, JobWait

if TYPE_CHECKING:
    import aiohttp

KEY_RENEWAL_GAP = 60.0
"""Seconds between two attempts to find a new key after one was refused."""


class Group:
    """
    The waits of one trigger, as the pacemaker serves them.

    :param waits: the waits that are to be looked at until they are done.
    :param deadline: when the trigger gives up, in seconds since the epoch.
    """

    def __init__(self, waits: Sequence[JobWait], deadline: float) -> None:
        self.deadline = deadline
        self.finished: list[JobWait] = []
        self.account_reply: Reply | None = None
        self.defect: BaseException | None = None
        self.closed = False
        self.ready: deque[JobWait] = deque()
        self.left = len(waits)
        self._news = asyncio.Event()

    async def news(self, timeout: float) -> list[JobWait]:
        """
        Wait until jobs are done, the account is refused, or the time is over; return the jobs that got done.

        :param timeout: seconds.
        """
        handle = asyncio.get_running_loop().call_later(max(0.0, timeout), self._news.set)
        try:
            await self._news.wait()
        finally:
            handle.cancel()
        self._news.clear()
        if self.defect is not None:
            raise self.defect
        finished, self.finished = self.finished, []
        self.left -= len(finished)
        return finished

    def tell(self) -> None:
        """Wake the trigger."""
        self._news.set()


class Pacemaker:
    """
    Looks at jobs for all triggers of one event loop and connection.

    Turns go round among the triggers that have a job due, so that one with thousands of jobs does not keep one with
    a single job waiting; within a trigger the job that is due longest comes first. No two requests leave closer
    together than the connection's ``requests_per_second`` allows, and none at all while ModelsLab asks to stay away.

    :param conn_id: the connection.
    """

    def __init__(self, conn_id: str) -> None:
        self.experience: dict[str, Experience] = {}
        self._hook = ModelsLabHook(conn_id)
        self._users = 0
        self._opening = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._heart: asyncio.Task[None] | None = None
        self._groups: set[Group] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self._timers: list[tuple[float, int, JobWait, Group]] = []
        self._counter = itertools.count()
        self._round: deque[Group] = deque()
        self._wake = asyncio.Event()
        self._next_request = 0.0
        self._quiet_until = 0.0
        self._renewing = asyncio.Lock()
        self._renewed = float("-inf")

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[Pacemaker]:
        """Keep the session open inside the block; the connection is looked up by the first to come."""
        self._users += 1
        try:
            async with self._opening:
                if self._session is None:
                    await self._open()
            yield self
        finally:
            self._users -= 1
            if not self._users:
                # To its end even when the trigger that leaves last is being cancelled.
                await asyncio.shield(asyncio.ensure_future(self._close()))

    def watch(self, waits: Sequence[JobWait], deadline: float) -> Group:
        """Look at the jobs of these waits, each when it is due, until :meth:`forget` is called."""
        if self._heart is None or self._heart.done():
            raise RuntimeError("the pacemaker has stopped")
        group = Group(waits, deadline)
        self._groups.add(group)
        for wait in waits:
            self._set_timer(wait, group)
        self._wake.set()
        return group

    def forget(self, group: Group) -> None:
        """Look no more at the jobs of a group."""
        group.closed = True
        self._groups.discard(group)
        if group.ready:
            group.ready.clear()
            self._round.remove(group)

    def experience_with(self, endpoint: str) -> Experience:
        """Return what has been learned about an endpoint; it grows with every job that gets done."""
        return self.experience.setdefault(endpoint, Experience())

    async def _open(self) -> None:
        self._session = await self._hook.open_async_session()
        # In an empty context: otherwise its log lines would belong to the trigger that happened to come first.
        self._heart = Context().run(asyncio.ensure_future, self._beat(self._session))
        self._heart.add_done_callback(self._heart_stopped)

    async def _close(self) -> None:
        async with self._opening:
            if self._users or self._session is None:
                return
            tasks = [*self._looks, *([self._heart] if self._heart else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._session.close()
            self._session = self._heart = None
            self._timers.clear()
            self._round.clear()
            # The next to come reads the connection anew.
            self._hook = ModelsLabHook(self._hook.modelslab_conn_id)

    async def _beat(self, session: aiohttp.ClientSession) -> None:
        """Send one request after the other, each when it is its turn and the account allows it."""
        while True:
            self._collect_due(time.time())
            if not self._round or len(self._looks) >= MAX_CONNECTIONS:
                await self._sleep(self._timers[0][0] - time.time() if self._timers else 3600.0)
                continue
            pause = max(self._next_request, self._quiet_until) - time.monotonic()
            if pause > 0:
                await self._sleep(pause)
                continue
            wait, group = self._take_turn()
            task = asyncio.ensure_future(self._look(wait, group, session))
            self._looks.add(task)
            task.add_done_callback(self._look_done)
            await asyncio.sleep(0)  # the look begins, and with it the time until the next one may

    async def _sleep(self, seconds: float) -> None:
        handle = asyncio.get_running_loop().call_later(max(0.0, seconds), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            handle.cancel()
        self._wake.clear()

    def _set_timer(self, wait: JobWait, group: Group) -> None:
        now = time.time()
        moment = now + wait.delay(now, group.deadline)
        heapq.heappush(self._timers, (moment, next(self._counter), wait, group))

    def _collect_due(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, _, wait, group = heapq.heappop(self._timers)
            if group.closed:
                continue
            if not group.ready:
                self._round.append(group)
            group.ready.append(wait)

    def _take_turn(self) -> tuple[JobWait, Group]:
        """Return the wait whose turn it is; its group goes to the end of the round if it has more."""
        group = self._round.popleft()
        wait = group.ready.popleft()
        if group.ready:
            self._round.append(group)
        return wait, group

    def _heart_stopped(self, heart: asyncio.Task[None]) -> None:
        """Tell all triggers of a defect, which must not leave them waiting for ever."""
        if not heart.cancelled() and (defect := heart.exception()) is not None:
            for group in self._groups:
                group.defect = defect
                group.tell()

    def _look_done(self, task: asyncio.Task[None]) -> None:
        self._looks.discard(task)
        self._wake.set()

    async def _look(self, wait: JobWait, group: Group, session: aiohttp.ClientSession) -> None:
        if time.monotonic() < self._quiet_until:
            # ModelsLab has asked to stay away since this look was given its turn.
            self._set_timer(wait, group)
            return
        try:
            options = await self._hook.aoptions()
            self._next_request = time.monotonic() + 1 / options.requests_per_second
            reply = await self._hook.alook(wait.job, session)
            if reply.verdict is Verdict.INVALID_KEY and await self._has_other_key_than(options.key):
                reply = await self._hook.alook(wait.job, session)
        except Exception as defect:
            group.defect = defect
            group.tell()
            return
        if reply.verdict is Verdict.RATE_LIMITED:
            self._quiet_until = max(self._quiet_until, time.monotonic() + (reply.retry_after or 0.0))
        self._deliver(reply, wait, group)

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
            self.experience_with(wait.job.endpoint).learn(wait.first_eta, wait.duration)
        group.finished.append(wait)
        group.tell()

    async def _has_other_key_than(self, refused: str) -> bool:
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
            return True


_PACEMAKERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Pacemaker]] = WeakKeyDictionary()


def pacemaker_of(conn_id: str) -> Pacemaker:
    """Return the pacemaker of a connection on the running event loop."""
    pacemakers = _PACEMAKERS.setdefault(asyncio.get_running_loop(), {})
    if conn_id not in pacemakers:
        pacemakers[conn_id] = Pacemaker(conn_id)
    return pacemakers[conn_id]
