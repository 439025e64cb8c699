"""
What a task makes of finished jobs: its XComs, its asset events, its last log lines, or its failure.

The same for the sensor and for the operator, so that what a downstream task receives does not depend on which of
them, or which mode, has waited. Here passes all that Airflow stores of a job, and gets short: an output that is data
goes whole only into files, or, up to :data:`MAX_RETURNED`, into the ``return_value``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import compress, zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias, XCom

from airflow_provider_modelslab._http.connection import ClientOptions
from airflow_provider_modelslab._ledger.receipts import StoredFile
from airflow_provider_modelslab._outputs.names import is_url
from airflow_provider_modelslab._protocol.arguments import IfExists
from airflow_provider_modelslab._protocol.formatting import count, one_line, short_name
from airflow_provider_modelslab._protocol.outputs import as_text
from airflow_provider_modelslab._protocol.phrases import says_only_running
from airflow_provider_modelslab._protocol.shortening import (
    described_digest,
    is_long_output,
    shorten_echoes,
    shorten_job,
    shorten_output,
)
from airflow_provider_modelslab._tasks.deferral import Limit
from airflow_provider_modelslab._tasks.failures import advice_on
from airflow_provider_modelslab._telemetry import lineage
from airflow_provider_modelslab.exceptions import (
    ModelsLabArgumentError,
    ModelsLabJobFailed,
    ModelsLabSaveError,
    ModelsLabTimeout,
    ModelsLabTransientError,
)
from airflow_provider_modelslab.jobs import Job, Output

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

JOBS_KEY = "jobs"
"""The XCom key of the job records."""

FILES_KEY = "files"
"""The XCom key of the stored files' paths."""

STORING_ADVICE = "Retry or clear the task soon, which stores what is missing"

DATA_ADVICE = "Pass an output_path to a ModelsLabJobSensor on the XCom 'jobs' of this task"
"""Of outputs that are too long for Airflow's database, and were not stored."""

MAX_RETURNED = 64 * 2**10
"""Characters of an output that is data, not a URL, up to which the ``return_value`` has it."""

try:
    from airflow.sdk.definitions.asset import AssetRef

    _ASSET_REFERENCES: tuple[type, ...] = (AssetRef,)
except ImportError:  # Airflow 2
    _ASSET_REFERENCES = ()

_LISTED_JOBS = 10

_LISTED_OUTPUTS = 20

_LONGEST_LINE = 500
"""Characters of a text that a log line shows."""


def push_jobs(context: Context, jobs: Sequence[Job]) -> None:
    """Push one record per job, failed ones included; the task then knows what links and lineage are about."""
    context["ti"].xcom_push(key=JOBS_KEY, value=xcom_records(jobs))
    if "task" in context:
        ids = [job.id for job in jobs if job.id]
        context["task"].pushed_job_ids = ids  # type: ignore[union-attr]  # a task that runs is mapped no more


async def apush_jobs(ti: Any, jobs: Sequence[Job]) -> None:
    """
    Update the records of a deferred task's jobs, for the page "Outputs"; do nothing where that is not possible.

    Airflow lets triggers write XComs from 3.3 on. A custom XCom backend might block the triggerer, and is left alone.

    :param ti: the trigger's task instance.
    """
    if not hasattr(XCom, "aset") or XCom.__name__ != "BaseXCom":
        return
    with suppress(Exception):  # It must not end the wait: the worker pushes the records anyway.
        await XCom.aset(
            JOBS_KEY,
            xcom_records(jobs),
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=ti.map_index,
        )


def xcom_records(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Return jobs as XComs have them: one record each, with all fields."""
    return [shorten_job(job.to_dict()) for job in shorten_echoes(jobs)]


def with_whole_outputs(jobs: Sequence[Job], fetch: Callable[[Job], Job]) -> list[Job]:
    """
    Return finished jobs with their outputs as ModelsLab has them: data did not travel through Airflow's database.

    :param jobs: the jobs, as the trigger's event brought them.
    :param fetch: polls a job.
    :raises ModelsLabTransientError: ModelsLab does not return an output again.
    """
    return [_with_whole_outputs(job, fetch) if any(map(described_digest, job.outputs)) else job for job in jobs]


def _with_whole_outputs(job: Job, fetch: Callable[[Job], Job]) -> Job:
    whole = fetch(job) if job.id else job.failed()
    if not whole.outputs or whole.status != "success":
        raise ModelsLabTransientError(f"Try again: ModelsLab does not return the outputs of the finished job {job} now")
    return whole


def store(
    context: Context,
    jobs: Sequence[Job],
    output_path: str,
    if_exists: IfExists,
    options: ClientOptions,
    log: Any,
    advice: str = STORING_ADVICE,
    stored: Mapping[int, Sequence[StoredFile]] = MappingProxyType({}),
) -> list[Sequence[StoredFile]]:
    """
    Store the outputs of finished jobs; push the paths of the files, and return the files of each job.

    :param context: the task's context.
    :param jobs: the jobs; those that failed have no outputs.
    :param output_path: the folder.
    :param if_exists: what happens to files that are there.
    :param options: the options of the connection.
    :param log: the task's log.
    :param advice: what to do where something could not be stored.
    :param stored: by position, the files of jobs whose outputs are stored already.
    :raises ModelsLabSaveError: some outputs could not be stored; repeating the task repeats only that.
    """
    from airflow_provider_modelslab._outputs.saving import save_outputs  # parsing a DAG needs no fsspec

    push_jobs(context, jobs)
    left = [job for position, job in enumerate(jobs) if position not in stored]
    rules = options.download_options
    try:
        saved = iter(save_outputs(left, output_path, if_exists=if_exists, download_options=rules, log=log))
    except ModelsLabSaveError as error:
        raise ModelsLabSaveError(f"{advice}: {error}", error.without_files) from error
    files = [
        stored[position]
        if position in stored
        else [StoredFile(*next(saved)) for _ in (job.outputs if job.status == "success" else ())]
        for position, job in enumerate(jobs)
    ]
    paths = paths_of(files)
    context["ti"].xcom_push(key=FILES_KEY, value=paths)
    paths_by_job = [(job, paths_of([files_of_job])) for job, files_of_job in zip(jobs, files, strict=True)]
    lineage.report_files(paths_by_job, output_path, options.base_url)
    return files


def paths_of(files: Sequence[Sequence[StoredFile]]) -> list[str]:
    """Return the paths of the files of jobs, in their order."""
    return [file.path for files_of_job in files for file in files_of_job]


def push_results(
    context: Context,
    jobs: Sequence[Job],
    *,
    files: Sequence[str] | None,
    return_files: bool,
    fail_on_partial_error: bool,
    log: Any,
    names: Sequence[str] = (),
    data_advice: str = DATA_ADVICE,
) -> list[Output]:
    """
    Push the records of finished jobs, tell outlets and log of them, and return the ``return_value``.

    :param context: the task's context.
    :param jobs: the jobs, all of them finished.
    :param files: where the outputs were stored, if they were.
    :param return_files: whether to return the paths of the files instead of the outputs.
    :param fail_on_partial_error: whether one failed job fails the task.
    :param log: the task's log.
    :param names: what the user calls the jobs, if anything.
    :param data_advice: what to do about outputs that are too long.
    :raises ModelsLabArgumentError: an output is data too long for Airflow's database, and was not stored.
    :raises ModelsLabJobFailed: jobs failed, and that is not to be tolerated.
    """
    if files is not None:
        jobs = with_paths_for_data(jobs, files)
    push_jobs(context, jobs)
    failed = [job for job in jobs if job.status == "failed"]
    outputs = [output for job in jobs for output in job.outputs]
    if jobs:
        succeeded, total = len(jobs) - len(failed), count(len(jobs), "job")
        log.info("%d of %s succeeded, with %s", succeeded, total, count(len(outputs), "output"))
    results: list[Output] = list(files or outputs)
    for result in results[:_LISTED_OUTPUTS]:
        log.info("Output: %s", _line_of(result))
    if len(results) > _LISTED_OUTPUTS:
        log.info("The XComs have %s more", count(len(results) - _LISTED_OUTPUTS, "output"))
    if failed:
        names_of_failed = list(compress(names, [job.status == "failed" for job in jobs]))
        message = f"{len(failed)} of {count(len(jobs), 'job')} failed: {format_jobs(failed, names_of_failed)}"
        if fail_on_partial_error:
            # What was said of a submission says itself what to do.
            were_submitted = not names or any(job.id for job in failed)
            raise ModelsLabJobFailed(f"{advice_on(failed)}: {message}" if were_submitted else message, jobs=failed)
        log.warning("%s", message)
    _refuse_long_data(jobs, data_advice)
    urls = [*map(shorten_output, outputs)]
    _update_outlet_events(context, log, {"urls": urls} | ({} if files is None else {"files": list(files)}))
    return list(files or ()) if return_files else outputs


def _line_of(output: Output) -> str:
    line = one_line(as_text(shorten_output(output)))
    return line if is_url(output) or len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


def with_paths_for_data(jobs: Sequence[Job], files: Sequence[str]) -> list[Job]:
    """
    Return jobs whose stored outputs, where they are long and no URLs, are replaced by the paths of their files.

    :param jobs: the jobs.
    :param files: where the outputs of all jobs were stored, in their order.
    """
    paths = iter(files)
    kept = []
    for job in jobs:
        pairs = zip(job.outputs, paths, strict=False)  # as many paths as the job has outputs
        kept.append(replace(job, outputs=[path if is_long_output(output) else output for output, path in pairs]))
    return kept


def _refuse_long_data(jobs: Sequence[Job], advice: str) -> None:
    for job in jobs:
        for index, output in enumerate(job.outputs):
            if (length := len(as_text(output))) > MAX_RETURNED:
                raise ModelsLabArgumentError(
                    f"{advice}: output {index} of job {job} is data of {length} characters, and an XCom takes only "
                    f"{MAX_RETURNED}"
                )


def timeout_error(jobs: Sequence[Job], limit: Limit, advice: str, names: Sequence[str] = ()) -> ModelsLabTimeout:
    """
    Return the error of jobs that were not all done in time.

    :param jobs: all jobs, as they stand.
    :param limit: the limit that ended the wait.
    :param advice: what to do, as the beginning of a sentence.
    :param names: what the user calls the jobs, if anything.
    """
    unfinished = [not job.finished for job in jobs]
    named = format_jobs(list(compress(jobs, unfinished)), list(compress(names, unfinished)))
    submitted = [job for job in compress(jobs, unfinished) if job.id]
    alive = ". What was submitted lives on at ModelsLab" if submitted else ""
    return ModelsLabTimeout(
        f"{advice}: {sum(unfinished)} of {count(len(jobs), 'job')} not done within {limit}: {named}{alive}", jobs=jobs
    )


def name_of_mapped(context: Context) -> list[str]:
    """Return what the user calls the job of a mapped task, as its ``map_index_template`` has it, if it has one."""
    task = context.get("task")
    rendered = getattr(context["ti"], "rendered_map_index", None)
    if not rendered and (template := getattr(task, "map_index_template", None)):
        with suppress(Exception):  # Airflow 2 renders it when the task has ended, and says what is wrong with it.
            rendered = task.get_template_env().from_string(template).render(context)  # type: ignore[union-attr]
    return [short_name(str(rendered))] if rendered else []


def format_jobs(jobs: Sequence[Job], names: Sequence[str] = ()) -> str:
    """
    Name jobs with what ModelsLab said of them, the first ten.

    :param jobs: the jobs.
    :param names: what the user calls them, if anything.
    """
    shown = "; ".join(_format_job(job, name) for job, name in zip_longest(jobs[:_LISTED_JOBS], names[:_LISTED_JOBS]))
    return f"{shown}; and {len(jobs) - _LISTED_JOBS} more" if len(jobs) > _LISTED_JOBS else shown


def _format_job(job: Job, name: str | None) -> str:
    reason = job.status if not job.finished and says_only_running(job.message) else job.message or job.status
    if name is None:
        return f"{job} ({reason})" if job.id else reason
    return f"{name} ({reason}, job {job})" if job.id else f"{name} ({reason})"


def _update_outlet_events(context: Context, log: Any, extra: dict[str, Any]) -> None:
    """
    Let the events of the task's assets carry what was generated.

    An alias has no event before an asset is added to it: here that is the asset of its own name. An asset that Airflow
    does not know is no reason to lose outputs.
    """
    for outlet in context["task"].outlets if "task" in context else ():
        events: Any = context["outlet_events"]
        try:
            if isinstance(outlet, AssetAlias):
                events[outlet].add(Asset(outlet.name), extra=extra)
            elif isinstance(outlet, (Asset, *_ASSET_REFERENCES)):
                events[outlet].extra = extra
        except Exception as error:
            named = getattr(outlet, "name", None) or getattr(outlet, "uri", "")
            log.warning("The event of asset %s does not carry the outputs (%s)", named, type(error).__name__)
