"""The trigger: one coroutine in the triggerer that waits for many jobs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_modelslab._http.fingerprint import Fingerprint
from airflow_provider_modelslab._polling import schedule
from airflow_provider_modelslab._polling.clock import DEFAULT_PACING
from airflow_provider_modelslab._polling.policy import Pacing
from airflow_provider_modelslab._polling.poller import ConnectionMoved, News, Poller, Subscription, pollers
from airflow_provider_modelslab._polling.waits import JobWait, JobWaits, enough
from airflow_provider_modelslab._protocol.formatting import count, format_moment
from airflow_provider_modelslab._protocol.shortening import is_long_output, shorten_output
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab._tasks.events import job_records, write_error, write_event
from airflow_provider_modelslab._tasks.kills import describe_ongoing
from airflow_provider_modelslab._tasks.results import apush_jobs
from airflow_provider_modelslab._telemetry import spans
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job

__all__ = ["ModelsLabJobTrigger"]

_NAMED_IN_A_LINE = 5


class ModelsLabJobTrigger(BaseTrigger):
    """
    Waits for jobs in the triggerer, and yields one event when the last one has finished, or the deadline has come.

    Nothing that passes ends the wait early: network trouble, server errors and rate limits are retried until the
    deadline. Fetching is read-only, so a trigger that is restarted, or runs twice, does no harm.

    The event's payload has ``status`` (``"finished"``, ``"partial"``, ``"timeout"`` or ``"error"``), ``jobs`` (one
    record per job, in the order given, as :meth:`Job.from_dict <airflow_provider_modelslab.jobs.Job.from_dict>`
    takes it), ``state`` and, of an error, ``verdict`` and ``message``. No key and no text of an exception is in
    it, nor in the arguments, which Airflow stores as they are.

    :param modelslab_conn_id: the connection.
    :param jobs: records of the jobs; finished ones may be among them.
    :param names: what the user calls them in a batch, for the log.
    :param started: when the wait began, in seconds since the epoch.
    :param deadline: when it ends at the latest, in seconds since the epoch. Absolute, so that a restart of the
        triggerer does not prolong it. A trigger that starts later polls once more.
    :param fingerprint: what the connection was when the wait began: the fields of its :class:`Fingerprint`. The
        wait goes on with another key or other options of the same host, but never on another host.
    :param deferred: when the task deferred, in seconds since the epoch; the event comes no sooner than
        ``pacing.policy.settling`` seconds after that. ``None`` where it does not matter.
    :param poke_interval: a fixed number of seconds between two polls at a job; ``None`` lets the schedule decide.
    :param max_pending: the wait is over (``"partial"``) when no more than so many jobs are unfinished: an
        operator then has queue slots to fill. ``None`` waits for the deadline in any case.
    :param state: plain data that the event hands back as it is.
    :param cancel_on_kill: cancel trainings and runs when a user kills or clears the task (Airflow 3.3 and later).
    """

    pacing: ClassVar[Pacing] = DEFAULT_PACING

    def __init__(
        self,
        *,
        modelslab_conn_id: str,
        jobs: Sequence[Mapping[str, Any]],
        started: float,
        deadline: float,
        names: Sequence[str] = (),
        fingerprint: Mapping[str, str] | None = None,
        deferred: float | None = None,
        poke_interval: float | None = None,
        max_pending: int | None = 0,
        state: Mapping[str, Any] | None = None,
        cancel_on_kill: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modelslab_conn_id = modelslab_conn_id
        self.jobs = list(jobs)
        self.names = list(names)
        self.started = started
        self.deadline = deadline
        self.fingerprint = None if fingerprint is None else dict(fingerprint)
        self.deferred = deferred
        self.poke_interval = poke_interval
        self.max_pending = max_pending
        self.state = dict(state or {})
        self.cancel_on_kill = cancel_on_kill
        self._waits: JobWaits | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, all plain data."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "modelslab_conn_id": self.modelslab_conn_id,
                "jobs": self.jobs,
                "names": self.names,
                "started": self.started,
                "deadline": self.deadline,
                "fingerprint": self.fingerprint,
                "deferred": self.deferred,
                "poke_interval": self.poke_interval,
                "max_pending": self.max_pending,
                "state": self.state,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the one event. Raises nothing but the cancellation that Airflow asks for."""
        try:
            event = await self._event()
        except ModelsLabArgumentError as error:
            # Our own words about the connection, without the key.
            moved = isinstance(error, ConnectionMoved)
            event = write_error(f"In the triggerer: {error}", self.jobs, self.state, permanent=moved)
        except Exception:
            # A defect of this provider: the details go to the triggerer's log, where the key is masked.
            self.log.exception("The wait broke off")
            event = write_error(
                "Retry or clear the task, and report this: the wait broke off inside the triggerer; its log says why",
                self.jobs,
                self.state,
            )
        await self._settle()
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel trainings and runs, or say that they go on: Airflow calls this when a user acts on a deferred task."""
        jobs = [Job.from_dict(record) for record in self.jobs] if self._waits is None else self._waits.jobs()
        hook = ModelsLabHook(self.modelslab_conn_id)
        hook.keep_to(self.fingerprint)
        for job in jobs:
            told = describe_ongoing(job, self.modelslab_conn_id)
            if told and self.cancel_on_kill:
                try:
                    await hook.acancel(job)
                    continue
                except AirflowException as error:
                    self.log.warning("Job %s was not cancelled: %s", job, error)
            if told:
                self.log.warning("%s", told)

    async def _settle(self) -> None:
        """Wait until the scheduler, if there is one, has heard of the deferral, however the wall clock was set."""
        if self.deferred is not None and self.task_instance is not None:  # None in dag.test()
            settling = self.pacing.policy.settling
            await asyncio.sleep(min(self.deferred + settling - self.pacing.clock.wall(), settling))

    async def _event(self) -> dict[str, Any]:
        """Join the poller, follow the jobs, and return the event."""
        clock, policy = self.pacing.clock, self.pacing.policy
        # Where the wall clock was set back meanwhile, no more than the whole wait is left.
        left = min(self.deadline - clock.wall(), self.deadline - self.started)
        deadline = clock.monotonic() + (left if left > 0 else policy.late_grace)
        async with AsyncExitStack() as stack:
            poller = await self._join(stack, deadline)
            if poller is None:
                return write_event("timeout", self.jobs, self.state)
            jobs = [Job.from_dict(record) for record in self.jobs]
            waits = JobWaits(jobs, self.pacing, self.poke_interval, self.started, poller.durations, self.names)
            self._waits = waits
            until = format_moment(clock.wall() + left, clock.wall())
            if jobs:
                self.log.info("Waiting in the triggerer, until %s at the latest", until)
            else:
                self.log.info("Waiting in the triggerer until the next try to submit, about %s", until)
            if left <= 0:  # The jobs may have finished meanwhile: each is polled once more.
                now = clock.monotonic()
                each_once = max(0.0, poller.pace.delay(now)) + len(waits.unfinished()) / poller.pace.rate(now)
                deadline = now + policy.late_grace + each_once
            subscription = stack.enter_context(poller.subscribed(waits.unfinished(), deadline))
            return await self._follow(poller, subscription, waits)

    async def _join(self, stack: AsyncExitStack, deadline: float) -> Poller | None:
        """Join the poller of the connection; return ``None`` if that could not be looked up until the deadline."""
        started_with = None if self.fingerprint is None else Fingerprint(**self.fingerprint)
        failures = 0
        while (left := deadline - self.pacing.clock.monotonic()) > 0:
            joining = pollers().joined(
                self.modelslab_conn_id,
                started_with,
                lambda: ModelsLabHook(self.modelslab_conn_id).aoptions(),  # a new hook: the old one has read it already
                self.pacing,
            )
            try:
                return await asyncio.wait_for(stack.enter_async_context(joining), left)
            except Exception as error:
                # Airflow's own services may be away for a while; what they say may hold anything. A connection that
                # the worker has just read may seem undefined then, because secrets backends swallow their errors.
                failures += 1
                if isinstance(error, ModelsLabArgumentError) and failures >= self.pacing.policy.connection_attempts:
                    raise
                # Of a connection that is wrong, the event tells it, unless it gets right meanwhile.
                if not isinstance(error, ModelsLabArgumentError):
                    reason = type(error).__name__
                    self.log.warning("Connection %r cannot be read now (%s)", self.modelslab_conn_id, reason)
                elif failures == 1:
                    self.log.warning("Looking up connection %r again: %s", self.modelslab_conn_id, error)
            left = max(0.0, deadline - self.pacing.clock.monotonic())
            await asyncio.sleep(min(schedule.backoff_delay(failures, self.pacing.policy), left))
        return None

    async def _follow(self, poller: Poller, subscription: Subscription, waits: JobWaits) -> dict[str, Any]:
        """Wait until enough jobs have finished, or the deadline has come, and return the event."""
        clock, progress = self.pacing.clock, _Progress(self.log, waits, self.pacing)
        begun, end = waits.unfinished(), subscription.deadline
        unfinished = len(begun)
        news, records = News(), _LiveRecords(self.task_instance, waits, self.pacing)
        while True:
            unfinished -= len(news.finished)
            records.changed |= bool(news.finished)
            for wait in news.finished:
                self._explain(wait, poller)
                if any(map(is_long_output, wait.job.outputs)):  # It does not travel: the worker polls the job again.
                    outputs = [await asyncio.to_thread(shorten_output, output) for output in wait.job.outputs]
                    wait.job = replace(wait.job, outputs=outputs)
            spans.done([wait.job for wait in news.finished])
            now = clock.monotonic()
            if enough(unfinished, self.max_pending):
                end = min(end, now + (self.pacing.policy.linger if unfinished else 0.0))
            refusal = waits.account_refusal() if news.refused else None
            over = now >= end or refusal is not None
            progress.tell(news, flush=over)
            if over:
                break
            await records.update()
            news = await subscription.wait(min(end, progress.due, records.due) - clock.monotonic())
        jobs = await asyncio.to_thread(job_records, waits.jobs())  # where they are many, it takes a second
        poller.count_ends(begun)
        if refusal is not None:
            return write_error(refusal.job.message, jobs, self.state, refusal.verdict)
        if not unfinished and self.max_pending is not None:
            return write_event("finished", jobs, self.state)
        return write_event("timeout" if now >= subscription.deadline else "partial", jobs, self.state)

    def _explain(self, wait: JobWait, poller: Poller) -> None:
        """Say why ModelsLab may not know a job: another key may be that of another account."""
        unknown = wait.job.status == "failed" and wait.last_verdict is Verdict.NOT_FOUND
        if unknown and self.fingerprint is not None and self.fingerprint["key"] != poller.fingerprint.key:
            wait.job = wait.job.failed(
                f"{wait.job.message}. The key of connection {self.modelslab_conn_id!r} has changed since the wait "
                "began: if it is that of another account, put the former key back, and wait for the job again"
            )


class _LiveRecords:
    """
    Keeps the XCom ``jobs`` of a deferred task up to date, for the page "Outputs".

    An update costs the triggerer and its supervisor 30 to 75 ms of CPU: each task has one at most every ``update_gap``
    seconds, all tasks together one every ``update_spacing`` seconds, and a task with very many jobs none.

    :param ti: the task instance; ``None`` outside a triggerer.
    """

    MOST_JOBS: ClassVar[int] = 100
    free_at: ClassVar[float] = float("-inf")  # from when on any task may update, on the monotonic clock

    def __init__(self, ti: Any, waits: JobWaits, pacing: Pacing) -> None:
        self.changed = False
        self._ti = ti if len(waits.jobs()) <= self.MOST_JOBS else None
        self._waits = waits
        self._clock = pacing.clock
        self._policy = pacing.policy
        self._updated = self._clock.monotonic()

    @property
    def due(self) -> float:
        """When the next update is due; never while nothing has changed."""
        if self._ti is None or not self.changed:
            return math.inf
        return max(self._updated + self._policy.update_gap, _LiveRecords.free_at)

    async def update(self) -> None:
        """Update the XCom, if that is due."""
        now = self._clock.monotonic()
        if now < self.due:
            return
        _LiveRecords.free_at = now + self._policy.update_spacing
        await apush_jobs(self._ti, self._waits.jobs())
        self.changed, self._updated = False, now


class _Progress:
    """
    Tells the task's log how a wait goes.

    News is told at once, but at most every ``changes_gap`` seconds, since each line costs the triggerer a round of its
    own; while nothing changes, a line comes from time to time. ``due`` is when the next line is due.
    """

    def __init__(self, log: Any, waits: JobWaits, pacing: Pacing) -> None:
        self._log = log
        self._waits = waits
        self._policy = pacing.policy
        self._clock = pacing.clock
        self._news = News()
        self._gap = pacing.policy.first_progress_gap
        self._last = float("-inf")
        self.due = pacing.clock.monotonic() + self._gap

    def tell(self, more: News, flush: bool = False) -> None:
        """Take news in, and write the lines that are due; with ``flush``, all news."""
        news, now = self._news, self._clock.monotonic()
        news.finished += more.finished
        news.remarks += more.remarks
        changed = bool(news.finished or news.remarks)
        if changed:
            self.due = self._last + self._policy.changes_gap
        if now < self.due and not (flush and changed):
            return
        if news.remarks:
            wait, remark = news.remarks[0]
            rest = f" (and {count(len(news.remarks) - 1, 'more such line')})" if len(news.remarks) > 1 else ""
            self._log.warning("%s %s%s", wait.label, remark, rest)
        if news.finished:
            self._log.info("%s: %s", _changes(news.finished), self._waits.summary())
        elif not news.remarks:
            self._log.info("Still waiting: %s", self._waits.summary())
            self._gap = min(self._gap * 2, self._policy.max_progress_gap)
        self._news = News()
        self._last = now
        self.due = now + self._gap


def _changes(finished: Sequence[JobWait]) -> str:
    """Describe jobs that have just finished: by name, or by number where they are many."""
    if len(finished) <= _NAMED_IN_A_LINE:
        ends = {wait: "succeeded" if wait.job.outputs else f"failed ({wait.job.message})" for wait in finished}
        return ", ".join(f"{wait.label} {end}" for wait, end in ends.items())
    failed = sum(wait.job.status == "failed" for wait in finished)
    return f"{count(len(finished) - failed, 'job')} succeeded and {failed} failed"
