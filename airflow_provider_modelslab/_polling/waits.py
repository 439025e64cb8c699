"""
The wait for a job: what has been seen of it, whether that ends it, and when to look again.

Every way of waiting (the hook's, the sensor's, the trigger's) feeds the replies it gets into a
:class:`JobWait` and does what that says, so that they cannot disagree. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from airflow_provider_modelslab._polling import schedule
from airflow_provider_modelslab._protocol.replies import Reply, Verdict
from airflow_provider_modelslab.jobs import Job

NOT_FOUND_GRACE = 30.0
"""Seconds for which "Request not found" is not believed: ModelsLab says so of jobs just submitted."""

NO_OUTPUT_LIMIT = 6
"""How many times in a row a success without any output is polled again before it counts as a failure."""

EMPTY_ERROR_LIMIT = 10
"""How many times in a row an error without a word is polled again: running video jobs answer it."""

LAST_POLLS = 2.0
"""Seconds before the deadline from which a job is polled as often as may be, whenever it would be due."""

_RANDOM = Random()

_DOUBTFUL = frozenset({Verdict.NO_OUTPUT, Verdict.EMPTY_ERROR, Verdict.NOT_FOUND})


class JobWait:
    """
    The wait for one job.

    :param job: the job as it is known when the wait starts.
    :param started: when the wait started, in seconds since the epoch.
    :param poke_interval: a fixed pace in seconds; ``None`` lets the schedule find the moments.
    :param seconds_per_request: what one request more must save, in seconds of latency, to be worth it.
    :param durations: what is known about how long jobs of this endpoint take.
    """

    __slots__ = (
        "_doubt",
        "_doubts",
        "_experience",
        "_faults",
        "_last_poll",
        "_poke_interval",
        "_seconds_per_request",
        "_started",
        "_submitted",
        "due",
        "duration",
        "first_eta",
        "job",
        "last_verdict",
    )

    def __init__(
        self,
        job: Job,
        started: float,
        poke_interval: float | None = None,
        seconds_per_request: float = schedule.SECONDS_PER_REQUEST,
        durations: schedule.DurationModel = schedule.PRIOR,
    ) -> None:
        self.job = job
        self.first_eta = job.eta
        self.duration: float | None = None
        self.last_verdict: Verdict | None = None
        self._started = started
        # The schedule counts from the submission; one that is in the future is a clock that goes wrong.
        self._submitted = started if job.submitted is None else min(job.submitted, started)
        self._last_poll = started
        self._poke_interval = poke_interval
        self._seconds_per_request = seconds_per_request
        self._experience = durations
        self._faults = self._doubts = 0
        self._doubt: Verdict | None = None
        self.due = self._first_poll()

    @property
    def doubtful(self) -> bool:
        """Whether the last reply was one that is believed only when it persists."""
        return not self.job.finished and self.last_verdict in _DOUBTFUL

    def may_poll(self, now: float) -> bool:
        """Whether ModelsLab may be asked now by one who keeps his own pace: not while it asked to stay away."""
        return not self.job.finished and (self.last_verdict is not Verdict.RATE_LIMITED or now >= self.due)

    def delay(self, now: float, deadline: float) -> float:
        """
        Return the seconds to the next poll: when it is due, and every second shortly before the deadline.

        :param now: the time, in seconds since the epoch.
        :param deadline: when the wait ends, in seconds since the epoch.
        """
        moment = self.due
        if self.last_verdict is not Verdict.RATE_LIMITED:
            moment = min(moment, max(deadline - LAST_POLLS, now + schedule.MIN_DELAY))
        return max(0.0, moment - now)

    def take(self, reply: Reply, now: float) -> None:
        """
        Take the reply to one poll at the job: ``job`` and ``due`` are up to date afterwards.

        :param reply: the reply, of any verdict.
        :param now: the time of the reply, in seconds since the epoch.
        """
        self._count(reply.verdict)
        self.last_verdict = reply.verdict
        self.job = reply.job
        if self.first_eta is None:
            self.first_eta = reply.job.eta
        self._measure(reply.verdict, now)
        if not self.job.finished and (disbelief := self._disbelieved(reply.verdict, now)):
            self.job = self.job.failed(disbelief)
        self.due = now + self._delay(reply, now)

    def _first_poll(self) -> float:
        if self._poke_interval is not None:
            return self._started + self._poke_interval
        planned = self._submitted + schedule.first_delay(self.job.eta, self._experience)
        return max(planned, self._started + schedule.MIN_DELAY)

    def _gap(self, now: float) -> float:
        elapsed = now - self._submitted
        return schedule.next_delay(elapsed, self.first_eta, self._experience, self._seconds_per_request)

    def _count(self, verdict: Verdict) -> None:
        """Count faults and doubts in a row; a fault says nothing about the job, so it leaves the doubts as they are."""
        self._faults = self._faults + 1 if verdict is Verdict.TRANSIENT else 0
        if verdict in _DOUBTFUL:
            self._doubts = self._doubts + 1 if verdict is self._doubt else 1
            self._doubt = verdict
        elif verdict is Verdict.PROCESSING:
            self._doubts = 0

    def _measure(self, verdict: Verdict, now: float) -> None:
        """Estimate how long the job took: it got ready between two polls, of which the first found it in progress."""
        if verdict is Verdict.PROCESSING:
            self._last_poll = now
        elif verdict is Verdict.SUCCESS:
            self.duration = schedule.duration_between(self._last_poll - self._submitted, now - self._submitted)

    def _disbelieved(self, verdict: Verdict, now: float) -> str:
        """Return why a doubtful verdict now counts as a failure; empty while it does not."""
        if verdict is Verdict.NOT_FOUND and now - self._started >= NOT_FOUND_GRACE:
            return (
                f"{self.job.message or 'Request not found'} (job {self.job.id} is not known under endpoint "
                f"{self.job.endpoint!r}: an id is only valid with the endpoint and the account it came from)"
            )
        if verdict is Verdict.NO_OUTPUT and self._doubts >= NO_OUTPUT_LIMIT:
            return f"ModelsLab reported success without any output, {self._doubts} times in a row"
        if verdict is Verdict.EMPTY_ERROR and self._doubts >= EMPTY_ERROR_LIMIT:
            return f"ModelsLab answered with an error without a reason, {self._doubts} times in a row"
        return ""

    def _delay(self, reply: Reply, now: float) -> float:
        pause = reply.retry_after or 0.0
        if reply.verdict is Verdict.RATE_LIMITED:
            return schedule.spread_pause(pause, _RANDOM)
        if self._poke_interval is not None:
            return max(self._poke_interval, pause)
        if reply.verdict is Verdict.TRANSIENT:
            delay = schedule.backoff_delay(self._faults)
        elif reply.verdict in _DOUBTFUL:
            delay = schedule.backoff_delay(self._doubts)
        else:
            delay = self._gap(now)
        return max(schedule.jittered(delay, _RANDOM), pause)


class JobWaits:
    """
    The waits for several jobs: one per distinct job, so that a job that is named twice is asked for once.

    :param jobs: the jobs, in the user's order; those already done may be among them.
    :param started: when the wait started, in seconds since the epoch.
    :param poke_interval: a fixed pace in seconds; ``None`` lets the schedule find the moments.
    :param seconds_per_request: what one request more must save, in seconds of latency, to be worth it.
    :param durations_of: what is known about how long the jobs of an endpoint take.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        started: float,
        poke_interval: float | None = None,
        seconds_per_request: float = schedule.SECONDS_PER_REQUEST,
        durations_of: Callable[[str], schedule.DurationModel] = lambda endpoint: schedule.PRIOR,
    ) -> None:
        waits: dict[tuple[str, str], JobWait] = {}
        self._waits: list[JobWait] = []
        for position, job in enumerate(jobs):
            # A job without an id is done already, and is like no other.
            address = job.endpoint, job.id or f"#{position}"
            if address not in waits:
                durations = durations_of(job.endpoint)
                waits[address] = JobWait(job, started, poke_interval, seconds_per_request, durations)
            self._waits.append(waits[address])

    def unfinished(self) -> list[JobWait]:
        """Return the waits that go on, each once."""
        return list(dict.fromkeys(wait for wait in self._waits if not wait.job.finished))

    def jobs(self) -> list[Job]:
        """Return all jobs as they stand, in the user's order."""
        return [wait.job for wait in self._waits]

    def summary(self) -> str:
        """Describe how far the waits are, for a log line."""
        jobs = [wait.job for wait in dict.fromkeys(self._waits)]
        unfinished = [job for job in jobs if not job.finished]
        etas = [job.eta for job in unfinished if job.eta is not None]
        longest = f", longest ETA {max(etas):.0f} s" if etas else ""
        return f"{len(jobs) - len(unfinished)} of {len(jobs)} jobs done{longest}"
