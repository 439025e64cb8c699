"""
What can go wrong, by what the user can do about it.

Errors that repeating cannot mend are ``AirflowFailException``: the task fails without using up its retries.
No message carries the API key or the body of a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSensorTimeout

if TYPE_CHECKING:
    from airflow_provider_modelslab.jobs import Job


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
    """The account has no credits left, or its quota is used up. Do: top it up, or wait for the next period."""


class ModelsLabPlanError(AirflowFailException):
    """The account's plan does not include what was asked for. Do: upgrade it, or use another endpoint."""


class ModelsLabRequestError(AirflowFailException):
    """ModelsLab refuses the request as it stands. Do: correct the parameters that the message names."""


class ModelsLabAmbiguousSubmission(AirflowFailException):
    """
    A submission may have been accepted, and billed, but no usable reply came.

    Do: look into the account's history at ModelsLab before submitting again. It is not retried for you,
    because the API has no idempotency key: a second submission is a second job.
    """


class ModelsLabTransientError(AirflowException):
    """
    ModelsLab could not be asked: network, server or proxy trouble that passes. Do: try again later.

    :param message: what happened.
    :param retry_after: seconds to stay away, where ModelsLab named them.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelsLabRateLimited(ModelsLabTransientError):
    """The account's queue is full or it asks too often. Do: try again after ``retry_after`` seconds."""


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

    Only the saving is repeated. The URLs of outputs may expire, after 24 hours in some cases.

    :param message: which outputs of which jobs were not stored, and why.
    """


class ModelsLabOutputExists(AirflowFailException):
    """Outputs are stored already and must not be replaced. Do: name another ``output_path`` or ``if_exists``."""
