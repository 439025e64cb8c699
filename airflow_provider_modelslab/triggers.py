"""The trigger: one coroutine in the triggerer that waits for many jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_modelslab._polling import schedule
from airflow_provider_modelslab._polling.poller import Group, Poller, poller_of
from airflow_provider_modelslab._polling.waits import JobWaits
from airflow_provider_modelslab._tasks.events import job_record, write_error, write_event
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError
from airflow_provider_modelslab.jobs import Job

__all__ = ["ModelsLabJobTrigger"]

LINGER = 5.0
"""Seconds that a wait for some of its jobs goes on after that, so that a task is resumed once for several."""

FIRST_PROGRESS_LINE = 30.0
"""Seconds from the start of a wait to the first line about its progress; each further one takes twice as long."""

LONGEST_PROGRESS_GAP = 600.0

LOOK_UPS_OF_A_MISSING_CONNECTION = 5
"""How often a connection that is missing or wrong is looked up, over half a minute, until that is believed."""

CHANGES_GAP = 2.0
"""Seconds between two lines about jobs that got done, at the least."""

_NAMED_IN_A_LINE = 5

_ITEMS_IN_A_ROW = 500
"""Of thousands, before the event loop has a turn again."""


class ModelsLabJobTrigger(BaseTrigger):
    """
    Waits for jobs in the triggerer, and yields one event when the last one is done, or the deadline has come.

    Nothing that may pass ends the wait early: network trouble, server errors and rate limits are retried until
    the deadline. Fetching is read-only, so a trigger that is restarted, or runs twice, does no harm. There is no
    ``on_kill``: ModelsLab cannot cancel a generation.

    The event's payload has ``status`` (``"finished"``, ``"partial"``, ``"timeout"`` or ``"error"``), ``jobs`` (one
    record per job, in the order given, as :meth:`Job.from_dict <airflow_provider_modelslab.jobs.Job.from_dict>`
    takes it), ``state`` and, of an error, ``verdict`` and ``message``. No key and no text of an exception is in
    it, nor in the arguments, which Airflow stores as they are.

    :param modelslab_conn_id: the connection.
    :param jobs: records of the jobs; those already done may be among them.
    :param started: when the wait began, in seconds since the epoch.
    :param deadline: when it ends at the latest, in seconds since the epoch. Absolute, so that a restart of the
        triggerer does not prolong it.
    :param poke_interval: a fixed number of seconds between two polls at a job; ``None`` lets the schedule decide.
    :param seconds_per_request: what one request more must save, in seconds of latency, to be worth it.
    :param max_pending: the wait is over (``"partial"``) when no more than so many jobs are unfinished: an
        operator then has places in the queue to fill. -1 waits for the deadline whatever gets done.
    :param state: plain data that the event hands back as it is.
    """

    def __init__(
        self,
        *,
        modelslab_conn_id: str,
        jobs: Sequence[Mapping[str, Any]],
        started: float,
        deadline: float,
        poke_interval: float | None = None,
        seconds_per_request: float = schedule.SECONDS_PER_REQUEST,
        max_pending: int = 0,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modelslab_conn_id = modelslab_conn_id
        self.jobs = list(jobs)
        self.started = started
        self.deadline = deadline
        self.poke_interval = poke_interval
        self.seconds_per_request = seconds_per_request
        self.max_pending = max_pending
        self.state = dict(state or {})
        self.logger()  # the class's; one for each of thousands of triggers would weigh more than what it waits with
        self._group = Group(deadline)
        self._pacemaker: Poller | None = None
        self._waits: JobWaits  # as the two below, from the moment on that the poller has been joined
        self._report: _Report
        self._end_of_wait: float

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, all plain data."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "modelslab_conn_id": self.modelslab_conn_id,
                "jobs": self.jobs,
                "started": self.started,
                "deadline": self.deadline,
                "poke_interval": self.poke_interval,
                "seconds_per_request": self.seconds_per_request,
                "max_pending": self.max_pending,
                "state": self.state,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the one event. Raises nothing but the cancellation that Airflow asks for."""
        # Thousands of triggers wait here, each inside a greenlet of Airflow's, which keeps a piece of stack per nested
        # call: so what goes deep is done in tasks that end, and the long wait is for a future and nothing else.
        try:
            await asyncio.ensure_future(self._begin())
            while self._pacemaker is not None and (news := self._next_news(self._pacemaker)) is not None:
                await news
            outcome = await asyncio.ensure_future(self._end())
        except ModelsLabArgumentError as error:
            outcome = self._error(f"In the triggerer: {error}")  # our own words about the connection, without the key
        except Exception:
            # A defect of this provider: the details go to the triggerer's log, where the key is masked.
            self.log.exception("The wait broke off")
            outcome = self._error("The wait broke off inside the triggerer; its log says why")
        finally:
            if self._pacemaker is not None:
                self._pacemaker.forget(self._group)
                await self._pacemaker.leave()
        yield TriggerEvent(outcome)  # type: ignore[no-untyped-call]

    async def _begin(self) -> None:
        """Join the poller and let it watch the jobs; without one, the deadline has come."""
        self._pacemaker = poller = await self._join()
        if poller is None:
            return
        jobs = [Job.from_dict(record) async for record in _unhurried(self.jobs)]
        self._waits = JobWaits(jobs, self.started, self.poke_interval, self.seconds_per_request, poller.durations_of)
        await _let_others_run()  # with thousands of jobs, this step and the next take some time each
        self.log.info("Waiting for jobs: %s", self._waits.summary())
        self._report = _Report()
        self._end_of_wait = self.deadline
        await _let_others_run()
        poller.watch(self._waits.unfinished(), self._group)

    def _next_news(self, poller: Poller) -> asyncio.Future[None] | None:
        """Take what has got done; return what to wait for next, or ``None`` when the wait is over."""
        group, report = self._group, self._report
        report.changed += [wait.job for wait in group.take()]
        if group.account_reply is not None or (group.left == 0 and self.max_pending >= 0):
            return None
        now = time.time()
        if group.left <= self.max_pending:
            self._end_of_wait = min(self._end_of_wait, now + LINGER)
        if now >= self._end_of_wait:
            return None
        if now >= report.due:
            report.write(self.log, self._waits)
        return poller.news(group, min(self._end_of_wait, report.due))

    async def _end(self) -> dict[str, Any]:
        """Return the outcome of a wait that is over."""
        if self._pacemaker is None:
            return write_event("timeout", self.jobs, self.state)
        self._pacemaker.forget(self._group)
        if self._report.changed:
            self._report.write(self.log, self._waits)
        status = self._status()
        records = await _records(self._waits.jobs())
        if (reply := self._group.account_reply) is not None:
            return write_error(reply.job.message, records, self.state, reply.verdict)
        return write_event(status, records, self.state)

    def _status(self) -> str:
        if not self._waits.unfinished() and self.max_pending >= 0:
            return "finished"
        return "timeout" if time.time() >= self.deadline else "partial"

    def _error(self, message: str) -> dict[str, Any]:
        return write_error(message, self.jobs, self.state)

    async def _join(self) -> Poller | None:
        """Join the poller of the connection; return ``None`` if that could not be read until the deadline."""
        poller = poller_of(self.modelslab_conn_id)
        failures = 0
        while True:
            try:
                await poller.join()
                return poller
            except Exception as error:
                # Airflow's own services may be away for a while; what they say may hold anything. A connection that
                # the worker has just read may seem undefined then, because secrets backends swallow their errors.
                failures += 1
                if isinstance(error, ModelsLabArgumentError) and failures >= LOOK_UPS_OF_A_MISSING_CONNECTION:
                    raise
                self.log.warning("Connection %r cannot be read now (%s)", self.modelslab_conn_id, type(error).__name__)
            left = self.deadline - time.time()
            if left <= 0:
                return None
            await asyncio.sleep(min(schedule.backoff_delay(failures), left))


class _Report:
    """
    Tells the task's log how a wait goes.

    Jobs that got done are told at once, but at most one line every :data:`CHANGES_GAP` seconds, since each line costs
    the triggerer a round of its own; while nothing changes, a line comes from time to time.
    """

    __slots__ = ("_last", "_progress_due", "_progress_gap", "changed")

    def __init__(self) -> None:
        self.changed: list[Job] = []
        self._last = 0.0
        self._progress_gap = FIRST_PROGRESS_LINE
        self._progress_due = time.time() + self._progress_gap

    @property
    def due(self) -> float:
        """When the next line is due, in seconds since the epoch."""
        return self._last + CHANGES_GAP if self.changed else self._progress_due

    def write(self, log: Any, waits: JobWaits) -> None:
        """Write the line that is due."""
        log.info("%s: %s", _changes(self.changed) if self.changed else "Still waiting", waits.summary())
        if not self.changed:
            self._progress_gap = min(self._progress_gap * 2, LONGEST_PROGRESS_GAP)
        self.changed.clear()
        self._last = time.time()
        self._progress_due = self._last + self._progress_gap


async def _records(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    return [job_record(job) async for job in _unhurried(jobs)]


_Item = TypeVar("_Item")


async def _unhurried(items: Sequence[_Item]) -> AsyncIterator[_Item]:
    """Go through thousands of items without holding up the event loop."""
    for number, item in enumerate(items, 1):
        yield item
        if number % _ITEMS_IN_A_ROW == 0:
            await _let_others_run()


async def _let_others_run() -> None:
    """Let the event loop do what has become due meanwhile."""
    # What waits for a time comes after what is ready already: after one turn, it would run behind the next step.
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _changes(jobs: Sequence[Job]) -> str:
    """Describe jobs that have just got done: by name, or by number where they are many."""
    if len(jobs) <= _NAMED_IN_A_LINE:
        return ", ".join(f"Job {job} {'succeeded' if job.outputs else f'failed ({job.message})'}" for job in jobs)
    failed = sum(job.status == "failed" for job in jobs)
    return f"{len(jobs) - failed} jobs succeeded and {failed} failed"
