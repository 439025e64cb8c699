"""
The wait for a job: what the replies have said so far, whether that ends it, and when to poll again.

Hook, sensor and trigger feed the replies they get into a :class:`JobWait` and do what it says, so that they cannot
disagree. Nothing here does I/O; clock and chance are passed in. Times are seconds of the monotonic clock unless a
name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from airflow_provider_modelslab._polling import schedule
from airflow_provider_modelslab._polling.policy import Pacing
from airflow_provider_modelslab._protocol.formatting import count, format_duration, format_moment
from airflow_provider_modelslab._protocol.kinds import kind_of
from airflow_provider_modelslab._protocol.replies import Reply
from airflow_provider_modelslab._protocol.verdicts import ACCOUNT_VERDICTS, Verdict
from airflow_provider_modelslab.endpoints import FAMILIES, did_you_mean
from airflow_provider_modelslab.jobs import Job

INCONCLUSIVE = {
    Verdict.NOT_FOUND: "Request not found",
    Verdict.NO_OUTPUT: "success without any output",
    Verdict.EMPTY_ERROR: "an error without a reason",
}
"""Verdicts that ModelsLab gives of jobs, too, that succeed later; they count only when they persist."""

_ANSWERED = "ModelsLab answered "
_UNKNOWN = f"{_ANSWERED}{INCONCLUSIVE[Verdict.NOT_FOUND]!r}"
_REFUSED = f"{_ANSWERED}the poll with a refusal"


def is_unknown(job: Job) -> bool:
    """Whether a job counts as failed because ModelsLab has not known it, again and again, or has refused the poll."""
    return job.message.startswith((_UNKNOWN, _REFUSED))


def is_inferred(job: Job) -> bool:
    """Whether a job counts as failed though ModelsLab has not said so of its generation: it may go on all the same."""
    return job.message.startswith(_ANSWERED)


class JobWait:
    """
    The wait for one job.

    :param job: the job as it is known when the wait starts.
    :param pacing: policy, clock and chance.
    :param started: when the wait started, in seconds since the epoch: now, or before a restart of the triggerer.
    :param poke_interval: a fixed pace in seconds; ``None`` lets the schedule find the moments.
    :param durations: what is known about how long jobs of this endpoint take.
    :param name: what the user calls the job; empty for nothing.
    """

    def __init__(
        self,
        job: Job,
        pacing: Pacing,
        started: float,
        poke_interval: float | None = None,
        durations: schedule.DurationModel = schedule.PRIOR,
        name: str = "",
    ) -> None:
        self.job = job
        self._name = name
        self.first_eta = job.eta
        self.is_news = True  # whether its end counts: not where that is known already, or another poll will find it
        self.duration: float | None = None  # once it is done, and where that can be told
        self.noticed_after = 0.0  # then: how much later than that a poll has noticed
        self.last_verdict: Verdict | None = None
        self._pacing = pacing
        self._poke_interval = poke_interval
        self._durations = durations
        now, wall = pacing.clock.monotonic(), pacing.clock.wall()
        # A moment in the future is the mistake of a clock.
        self._started = now - max(0.0, wall - started)
        self._submitted = self._started if job.submitted is None else now - max(0.0, wall - job.submitted)
        self._in_progress: float | None = None
        self.refusals: list[Reply] = []  # those about the account since the last reply about the job
        self._faults = 0
        self._inconclusive_replies = 0
        self._inconclusive_since = now
        self._inconclusive: Verdict | None = None
        self._kind = kind_of(job.endpoint)
        if poke_interval is not None:
            self.due = self._started + poke_interval
        elif self._kind is not None:
            planned = self._started + schedule.long_delay(now - self._submitted, pacing.random, pacing.policy)
            self.due = max(planned, now + pacing.policy.min_delay)
        else:
            planned = self._submitted + schedule.first_delay(job.eta, durations, pacing.policy)
            self.due = max(planned, now + pacing.policy.min_delay)

    @property
    def label(self) -> str:
        """What log lines call the job, as the beginning of a sentence."""
        return f"Item {self._name} (job {self.job})" if self._name else f"Job {self.job}"

    @property
    def unreachable(self) -> bool:
        """Whether the last polls brought nothing but faults."""
        return self._faults >= self._pacing.policy.fault_limit

    @property
    def end(self) -> Verdict | None:
        """What has ended the job; ``None`` while it is unfinished."""
        if not self.job.finished:
            return None
        return Verdict.SUCCESS if self.job.status == "success" else self.last_verdict

    @property
    def expected(self) -> float | None:
        """When ModelsLab expects to finish the job, in seconds since the epoch; ``None`` where it gave no ETA."""
        clock = self._pacing.clock
        return None if self.first_eta is None else clock.wall() + self._submitted + self.first_eta - clock.monotonic()

    @property
    def likely_left(self) -> float:
        """
        The seconds after which a poll may well find the job done: until the moment at which the schedule polls first.

        A job that is late may be as late again.
        """
        first = self._submitted + schedule.first_delay(self.first_eta, self._durations, self._pacing.policy)
        return max(abs(first - self._pacing.clock.monotonic()), self.delay())

    def may_poll(self) -> bool:
        """Whether a caller that keeps its own pace may poll now: not while ModelsLab asks for a pause."""
        return not self.job.finished and (self.last_verdict is not Verdict.RATE_LIMITED or self.delay() <= 0)

    def delay(self, deadline: float = float("inf")) -> float:
        """
        Return the seconds to the next poll: when it is due, and every second shortly before the deadline.

        :param deadline: when the wait ends.
        """
        now, policy = self._pacing.clock.monotonic(), self._pacing.policy
        moment = self.due
        if self.last_verdict is not Verdict.RATE_LIMITED:
            moment = min(moment, max(deadline - policy.last_polls, now + policy.min_delay))
        return max(0.0, moment - now)

    def take(self, reply: Reply) -> str:
        """
        Take the reply to a poll: ``job`` and ``due`` are up to date afterwards.

        :param reply: the reply, of any verdict.
        :return: a line for the log where the reply is worth one, else ``""``.
        """
        now = self._pacing.clock.monotonic()
        self._count(reply.verdict, now)
        if reply.verdict in ACCOUNT_VERDICTS:
            self.refusals.append(reply)
        self.last_verdict = reply.verdict
        self.job = reply.job
        if reply.verdict is Verdict.REFUSED:
            self.job = reply.job.failed(f"{_REFUSED}: {reply.job.message}")
        if self.first_eta is None:
            self.first_eta = reply.job.eta
        self._measure(reply.verdict, now)
        if not self.job.finished:
            self._conclude(now)
        remark = self._remark(reply)
        self.due = now + self._delay(reply, now)
        return remark

    def to_record(self) -> dict[str, Any]:
        """Return what another process must know of the last replies: plain data, empty where that is nothing."""
        clock = self._pacing.clock
        behind = clock.wall() - clock.monotonic()
        record: dict[str, Any] = {}
        if self._inconclusive is not None:
            record["inconclusive"] = self._inconclusive.name
            record["replies"] = self._inconclusive_replies
            record["since"] = self._inconclusive_since + behind
        if self.last_verdict is Verdict.RATE_LIMITED:
            record["pause_until"] = self.due + behind
            record["pause"] = self.delay()
        if self._faults:
            record["faults"] = self._faults
        return record

    def recall(self, record: Mapping[str, Any]) -> None:
        """
        Go on where another process has stopped.

        :param record: what :meth:`to_record` returned there.
        """
        clock = self._pacing.clock
        behind = clock.wall() - clock.monotonic()
        if "inconclusive" in record:
            self._inconclusive = Verdict[record["inconclusive"]]
            self._inconclusive_replies = record["replies"]
            self._inconclusive_since = min(clock.monotonic(), record["since"] - behind)
        self._faults = record.get("faults", 0)
        if "pause_until" in record:
            self.last_verdict = Verdict.RATE_LIMITED
            # No longer than it was: the wall clock may have been set back since.
            self.due = min(record["pause_until"] - behind, clock.monotonic() + record["pause"])

    def _count(self, verdict: Verdict, now: float) -> None:
        """Count faults and inconclusive replies in a row; what says nothing about the job breaks no row."""
        if verdict in ACCOUNT_VERDICTS:
            return
        if verdict in (Verdict.TRANSIENT, Verdict.RATE_LIMITED):
            self._faults += verdict is Verdict.TRANSIENT
            return
        self._faults = 0
        self.refusals.clear()
        if verdict is not self._inconclusive:
            self._inconclusive = verdict if verdict in INCONCLUSIVE else None
            self._inconclusive_replies = 0
            self._inconclusive_since = now
        self._inconclusive_replies += 1

    def _measure(self, verdict: Verdict, now: float) -> None:
        """
        Estimate how long the job took: it got ready between two polls, of which the first found it in progress.

        A job that was done when it was first polled, or that was submitted long before, tells nothing: it may have been
        done for days, and the moment of its submission stands in a record that may hold anything.
        """
        recent = self._started - self._submitted <= self._pacing.policy.max_first_delay and self._kind is None
        if verdict is Verdict.PROCESSING:
            self._in_progress = now
        elif verdict is Verdict.SUCCESS and self._in_progress is not None and recent:
            passed = now - self._submitted
            self.duration = schedule.duration_between(self._in_progress - self._submitted, passed)
            self.noticed_after = passed - (self.duration or 0.0)

    @property
    def _is_unusable(self) -> bool:
        """Whether the last reply tells of a training that is completed, and whose model is not ready for inference."""
        return self.last_verdict is Verdict.NO_OUTPUT and self._kind is not None and not self._kind.has_files

    def _conclude(self, now: float) -> None:
        """End the job where an inconclusive verdict counts by now."""
        if not self._is_unusable:
            if reason := self._failure_reason(now):
                self.job = self.job.failed(reason)
        elif (lasted := now - self._inconclusive_since) >= self._pacing.policy.unusable_limit:
            message = (
                f"{self.job.message} for {format_duration(lasted)}: its model is exported elsewhere, or it was stopped"
            )
            self.job = replace(self.job, status="success", outputs=[self.job.id], eta=None, message=message)

    def _failure_reason(self, now: float) -> str:
        """Return why an inconclusive verdict now counts as a failure; empty while it does not."""
        verdict, policy = self._inconclusive, self._pacing.policy
        if verdict is None or self.last_verdict is not verdict:
            return ""
        lasted = now - self._inconclusive_since
        limit = {
            Verdict.NOT_FOUND: policy.not_found_limit,
            Verdict.NO_OUTPUT: policy.no_output_limit,
            Verdict.EMPTY_ERROR: policy.empty_error_limit,
        }[verdict]
        if lasted < policy.inconclusive_grace or self._inconclusive_replies < limit:
            return ""
        reason = (
            f"{_ANSWERED}{INCONCLUSIVE[verdict]!r} {count(self._inconclusive_replies, 'time')} in a row, over "
            f"{format_duration(round(lasted))}"
        )
        if verdict is Verdict.NO_OUTPUT:
            reason += f": {self.job.message}"
        if verdict is Verdict.NOT_FOUND:
            reason += (
                f": job {self.job.id} is not known under endpoint {self.job.endpoint!r}"
                f"{did_you_mean(self.job.endpoint, FAMILIES)}; an id is only valid with the endpoint and the account "
                "it came from"
            )
        return reason

    def _remark(self, reply: Reply) -> str:
        policy = self._pacing.policy
        if reply.verdict is Verdict.TRANSIENT and self.unreachable:
            self.job = replace(self.job, message=f"{reply.job.message} ({count(self._faults, 'failed poll')} in a row)")
            return f"cannot be polled now: {self.job.message}" if self._faults == policy.fault_limit else ""
        if len(self.refusals) == 1 and reply.verdict in ACCOUNT_VERDICTS:
            return f"is refused, which counts once a second poll says so, too: {reply.job.message}"
        if self._is_unusable and not self.job.finished:
            limit = format_duration(policy.unusable_limit)
            told = f"is {self.job.message} yet; it counts as done when it is, or after {limit}"
            return told if self._inconclusive_replies == 1 else ""
        if not self.job.finished and reply.verdict in INCONCLUSIVE and self._inconclusive_replies == 1:
            return (
                f"may be in progress all the same: ModelsLab answered {INCONCLUSIVE[reply.verdict]!r}, which counts "
                f"once it has come again and again for {format_duration(policy.inconclusive_grace)}"
            )
        return ""

    def _delay(self, reply: Reply, now: float) -> float:
        policy, random = self._pacing.policy, self._pacing.random
        pause = reply.retry_after or 0.0
        if reply.verdict is Verdict.RATE_LIMITED:
            return schedule.spread_pause(pause, random, policy)
        if reply.verdict in ACCOUNT_VERDICTS:
            return max(schedule.backoff_delay(len(self.refusals), policy), pause)
        if self._poke_interval is not None:
            return max(self._poke_interval, pause)
        if reply.verdict is Verdict.TRANSIENT:
            delay = schedule.backoff_delay(self._faults, policy)
        elif self._kind is not None and reply.verdict in (Verdict.PROCESSING, Verdict.NO_OUTPUT):
            return max(schedule.long_delay(now - self._submitted, random, policy), pause)
        elif reply.verdict in INCONCLUSIVE:
            delay = schedule.backoff_delay(self._inconclusive_replies, policy)
        else:
            delay = schedule.next_delay(now - self._submitted, self.first_eta, self._durations, policy)
        return max(schedule.jittered(delay, random, policy), pause)


class JobWaits:
    """
    The waits for several jobs: one per distinct job, so that a job that is named twice is polled once.

    :param jobs: the jobs, in the user's order; finished ones may be among them.
    :param pacing: policy, clock and chance.
    :param poke_interval: a fixed pace in seconds; ``None`` lets the schedule find the moments.
    :param started: when the wait started, in seconds since the epoch; ``None`` for now.
    :param durations: what is known about how long the jobs of each endpoint take; ``None`` for nothing.
    :param names: what the user calls the jobs, if anything.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        pacing: Pacing,
        poke_interval: float | None = None,
        started: float | None = None,
        durations: Mapping[str, schedule.DurationModel] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self._clock = pacing.clock
        self._started = started = self._clock.wall() if started is None else started
        waits: dict[str, JobWait] = {}
        self._waits: list[JobWait] = []
        for position, job in enumerate(jobs):
            name = names[position] if position < len(names) else ""
            # A job without an id has finished already, and is like no other.
            address = _address(job) if job.id else f"#{position}"
            if address not in waits:
                known = schedule.PRIOR if durations is None else durations[job.endpoint]
                waits[address] = JobWait(job, pacing, started, poke_interval, known, name)
            self._waits.append(waits[address])

    def unfinished(self) -> list[JobWait]:
        """Return the waits that go on, each once."""
        return list(dict.fromkeys(wait for wait in self._waits if not wait.job.finished))

    def likely_left(self, max_pending: int = 0) -> float:
        """Return the seconds after which there is a fair chance that no more jobs than these are unfinished."""
        left = sorted(wait.likely_left for wait in self.unfinished())
        return left[-1 - max_pending] if len(left) > max_pending else 0.0

    def account_refusal(self) -> Reply | None:
        """
        Return a reply that refuses the account (its key, credits or plan), once a second poll has said so.

        That must be a poll of another job, or of the same one where no other is unfinished. What ModelsLab says of one
        job only holds up none of the others: it counts once they are finished.
        """
        unfinished = self.unfinished()
        refused = [wait for wait in unfinished if wait.refusals]
        certain = len(refused) > 1 or any(len(wait.refusals) > 1 for wait in refused if len(unfinished) == 1)
        return refused[0].refusals[-1] if certain else None

    def to_records(self) -> dict[str, dict[str, Any]]:
        """Return what another process must know of the last replies, by job; see :meth:`JobWait.to_record`."""
        records = {_address(wait.job): wait.to_record() for wait in self.unfinished()}
        return {address: record for address, record in records.items() if record}

    def recall(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on where another process has stopped, with what :meth:`to_records` returned there."""
        for wait in self.unfinished():
            wait.recall(records.get(_address(wait.job), {}))

    def jobs(self) -> list[Job]:
        """Return all jobs as they stand, in the user's order."""
        return [wait.job for wait in self._waits]

    def summary(self) -> str:
        """Describe how far the waits are, for a log line."""
        if not self._waits:
            return "no job is submitted yet"
        waits = list(dict.fromkeys(self._waits))
        unfinished = [wait for wait in waits if not wait.job.finished]
        expected = [wait.expected for wait in unfinished if wait.expected is not None]
        text = f"{len(waits) - len(unfinished)} of {count(len(waits), 'job')} done"
        if expected:
            text += f", the last expected about {format_moment(max(expected), self._clock.wall())}"
        waiting = self._clock.wall() - self._started
        if unfinished and waiting >= 1:
            text += f", waiting for {format_duration(round(waiting))}"
        unreachable = [wait.job for wait in unfinished if wait.unreachable]
        if unreachable:
            text += f"; {len(unreachable)} cannot be polled now: {unreachable[0].message}"
        return text


def _address(job: Job) -> str:
    """Return the text that identifies a job: its id is unique only at its host and under its endpoint."""
    return f"{job.host}/{job}"


def enough(unfinished: int, max_pending: int | None) -> bool:
    """
    Whether a wait has what it was for.

    :param unfinished: how many jobs are in progress.
    :param max_pending: how many may be left: 0 waits for all, ``None`` for the deadline in any case.
    """
    return max_pending is not None and unfinished <= max_pending
