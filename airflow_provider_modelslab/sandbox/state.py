"""
What the sandbox remembers: accounts, jobs, their queue, and when each job is done.

Pure logic; the clock is handed in. No I/O, no threads, no HTTP, and nothing about how a reply is spelled. Every method
of the ledger first ends the jobs whose time has come.
"""

from __future__ import annotations

import heapq
import math
import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

JobStatus = Literal["processing", "success", "failed"]

FIRST_JOB_ID = 30_000_001
"""Above every id that the documentation mentions."""

PRICE = 0.002
"""What one accepted job takes from the balance."""

FAILED_MESSAGE = "Failed, Try Again"


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """
    What a client asked for, in the words of its submission.

    :param account: the name of the account that pays for it.
    :param endpoint: the family that it was submitted to.
    :param fetch_endpoint: the family that its ``fetch_result`` names.
    :param kind: the kind of its files, as an extension.
    :param samples: how many files it makes.
    :param base64: the files hold base64 text.
    :param meta: the parameters of the submission, without the key.
    :param webhook: the URL to be told when it is done.
    :param track_id: the client's own name for it, which the webhook carries.
    :param base_url: the address under which this client sees the sandbox.
    :param id_form: what the id looks like that clients are told.
    """

    account: str
    endpoint: str
    fetch_endpoint: str
    kind: str
    samples: int = 1
    base64: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)
    webhook: str | None = None
    track_id: int | str | None = None
    base_url: str = ""
    id_form: Literal["number", "uuid", "short"] = "number"


@dataclass(kw_only=True)
class Job:
    """
    One generation job.

    :param id: its id, unique among submitted jobs.
    :param request: what was asked for.
    :param token: names its files; it tells nothing about the id.
    :param submitted: when it was accepted, on the ledger's clock.
    :param duration: how many seconds it takes; infinite for a job that only :meth:`Ledger.finish` ends.
    :param eta: the estimate that the client is given, in seconds.
    :param failure: the message with which it will fail, or has failed; empty for a job that succeeds.
    :param status: ``processing``, ``success`` or ``failed``.
    :param finished: when it ended, on the ledger's clock.
    :param stopped: whether a client has ended it.
    """

    id: int
    request: JobRequest
    token: str
    submitted: float
    duration: float
    eta: float | None
    failure: str = ""
    status: JobStatus = "processing"
    finished: float | None = None
    stopped: bool = False

    @property
    def public_id(self) -> str:
        """The id that clients are told."""
        return {"number": str(self.id), "uuid": self.token, "short": self.token.replace("-", "")[-10:]}[
            self.request.id_form
        ]

    @property
    def generation_time(self) -> float:
        """How many seconds it took, once it has ended."""
        return 0.0 if self.finished is None else self.finished - self.submitted


@dataclass(kw_only=True)
class Account:
    """
    One customer.

    :param key: the API key.
    :param balance: what is left to spend.
    :param queue_limit: how many jobs may be in flight at once; ``None`` for any number.
    :param in_flight: how many are.
    """

    key: str = field(repr=False)
    balance: float
    queue_limit: int | None = None
    in_flight: int = 0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """
    How long jobs take and what clients are told about it. The same seed gives a job the same duration.

    :param duration: seconds that a job takes.
    :param durations: the same for single families, where it differs.
    :param duration_sigma: spread of the durations: the standard deviation of their logarithm.
    :param eta_sigma: error of the estimates: the standard deviation of ln(eta / duration); ``None`` for replies
        without any estimate.
    :param instant: the probability that a job is done before its submission is answered.
    :param seed: makes the draws repeatable.
    """

    duration: float = 3.0
    durations: Mapping[str, float] = field(default_factory=dict)
    duration_sigma: float = 0.0
    eta_sigma: float | None = 0.2
    instant: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not all(duration >= 0 for duration in (self.duration, *self.durations.values())):
            raise ValueError("a duration is a number of seconds, not negative")
        if self.duration_sigma < 0 or (self.eta_sigma or 0) < 0:
            raise ValueError("a sigma is a standard deviation, not negative")
        if not 0 <= self.instant <= 1:
            raise ValueError("instant is a probability, between 0 and 1")

    def draw(self, endpoint: str, job_id: int) -> tuple[float, float | None, bool]:
        """Return the duration of a job, its estimate, and whether it is done at once."""
        # Every job makes the same draws in the same order, so that changing one option leaves the rest as it was.
        rng = random.Random(f"{self.seed}/pace/{job_id}")
        instant = rng.random() < self.instant
        spread, error = rng.gauss(0, 1), rng.gauss(0, 1)
        duration = self.durations.get(endpoint, self.duration) * math.exp(self.duration_sigma * spread)
        if self.eta_sigma is None:
            return duration, None, instant
        # A job without an end has an estimate, too.
        expected = duration if math.isfinite(duration) else Pace.duration
        return duration, max(0.1, round(expected * math.exp(self.eta_sigma * error), 2)), instant


class Ledger:
    """
    The accounts and all jobs.

    :param accounts: the accounts by name.
    :param pace: how long jobs take.
    :param clock: returns the time in seconds.
    :param on_change: called with every job that was accepted and with every one that ended.
    :param first_id: the id of the first job.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        pace: Pace,
        clock: Callable[[], float],
        on_change: Callable[[Job], None] = lambda job: None,
        first_id: int = FIRST_JOB_ID,
    ) -> None:
        self.accounts = accounts
        self.max_in_flight = 0
        self._pace = pace
        self._clock = clock
        self._on_change = on_change
        self._first_id = first_id
        self._jobs: dict[int, Job] = {}
        self._in_flight: dict[int, Job] = {}
        self._ends: list[tuple[float, int]] = []  # a heap: the next job to end comes first
        self._by_address: dict[tuple[str, str], Job] = {}
        self._by_token: dict[str, Job] = {}
        for job in _documented_jobs():
            self._index(job)

    @property
    def next_id(self) -> int:
        """The id that the next job gets."""
        return self._first_id + len(self._jobs)

    @property
    def jobs(self) -> dict[int, Job]:
        """Copies of all submitted jobs by id, in the order of their submission."""
        self.advance()
        return {job_id: replace(job) for job_id, job in self._jobs.items()}

    @property
    def in_flight(self) -> int:
        """How many jobs are processing, over all accounts."""
        self.advance()
        return len(self._in_flight)

    def account(self, name: str) -> Account:
        """Return an account as it stands now."""
        self.advance()
        return self.accounts[name]

    def accept(self, request: JobRequest, failure: str = "") -> Job:
        """
        Accept a job. The caller has checked that the account may have it.

        :param failure: the message with which the job will fail; empty for one that succeeds.
        """
        self.advance()
        job_id, now = self.next_id, self._clock()
        duration, eta, instant = self._pace.draw(request.endpoint, job_id)
        # Browsers keep files for a while, also over a reset: another request has other files, so another token.
        rng = random.Random(f"{self._pace.seed}/token/{job_id}/{request.meta}")
        token = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        job = Job(id=job_id, request=request, token=token, submitted=now, duration=duration, eta=eta, failure=failure)
        self._jobs[job_id] = job
        self._index(job)
        account = self.accounts[request.account]
        account.balance = round(account.balance - PRICE, 6)
        if instant:
            self._end(job, now)
            return job
        account.in_flight += 1
        self._in_flight[job_id] = job
        self.max_in_flight = max(self.max_in_flight, len(self._in_flight))
        heapq.heappush(self._ends, (now + duration, job_id))
        self._on_change(job)
        return job

    def find(self, endpoint: str, job_id: str) -> Job | None:
        """Return the job that has this id in this family."""
        self.advance()
        return self._by_address.get((endpoint, job_id))

    def find_by_token(self, token: str) -> Job | None:
        """Return the job whose files have this token in their names."""
        self.advance()
        return self._by_token.get(token)

    def age(self, job: Job) -> float:
        """Return how many seconds ago a job was accepted."""
        return self._clock() - job.submitted

    def advance(self) -> None:
        """End the jobs whose time has come."""
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            at, job_id = heapq.heappop(self._ends)
            job = self._jobs[job_id]
            if job.status == "processing":
                self._end(job, at)

    def share_done(self, job: Job) -> float:
        """Return which share of its duration a job has behind it."""
        return min(1.0, self.age(job) / job.duration) if job.duration > 0 else 1.0

    def id_of(self, job_id: int | str) -> int:
        """
        Return the number of a job by any id that clients are told.

        :raises LookupError: no such job was submitted.
        """
        for job in self._jobs.values():
            if str(job_id) in (job.public_id, str(job.id)):
                return job.id
        raise LookupError(f"no job {job_id} was submitted")

    def stop(self, job_id: int) -> None:
        """
        End a job now because a client asks for that: it has failed, and says that it was stopped.

        :raises ValueError: it has ended already.
        """
        self._jobs[job_id].stopped = self._submitted(job_id).status == "processing"
        self.fail(job_id, "stopped by a client")

    def finish(self, job_id: int) -> None:
        """
        End a job now, as it would have ended by itself. One that has ended already stays as it is.

        :raises LookupError: no such job was submitted.
        """
        job = self._submitted(job_id)
        if job.status == "processing":
            self._end(job, self._clock())

    def finish_all(self) -> None:
        """End all jobs in flight now, as they would have ended by themselves."""
        self.advance()
        for job in list(self._in_flight.values()):
            self._end(job, self._clock())

    def fail(self, job_id: int, message: str = FAILED_MESSAGE) -> None:
        """
        End a job now with a failure.

        :raises LookupError: no such job was submitted.
        :raises ValueError: it has ended already, or the message is empty.
        """
        job = self._submitted(job_id)
        if not isinstance(message, str) or not message:
            raise ValueError(f"message must say why the job fails, not be {message!r}")
        if job.status != "processing":
            raise ValueError(f"job {job_id} has ended already: {job.status}")
        job.failure = message
        self._end(job, self._clock())

    def count(self) -> dict[str, int]:
        """Return how many of the submitted jobs have each status."""
        self.advance()
        statuses = Counter(job.status for job in self._jobs.values())
        return {status: statuses[status] for status in ("processing", "success", "failed")}

    def _submitted(self, job_id: int) -> Job:
        self.advance()
        try:
            return self._jobs[job_id]
        except KeyError:
            raise LookupError(f"no job {job_id} was submitted") from None

    def _index(self, job: Job) -> None:
        for endpoint in (job.request.endpoint, job.request.fetch_endpoint):
            self._by_address[endpoint, job.public_id] = job
        self._by_token[job.token] = job

    def _end(self, job: Job, at: float) -> None:
        if self._in_flight.pop(job.id, None) is not None:
            self.accounts[job.request.account].in_flight -= 1
        job.status = "failed" if job.failure else "success"
        job.finished = at
        self._on_change(job)


def _documented_jobs() -> list[Job]:
    """Return the jobs that the examples of the API's documentation fetch: finished, and never submitted."""
    return [
        Job(
            id=job_id,
            request=JobRequest(account="", endpoint=endpoint, fetch_endpoint=endpoint, kind=kind),
            token=token,
            submitted=0.0,
            duration=2.5,
            eta=None,
            status="success",
            finished=2.5,
        )
        for endpoint, job_id, kind, token in (
            ("v1/enterprise", 13443927, "png", "6ef3f81f-14e1-4835-b07a-e00dbe80b6ff"),
            ("v1/enterprise/video", 147, "gif", "2be1702e-3a1f-46ee-811c-350cee84b66e"),
            ("v3", 12202888, "png", "e5cd86d3-7305-47fc-82c1-7d1a3b130fa4"),
            ("v4/dreambooth", 13443927, "png", "6ef3f81f-14e1-4835-b07a-e00dbe80b6ff"),
            ("v1/enterprise/flux_headshot", 12202888, "png", "e5cd86d3-7305-47fc-82c1-7d1a3b130fa4"),
        )
    ]
