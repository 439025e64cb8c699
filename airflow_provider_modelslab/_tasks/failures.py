"""What to do about jobs that have failed: the beginning of the error that ends a task, or a wait."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_modelslab._polling.waits import is_unknown
from airflow_provider_modelslab._protocol.phrases import names_no_route
from airflow_provider_modelslab.jobs import Job

GENERATE_AGAIN = "Generate again, or from other input"


def advice_on(failed: Sequence[Job]) -> str:
    """
    Return what to do first.

    :param failed: the jobs.
    """
    if all(is_unknown(job) or names_no_route(job.message) for job in failed):
        return "Check id, endpoint and connection, or generate again"
    return GENERATE_AGAIN
