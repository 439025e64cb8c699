"""
The poller of a worker: it polls the jobs of one task, from several threads, and blocks while it waits.

:mod:`airflow_provider_modelslab._polling.poller` does the same on the event loop of a triggerer. What a reply means for
a wait, and when to poll again, is in :mod:`airflow_provider_modelslab._polling.waits` for both.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import Any

from airflow_provider_modelslab._client import Client
from airflow_provider_modelslab._polling.pace import Pace
from airflow_provider_modelslab._polling.policy import Pacing
from airflow_provider_modelslab._polling.waits import JobWait, JobWaits, enough
from airflow_provider_modelslab._protocol.replies import Reply
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab._telemetry import metrics, spans
from airflow_provider_modelslab.exceptions import exception_for
from airflow_provider_modelslab.jobs import Job

POLLS_AT_A_TIME = 10
"""Requests at a time when a worker polls many jobs."""

LONGEST_TURN = 5.0
"""Seconds for which a worker waits for its turn; a request whose turn comes later is not sent."""


class WorkerPoller:
    """
    Sends the requests of a worker: as they come until the first rate limit, then at a pace. For several threads.

    :param client: the client of the connection.
    :param conn_id: the connection, for errors.
    :param pacing: policy, clock and chance.
    :param log: the log of the hook.
    """

    def __init__(self, client: Client, conn_id: str, pacing: Pacing, log: Any) -> None:
        self.client = client
        self.pacing = pacing
        self._conn_id = conn_id
        self._log = log
        self._pace = Pace(client.options.requests_per_second)
        self._paused = 0.0  # seconds without requests that ModelsLab has asked for, those to come included
        self._lock = Lock()

    def send(self, request: Callable[[], Reply], job: Job, end: float = math.inf) -> Reply:
        """
        Send a request when its turn comes, and return the reply.

        :param request: sends it.
        :param job: what it is about.
        :param end: when the turn would come too late, on the monotonic clock: a task that sleeps on is killed.
        :return: the reply; a rate limit, and nothing sent, where the turn comes later than that, or than
            :data:`LONGEST_TURN`, or where another request is refused before it.
        """
        clock = self.pacing.clock
        with self._lock:
            now = clock.monotonic()
            delay = max(0.0, self._pace.delay(now))
            if delay > LONGEST_TURN or (delay and now + delay > end):
                return _not_sent(job, delay)
            if self._pace.slowed:
                self._pace.start(now)
        if delay:
            clock.sleep(delay)
        started = clock.monotonic()
        if started < self._pace.quiet_until:
            return _not_sent(job, self._pace.quiet_until - started)
        reply = request()
        # A full queue is no matter of the pace.
        if reply.verdict is Verdict.RATE_LIMITED and reply.queue_slots is None:
            with self._lock:
                self._paused += self._pace.refuse(started, clock.monotonic(), reply.retry_after or 0.0)
        return reply

    def poll_many(self, jobs: Sequence[Job], end: float = math.inf) -> list[Reply]:
        """
        Poll many jobs once, several at a time, and return their replies in the order of the jobs.

        After a rate limit, only those are polled whose turn comes soon; see :meth:`send`.

        :param jobs: the jobs.
        :param end: as of :meth:`send`.
        """
        before = self._paused
        with ThreadPoolExecutor(max_workers=POLLS_AT_A_TIME) as pool:
            replies = list(pool.map(lambda job: self.send(lambda: self.client.poll(job), job, end), jobs))
        metrics.paused("polls", self._paused - before)
        for reply in replies:
            count_poll(reply)
        return replies

    def poll(self, waits: JobWaits, due: Sequence[JobWait], end: float = math.inf) -> None:
        """
        Poll some jobs once, and let their waits take the replies.

        Where one of them is refused for the account's sake, another one, or else it again, is polled at once.

        :param waits: all waits that belong together.
        :param due: those of them whose jobs are polled.
        :param end: as of :meth:`send`.
        :raises AirflowException: the account is refused, by two polls: key, credits or plan.
        """
        self._take_replies(due, end)
        refused = next((wait for wait in due if wait.refusals), None)
        if refused is None:
            return
        if waits.account_refusal() is None:
            others = (wait for wait in waits.unfinished() if not wait.refusals and wait.may_poll())
            self._take_replies([next(others, refused)], end)
        if reply := waits.account_refusal():
            raise exception_for(reply.verdict, reply.job.message, self._conn_id)

    def wait(self, waits: JobWaits, end: float, max_pending: int | None = 0) -> None:
        """
        Block until enough jobs have finished; poll each when it is due, and all of them at the deadline.

        :param waits: the waits; afterwards they have the state of the jobs.
        :param end: when to stop at the latest, on the monotonic clock.
        :param max_pending: stop when no more jobs than these are unfinished; ``None`` waits for the deadline.
        :raises AirflowException: the account is refused: key, credits or plan.
        """
        clock = self.pacing.clock
        now = clock.monotonic()
        moments = {wait: now + wait.delay(end) for wait in waits.unfinished()}
        while not enough(len(moments), max_pending) and now < end:
            clock.sleep(max(0.0, min([end, *moments.values()]) - now))
            now = clock.monotonic()
            due = [wait for wait, moment in moments.items() if moment <= now or now >= end]
            self.poll(waits, due, end)
            now = clock.monotonic()
            moments |= {wait: now + wait.delay(end) for wait in due}
            moments = {wait: moment for wait, moment in moments.items() if not wait.job.finished}

    def wait_briefly(self, waits: JobWaits, end: float, max_pending: int | None = 0) -> None:
        """
        Block for a few seconds where enough jobs may be finished by then, or the time over: a deferral would cost more.

        Only where the jobs are so few that each may be polled every second: a triggerer polls many at a steady pace.

        :param waits: the waits; afterwards they have the state of the jobs.
        :param end: when to stop at the latest, on the monotonic clock.
        :param max_pending: as of :meth:`wait`.
        :raises AirflowException: the account is refused: key, credits or plan.
        """
        now, most = self.pacing.clock.monotonic(), self.pacing.policy.brief_wait
        if len(waits.unfinished()) > self.client.options.requests_per_second:
            return
        likely_left = math.inf if max_pending is None else waits.likely_left(max_pending)
        if min(likely_left, end - now) <= most:
            self.wait(waits, min(end, now + most), max_pending)

    def _take_replies(self, waits: Sequence[JobWait], end: float) -> None:
        for wait, reply in zip(waits, self.poll_many([wait.job for wait in waits], end), strict=True):
            if remark := wait.take(reply):
                self._log.warning("%s %s", wait.label, remark)
            if wait.duration is not None:
                metrics.job_timed(wait.job.endpoint, wait.duration, wait.noticed_after)
        count_ends([wait for wait in waits if wait.is_news])


def _not_sent(job: Job, pause: float) -> Reply:
    message = "not asked: ModelsLab has refused too many requests"
    return Reply(Verdict.RATE_LIMITED, replace(job, message=message), retry_after=pause)


def count_poll(reply: Reply) -> None:
    """Count a poll for the metrics, unless it was not sent at all."""
    if reply.verdict is not Verdict.RATE_LIMITED or reply.http_status is not None:
        metrics.polled(reply.verdict)


def count_ends(waits: Iterable[JobWait]) -> None:
    """Tell metrics and span which jobs of some waits have finished."""
    ends = [(wait.job, end) for wait in waits if (end := wait.end) is not None]
    for (endpoint, verdict), jobs in Counter((job.endpoint, end) for job, end in ends).items():
        metrics.jobs_finished(endpoint, verdict, jobs)
    spans.done([job for job, _ in ends])
