"""
What can go wrong, by what the user can do about it.

Errors that repeating cannot mend are ``AirflowFailException``: the task fails without using up its retries.
No message carries the API key or the body of a request::

    AirflowFailException
    ├── ModelsLabArgumentError (also a ValueError)    an argument, or a field of the connection, is wrong
    ├── ModelsLabAuthError                            the key is refused
    ├── ModelsLabBudgetExceeded                       a limit of your own on spending
    ├── ModelsLabCreditsError                         no credits or quota left
    ├── ModelsLabPlanError                            the plan does not allow it
    ├── ModelsLabRequestError                         the parameters are refused
    ├── ModelsLabAmbiguousSubmission                  a submission that may have been billed
    ├── ModelsLabJobFailed                            the generation failed
    └── ModelsLabOutputExists                         files are there that must not be replaced
    AirflowException
    ├── ModelsLabTransientError                       network, server or proxy trouble that passes
    │   └── ModelsLabRateLimited                      the queue is full, or requests come too fast
    ├── ModelsLabSaveError                            outputs could not be stored
    └── ModelsLabLedgerError                          the memory of paid jobs cannot be read or written
    AirflowSensorTimeout
    └── ModelsLabTimeout                              the time of a wait is over
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSensorTimeout

from airflow_provider_modelslab._protocol.formatting import format_duration
from airflow_provider_modelslab._protocol.verdicts import Verdict

if TYPE_CHECKING:
    from airflow_provider_modelslab.jobs import Job

__all__ = [
    "ModelsLabAmbiguousSubmission",
    "ModelsLabArgumentError",
    "ModelsLabAuthError",
    "ModelsLabBudgetExceeded",
    "ModelsLabCreditsError",
    "ModelsLabJobFailed",
    "ModelsLabLedgerError",
    "ModelsLabOutputExists",
    "ModelsLabPlanError",
    "ModelsLabRateLimited",
    "ModelsLabRequestError",
    "ModelsLabSaveError",
    "ModelsLabTimeout",
    "ModelsLabTransientError",
]


class ModelsLabArgumentError(AirflowFailException, ValueError):
    """An argument or a field of the connection is wrong. Do: correct what the message names."""


@contextmanager
def argument_errors(prefix: str = "") -> Iterator[None]:
    """
    Raise the ``ValueError`` of a pure function as what it is for Airflow: an argument that a retry cannot mend.

    :param prefix: what to put before its message.
    """
    try:
        yield
    except ValueError as error:
        raise ModelsLabArgumentError(f"{prefix}{error}") from None


class ModelsLabJobFailed(AirflowFailException):
    """
    ModelsLab could not generate what was asked for. Do: change the input and submit again.

    :param message: what failed and why, in ModelsLab's words.
    :param jobs: the failed jobs.
    """

    def __init__(self, message: str, jobs: Sequence[Job] = ()) -> None:
        super().__init__(message)
        self.jobs = tuple(jobs)


class ModelsLabAuthError(AirflowFailException):
    """ModelsLab does not accept the API key. Do: put a valid key into the connection."""


class ModelsLabCreditsError(AirflowFailException):
    """
    The account has no credits left, its quota is used up, or its balance is below ``min_balance``.

    Do: top it up, or wait for the next period.
    """


class ModelsLabBudgetExceeded(AirflowFailException):
    """
    One more job would exceed a limit that you have set: ``max_jobs_per_day`` or ``max_spending_per_day``.

    Do: raise the limit where the message says that it is set, or clear the task on the next day (UTC). Jobs that were
    submitted before live on, and the cleared task re-attaches to them.
    """


class ModelsLabPlanError(AirflowFailException):
    """The account's plan does not include what was asked for. Do: upgrade it, or use another endpoint."""


class ModelsLabRequestError(AirflowFailException):
    """ModelsLab refuses the request as it stands. Do: correct the parameters that the message names."""


class ModelsLabAmbiguousSubmission(AirflowFailException):
    """
    A submission may have been accepted, and billed, but no usable reply came, or the worker died meanwhile.

    Do: look into the account's history at ModelsLab before submitting again. It is not retried for you,
    because the API has no idempotency key: a second submission is a second job. After a dead worker, the message names
    the account's newest outputs that the ledger does not know, where ModelsLab lists them.

    :param message: what happened.
    :param job: what the reply names of a job: an id, where it has one that can be polled, and everything else that
        looks like an id. ``ids`` are all of these, by the names of their fields.
    """

    def __init__(self, message: str, job: Job | None = None) -> None:
        super().__init__(message)
        self.job = job
        self.ids: dict[str, str] = {} if job is None else ({"id": job.id} if job.id else {}) | job.ids


class ModelsLabTransientError(AirflowException):
    """
    ModelsLab could not be asked: network, server or proxy trouble outlasted the retries of a fetch or a submission.

    A wait never ends by it. Do: try again later.

    :param message: what to do, and what happened.
    :param retry_after: seconds to pause, where ModelsLab named them.
    :ivar reason: what happened, without what to do.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.reason = message


class ModelsLabRateLimited(ModelsLabTransientError):
    """
    The account's queue is full, or it asks too often; nothing was accepted.

    Do: try again after ``retry_after`` seconds. ``hook.submit`` raises it when the queue is still full after
    ``queue_timeout``.

    :param message: what happened.
    :param retry_after: seconds to pause, where ModelsLab named them.
    :param queue_slots: how many jobs the account's queue holds, where ModelsLab named a number.
    """

    def __init__(self, message: str, retry_after: float | None = None, queue_slots: int | None = None) -> None:
        super().__init__(message, retry_after)
        self.queue_slots = queue_slots


class ModelsLabTimeout(AirflowSensorTimeout):
    """
    The time that a wait was given is over. Do: wait again, with a longer ``timeout``; the jobs live on.

    :param message: which jobs were not finished.
    :param jobs: all jobs of the wait, as they stood at its end.
    """

    def __init__(self, message: str, jobs: Sequence[Job] = ()) -> None:
        super().__init__(message)
        self.jobs = tuple(jobs)


class ModelsLabSaveError(AirflowException):
    """
    Outputs could not be stored; the generation itself is done. Do: retry or clear the task soon.

    Only the saving is repeated. The URLs of outputs may expire, after 24 hours in some cases. The operator is retried
    only where its jobs are remembered.

    :param message: which outputs of which jobs were not stored, and why.
    :param without_files: the jobs whose files no server has.
    """

    def __init__(self, message: str, without_files: Sequence[Job] = ()) -> None:
        super().__init__(message)
        self.without_files = tuple(without_files)


class ModelsLabLedgerError(AirflowException):
    """
    The ledger cannot be read or written, so nothing was submitted. Do: correct what the store complains of.

    The task is retried: nothing was paid for.
    """


class ModelsLabOutputExists(AirflowFailException):
    """Outputs are stored already and must not be replaced. Do: name another ``output_path`` or ``if_exists``."""


_BY_VERDICT: dict[Verdict, tuple[type[AirflowException], str]] = {
    Verdict.INVALID_KEY: (
        ModelsLabAuthError,
        "Put a valid key into connection {conn_id!r}: ModelsLab refuses its API key: {message}. Endpoints under "
        "v1/enterprise need the key of their own server",
    ),
    Verdict.NO_CREDITS: (
        ModelsLabCreditsError,
        "Top up the ModelsLab account of connection {conn_id!r}, then clear the task: it has no credits or quota left: "
        "{message}",
    ),
    Verdict.NOT_IN_PLAN: (
        ModelsLabPlanError,
        "Upgrade the ModelsLab account of connection {conn_id!r}, or use another endpoint: its plan does not allow "
        "this: {message}",
    ),
    Verdict.REFUSED: (
        ModelsLabRequestError,
        "Correct the parameters of the request: ModelsLab refuses it: {message}",
    ),
    Verdict.RATE_LIMITED: (
        ModelsLabRateLimited,
        "Try again in {pause}: ModelsLab takes no further request for now: {message}; nothing was accepted",
    ),
    Verdict.TRANSIENT: (
        ModelsLabTransientError,
        "Try again later: ModelsLab could not be asked: {message}",
    ),
    Verdict.AMBIGUOUS: (
        ModelsLabAmbiguousSubmission,
        "Look into the account's history before you submit again: this may have been billed, no usable reply came to "
        "a {message}",
    ),
}


def exception_for(
    verdict: Verdict,
    message: str,
    conn_id: str,
    retry_after: float | None = None,
    *,
    queue_slots: int | None = None,
    job: Job | None = None,
) -> AirflowException:
    """
    Return the exception of a verdict that is not about a job: what to do, and what happened.

    :param verdict: the verdict.
    :param message: ModelsLab's words, or what the network did.
    :param conn_id: the connection that was used.
    :param retry_after: seconds to pause, where ModelsLab named them.
    :param queue_slots: of a rate limit, how many jobs the account's queue holds, where that is known.
    :param job: of an ambiguous submission, what its reply names of a job.
    """
    kind, template = _BY_VERDICT.get(verdict, _BY_VERDICT[Verdict.TRANSIENT])
    text = template.format(message=message.rstrip(". "), conn_id=conn_id, pause=format_duration(retry_after or 0.0))
    if issubclass(kind, ModelsLabAmbiguousSubmission):
        return kind(text, job)
    error = kind(text)
    if isinstance(error, ModelsLabTransientError):
        error.retry_after, error.reason = retry_after, message
    if isinstance(error, ModelsLabRateLimited):
        error.queue_slots = queue_slots
    return error
