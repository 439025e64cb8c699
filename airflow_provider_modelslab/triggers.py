"""The trigger: one coroutine in the triggerer that waits for many jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_modelslab import schedule
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError
from airflow_provider_modelslab.jobs import Job, Reply
from airflow_provider_modelslab.pacemaker import Pacemaker, pacemaker_of
from airflow_provider_modelslab.waits import JobWaits

EVENT_STATUSES = ("finished", "partial", "timeout", "error")

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
    takes it), ``carried`` and, of an error, ``verdict`` and ``message``. No key and no text of an exception is in
    it, nor in the arguments, which Airflow stores as they are.

    :param modelslab_conn_id: the connection.
    :param jobs: records of the jobs; those already done may be among them.
    :param started: when the wait began, in seconds since the epoch.
    :param deadline: when it ends at the latest, in seconds since the epoch. Absolute, so that a restart of the
        triggerer does not prolong it.
    :param poke_interval: a fixed number of seconds between two looks at a job; ``None`` lets the schedule decide.
    :param seconds_per_request: what one request more must save, in seconds of latency, to be worth it.
    :param until_unfinished: the wait is over (``"partial"``) when no more than so many jobs are unfinished: an
        operator then has places in the queue to fill. -1 waits for the deadline whatever gets done.
    :param carried: plain data that the event hands back as it is.
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
        until_unfinished: int = 0,
        carried: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modelslab_conn_id = modelslab_conn_id
        self.jobs = list(jobs)
        self.started = started
        self.deadline = deadline
        self.poke_interval = poke_interval
        self.seconds_per_request = seconds_per_request
        self.until_unfinished = until_unfinished
        self.carried = dict(carried or {})

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
                "until_unfinished": self.until_unfinished,
                "carried": self.carried,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the one event. Raises nothing but the cancellation that Airflow asks for."""
        # In a task of its own: Airflow runs a trigger inside a greenlet, which keeps a piece of stack per nested call.
        outcome = await asyncio.ensure_future(self._outcome())
        yield TriggerEvent({**outcome, "carried": self.carried})  # type: ignore[no-untyped-call]

    async def _outcome(self) -> dict[str, Any]:
        pacemaker = None
        try:
            pacemaker = await self._join()
            if pacemaker is None:
                return {"status": "timeout", "jobs": self.jobs}
            jobs = [Job.from_dict(record) async for record in _unhurried(self.jobs)]
            waits = JobWaits(
                jobs, self.started, self.poke_interval, self.seconds_per_request, pacemaker.experience_with
            )
            del jobs  # each look makes a new one, and the old ones need not stay
            await asyncio.sleep(0)  # with thousands of jobs, this step and the next take some time each
            account_reply = await self._wait(pacemaker, waits)
        except ModelsLabArgumentError as error:
            # Our own words about the connection; they never hold the key.
            message = f"In the triggerer: {error}"
            return {"status": "error", "verdict": None, "message": message, "jobs": self.jobs}
        except Exception:
            # A defect of this provider: the details go to the triggerer's log, where the key is masked.
            self.log.exception("The wait broke off")
            message = "The wait broke off inside the triggerer; its log says why"
            return {"status": "error", "verdict": None, "message": message, "jobs": self.jobs}
        finally:
            if pacemaker is not None:
                await pacemaker.leave()
        records = await _records(waits.jobs())
        if account_reply is not None:
            verdict, message = account_reply.verdict.name, account_reply.job.message
            return {"status": "error", "verdict": verdict, "message": message, "jobs": records}
        return {"status": self._status(waits), "jobs": records}

    def _status(self, waits: JobWaits) -> str:
        if not waits.unfinished() and self.until_unfinished >= 0:
            return "finished"
        return "timeout" if time.time() >= self.deadline else "partial"

    async def _join(self) -> Pacemaker | None:
        """Join the pacemaker of the connection; return ``None`` if that could not be read until the deadline."""
        pacemaker = pacemaker_of(self.modelslab_conn_id)
        failures = 0
        while True:
            try:
                await pacemaker.join()
                return pacemaker
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

    async def _wait(self, pacemaker: Pacemaker, waits: JobWaits) -> Reply | None:
        """See jobs get done until all are, or the deadline comes, or the account is refused: return that reply."""
        self.log.info("Waiting for jobs: %s", waits.summary())
        report = _Report(self.log, waits)
        await asyncio.sleep(0)
        group = pacemaker.watch(waits.unfinished(), self.deadline)
        try:
            end = self.deadline
            while (group.left or self.until_unfinished < 0) and group.account_reply is None:
                if group.left <= self.until_unfinished:
                    end = min(end, time.time() + LINGER)
                if (left := end - time.time()) <= 0:
                    break
                finished = await group.news(min(left, report.due - time.time()))
                report.changed += [wait.job for wait in finished]
                if time.time() >= report.due:
                    report.write()
        finally:
            pacemaker.forget(group)
        if report.changed:
            report.write()
        return group.account_reply


class _Report:
    """
    Tells the task's log how a wait goes.

    Jobs that got done are told at once, but at most one line every :data:`CHANGES_GAP` seconds, since each line costs
    the triggerer a round of its own; while nothing changes, a line comes from time to time.

    :param log: where to.
    :param waits: the waits.
    """

    __slots__ = ("_last", "_log", "_progress_due", "_progress_gap", "_waits", "changed")

    def __init__(self, log: Any, waits: JobWaits) -> None:
        self.changed: list[Job] = []
        self._log = log
        self._waits = waits
        self._last = 0.0
        self._progress_gap = FIRST_PROGRESS_LINE
        self._progress_due = time.time() + self._progress_gap

    @property
    def due(self) -> float:
        """When the next line is due, in seconds since the epoch."""
        return self._last + CHANGES_GAP if self.changed else self._progress_due

    def write(self) -> None:
        """Write the line that is due."""
        self._log.info("%s: %s", _changes(self.changed) if self.changed else "Still waiting", self._waits.summary())
        if not self.changed:
            self._progress_gap = min(self._progress_gap * 2, LONGEST_PROGRESS_GAP)
        self.changed.clear()
        self._last = time.time()
        self._progress_due = self._last + self._progress_gap


async def _records(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    return [job.to_compact_dict() async for job in _unhurried(jobs)]


_Item = TypeVar("_Item")


async def _unhurried(items: Sequence[_Item]) -> AsyncIterator[_Item]:
    """Go through thousands of items without holding up the event loop."""
    for number, item in enumerate(items, 1):
        yield item
        if number % _ITEMS_IN_A_ROW == 0:
            await asyncio.sleep(0)


def _changes(jobs: Sequence[Job]) -> str:
    """Describe jobs that have just got done: by name, or by number where they are many."""
    if len(jobs) <= _NAMED_IN_A_LINE:
        return ", ".join(f"Job {job} {'succeeded' if job.outputs else f'failed ({job.message})'}" for job in jobs)
    failed = sum(job.status == "failed" for job in jobs)
    return f"{len(jobs) - failed} jobs succeeded and {failed} failed"
