"""
What a task makes of jobs that are done: its XComs, its asset events, its last log lines, or its failure.

The same for the sensor and for the operator, so that what a downstream task receives does not depend on which of
them, or which mode, has waited.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_modelslab.exceptions import ModelsLabJobFailed, ModelsLabTimeout
from airflow_provider_modelslab.jobs import Job

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_modelslab._outputs.saving import IfExists

JOBS_KEY = "jobs"
"""The XCom key of the job records."""

FILES_KEY = "files"
"""The XCom key of the stored files' paths."""

_LISTED_JOBS = 10

_LISTED_OUTPUTS = 20  # each line costs the task and its supervisor most of a millisecond


def push_jobs(context: Context, jobs: Sequence[Job]) -> None:
    """Push one record per job, failed ones included."""
    context["ti"].xcom_push(key=JOBS_KEY, value=[job.to_dict() for job in jobs])


def outputs_of(jobs: Sequence[Job]) -> list[str]:
    """Return the output URLs of all jobs as one flat list, in the order of the jobs."""
    return [url for job in jobs for url in job.outputs]


def store(
    context: Context,
    jobs: Sequence[Job],
    *,
    output_path: str | None,
    if_exists: IfExists,
    ca_bundle: str | None,
    log: Any,
) -> list[str] | None:
    """
    Store the outputs of jobs that are done; push the paths of the files, and return them.

    :param context: the task's context.
    :param jobs: the jobs; those that failed have no outputs.
    :param output_path: the folder; ``None`` stores nothing and returns ``None``.
    :param if_exists: what to do about files that are there.
    :param ca_bundle: the certificate authorities that the connection names.
    :param log: the task's log.
    :raises ModelsLabSaveError: some could not be stored; repeating the task repeats only that.
    """
    if output_path is None:
        return None
    from airflow_provider_modelslab._outputs.saving import save_outputs  # fsspec is not for those who only parse DAGs

    push_jobs(context, jobs)
    files = save_outputs(jobs, output_path, if_exists=if_exists, ca_bundle=ca_bundle, log=log)
    context["ti"].xcom_push(key=FILES_KEY, value=files)
    return files


def push_results(
    context: Context, jobs: Sequence[Job], *, files: Sequence[str] | None, fail_on_partial_error: bool, log: Any
) -> list[str]:
    """
    Return the output URLs of jobs that are done; push their records, and tell outlets and log of them.

    :param context: the task's context.
    :param jobs: the jobs, all of them done.
    :param files: where the outputs were stored, if they were.
    :param fail_on_partial_error: whether one failed job fails the task.
    :param log: the task's log.
    :raises ModelsLabJobFailed: jobs failed, and that is not to be tolerated.
    """
    push_jobs(context, jobs)
    failed = [job for job in jobs if job.status == "failed"]
    urls = outputs_of(jobs)
    log.info("%d of %d jobs succeeded, with %d outputs", len(jobs) - len(failed), len(jobs), len(urls))
    outputs = files or urls
    for output in outputs[:_LISTED_OUTPUTS]:
        log.info("Output: %s", output)
    if len(outputs) > _LISTED_OUTPUTS:
        log.info("%d more outputs are in the XComs", len(outputs) - _LISTED_OUTPUTS)
    if failed:
        message = f"{len(failed)} of {len(jobs)} jobs failed: {format_jobs(failed)}"
        if fail_on_partial_error:
            raise ModelsLabJobFailed(message, jobs=failed)
        log.warning("%s", message)
    _tell_outlets(context, {"urls": urls} | ({} if files is None else {"files": list(files)}))
    return urls


def timeout_error(jobs: Sequence[Job], advice: str) -> ModelsLabTimeout:
    """
    Return the error of jobs that were not all done in time.

    :param jobs: all jobs, as they stand.
    :param advice: how to get at them later.
    """
    unfinished = [job for job in jobs if not job.finished]
    return ModelsLabTimeout(
        f"{len(unfinished)} of {len(jobs)} jobs were not done in time: {format_jobs(unfinished)}. Those that "
        f"were submitted live on at ModelsLab: {advice}",
        jobs=jobs,
    )


def format_jobs(jobs: Sequence[Job]) -> str:
    """Name jobs with what ModelsLab said of them, the first ten."""
    named = "; ".join(f"{job} ({job.message or job.status})" for job in jobs[:_LISTED_JOBS])
    return f"{named}; and {len(jobs) - _LISTED_JOBS} more" if len(jobs) > _LISTED_JOBS else named


def _tell_outlets(context: Context, extra: dict[str, Any]) -> None:
    """Let the events of the task's assets carry what was generated."""
    for outlet in context["task"].outlets if "task" in context else ():
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra = extra
