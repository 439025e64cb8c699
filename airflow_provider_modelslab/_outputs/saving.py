"""
Outputs that are kept: the files of finished jobs, stored wherever Airflow's ``ObjectStoragePath`` reaches.

A file is only ever visible whole: it gets its name when its last byte has been written and its size is right, and
until then has another name or none. The record beside the files of a job is written after them. Memory does not grow
with the size of files, only with how many are on their way at a time.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field

from airflow_provider_modelslab._http.tls import create_ssl_context
from airflow_provider_modelslab._outputs.downloads import (
    Download,
    DownloadCancelled,
    Downloader,
    DownloadError,
    Retryability,
    RetryPolicy,
)
from airflow_provider_modelslab._outputs.media_types import kind_of
from airflow_provider_modelslab._outputs.names import output_stem, record_name, redact_url
from airflow_provider_modelslab._outputs.records import job_record, recorded_files
from airflow_provider_modelslab._outputs.stores import Store
from airflow_provider_modelslab._protocol.arguments import IfExists, parse_if_exists
from airflow_provider_modelslab.exceptions import (
    ModelsLabArgumentError,
    ModelsLabOutputExists,
    ModelsLabSaveError,
    argument_errors,
)
from airflow_provider_modelslab.jobs import Job

SAVE_TIMEOUT = 3600.0
"""Seconds that saving may take when it is not told otherwise."""

FILES_AT_A_TIME = 3
"""Downloads, and with them uploads, under way together: an S3 client holds four times a block for each."""

_LISTED_FAILURES = 10

Stored = tuple[str, int]
"""Name and size of a file."""


def save_outputs(
    jobs: Sequence[Job],
    output_path: str,
    *,
    if_exists: IfExists = "skip",
    timeout: float = SAVE_TIMEOUT,
    retry_policy: RetryPolicy | None = None,
    ca_bundle: str | None = None,
    log: logging.Logger = logging.getLogger(__name__),  # noqa: B008
) -> list[str]:
    """
    Store the outputs of jobs, with a JSON record beside the files of each job.

    Files are named after endpoint, id and index, such as ``v6.video.147-0.mp4`` and ``v6.video.147.job.json``: the
    same job always gets the same names, and no other job does. All that can be stored is stored, even when an output
    fails; repeating the call repeats what is missing.

    :param jobs: the jobs; those that have not succeeded are left out.
    :param output_path: the folder: a URL that Airflow's ``ObjectStoragePath`` takes, for example
        ``s3://aws_default@bucket/2026-11-20/``, or an absolute local path.
    :param if_exists: ``"skip"`` keeps files that are there and whole: those that the record tells of with the size
        that they have, and those as long as the output is. ``"overwrite"`` replaces them. ``"error"`` replaces
        nothing, and fails where a record is there; without a record, they are what an interrupted task left.
    :param timeout: seconds for all.
    :param retry_policy: when to give up on a file.
    :param ca_bundle: the certificate authorities to trust, as the connection names them.
    :param log: where to tell about it, for example the task's.
    :return: where the files are, one per output, in the order of the jobs and their outputs.
    :raises ModelsLabSaveError: some could not be stored.
    :raises ModelsLabOutputExists: some are there, and ``if_exists`` is ``"error"``.
    :raises ModelsLabArgumentError: an argument is wrong.
    """
    with argument_errors():
        parse_if_exists(if_exists)
    succeeded = [job for job in jobs if job.status == "success"]
    by_record = job_files_of(succeeded)
    if not by_record:
        return []
    store = Store(output_path)
    with argument_errors("Outputs cannot be downloaded by this connection: "):
        ssl_context = create_ssl_context(ca_bundle)
    downloader = Downloader(timeout, retry_policy or RetryPolicy(), ssl_context)
    try:
        _Saver(store, downloader, if_exists, log).save(list(by_record.values()))
    finally:
        downloader.close()
    return [store.url(name) for job in succeeded for name, _ in by_record[record_name(job)].stored()]


@dataclass(slots=True)
class JobFiles:
    """One job whose outputs are to be stored, and what has been stored of them."""

    job: Job
    files: dict[int, Stored] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return len(self.files) == len(self.job.outputs)

    def stored(self) -> list[Stored]:
        return [self.files[index] for index in range(len(self.job.outputs))]

    def sources(self, index: int) -> list[str]:
        """Return where an output can be had: itself, and the proxy's copy where there is one for each output."""
        outputs, links = self.job.outputs, self.job.proxy_links
        sources = [outputs[index], *([links[index]] if len(links) == len(outputs) else [])]
        return list(dict.fromkeys(sources))

    def describe(self, index: int) -> str:
        return f"output {index} of job {self.job} ({redact_url(self.job.outputs[index])})"


@dataclass(frozen=True, slots=True)
class Failure:
    """An output that could not be stored."""

    job_files: JobFiles
    index: int
    error: DownloadError | DownloadCancelled

    @property
    def is_final(self) -> bool:
        """Whether the servers have no such file, which no repetition mends."""
        return isinstance(self.error, DownloadError) and self.error.retryability is not Retryability.FAULT

    def __str__(self) -> str:
        return f"{self.job_files.describe(self.index)}: {self.error}"


def job_files_of(jobs: Sequence[Job]) -> dict[str, JobFiles]:
    """Return the jobs by the name of their record: a job that is given twice is stored once."""
    found: dict[str, JobFiles] = {}
    for job in jobs:
        job_files = found.setdefault(record_name(job), JobFiles(job))
        if len(job_files.job.outputs) != len(job.outputs):
            raise ModelsLabArgumentError(f"job {job} is given twice, with different outputs: pass it once")
    return found


class _Saver:
    """Stores the outputs of jobs, several at a time."""

    def __init__(self, store: Store, downloader: Downloader, if_exists: IfExists, log: logging.Logger) -> None:
        self._store = store
        self._downloader = downloader
        self._if_exists = if_exists
        self._log = log

    def save(self, batch: Sequence[JobFiles]) -> None:
        started = time.monotonic()
        self._store.prepare()
        pool = ThreadPoolExecutor(FILES_AT_A_TIME, thread_name_prefix="modelslab-output")
        try:
            if self._if_exists != "overwrite":
                list(pool.map(self._recall, batch))
            failures = self._save_missing(pool, [job_files for job_files in batch if not job_files.complete])
        except BaseException:
            # Airflow ends a task by an exception in its main thread, which must not wait for the others: each removes
            # what it has half written at its next byte, or when its connection has been silent for too long.
            self._downloader.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
        if failures:
            raise _save_error(failures, sum(len(job_files.job.outputs) for job_files in batch))
        self._log.info(
            "Stored %d outputs of %d jobs, %.1f MB, within %.1f s: %s",
            sum(len(job_files.files) for job_files in batch),
            len(batch),
            sum(size for job_files in batch for _, size in job_files.files.values()) / 1e6,
            time.monotonic() - started,
            self._store.url(""),
        )

    def _recall(self, job_files: JobFiles) -> None:
        """Find what an earlier call has stored, by the record."""
        content = self._store.read(record_name(job_files.job))
        if content is None:
            return
        if self._if_exists == "error":
            raise ModelsLabOutputExists(
                f"The outputs of job {job_files.job} are stored already: "
                f"{self._store.url(record_name(job_files.job))} is there. "
                "Name another output_path, or if_exists='skip' or 'overwrite'"
            )
        with suppress(ValueError, RecursionError):
            files = recorded_files(job_files.job, json.loads(content)) or []
            job_files.files = {
                index: (name, size) for index, (name, size) in enumerate(files) if self._store.size(name) == size
            }

    def _save_missing(self, pool: ThreadPoolExecutor, batch: Sequence[JobFiles]) -> list[Failure]:
        """Store the missing files, and the record of a job as soon as it is complete; return what failed."""
        failures: list[Failure] = []
        running = {
            pool.submit(self._save_output, job_files, index): (job_files, index)
            for job_files in batch
            for index in range(len(job_files.job.outputs))
            if index not in job_files.files
        }
        for future in as_completed(running):
            job_files, index = running[future]
            try:
                job_files.files[index] = future.result()
            except (DownloadError, DownloadCancelled) as error:
                failures.append(Failure(job_files, index, error))
            if job_files.complete and self._if_exists != "error":
                self._write_record(job_files)
        if self._if_exists == "error" and not failures:
            # Only now: the record of one job would make the repetition for another one fail.
            for job_files in batch:
                self._write_record(job_files)
        return failures

    def _save_output(self, job_files: JobFiles, index: int) -> Stored:
        """Store one output from the first source that has it."""
        errors: list[DownloadError] = []
        for source in job_files.sources(index):
            stored = self._save_from(source, job_files, index)
            if not isinstance(stored, DownloadError):
                return stored
            errors.append(stored)
        raise errors[0]

    def _save_from(self, source: str, job_files: JobFiles, index: int) -> Stored | DownloadError:
        def attempt() -> Stored:
            with self._downloader.open(source) as download:
                return self._store_download(job_files, index, download)

        def log_pause(error: DownloadError, seconds: float) -> None:
            self._log.debug("%s: %s, asking again in %.1f s", redact_url(source), error, seconds)

        try:
            return self._downloader.repeat(attempt, log_pause)
        except DownloadError as error:
            self._log.warning("Not available: %s: %s: %s", job_files.describe(index), redact_url(source), error)
            return error

    def _write_record(self, job_files: JobFiles) -> None:
        record = json.dumps(job_record(job_files.job, job_files.stored()), indent=2, ensure_ascii=False)
        self._store.write(record_name(job_files.job), iter([record.encode("utf-8", "replace")]))

    def _store_download(self, job_files: JobFiles, index: int, download: Download) -> Stored:
        # The output itself tells the kind where the bytes do not, whichever source they come from.
        output = job_files.job.outputs[index]
        name = f"{output_stem(job_files.job, index)}.{kind_of(output, download.head, download.content_type)}"
        if self._if_exists != "overwrite" and (there := self._store.size(name)) is not None:
            if there == download.size:
                return name, there
            if self._if_exists == "error":
                raise ModelsLabOutputExists(f"{self._store.url(name)} is there, and not what would be stored")
        return name, self._store.write(name, download.chunks)


def _save_error(failures: Sequence[Failure], total: int) -> ModelsLabSaveError:
    listed = "; ".join(map(str, failures[:_LISTED_FAILURES]))
    more = f"; and {len(failures) - _LISTED_FAILURES} more" if len(failures) > _LISTED_FAILURES else ""
    return ModelsLabSaveError(
        f"Retry or clear the task soon, which stores what is missing: {len(failures)} of {total} outputs could not be "
        f"stored: {listed}{more}. The generation is done and paid for; output URLs may expire",
        without_files=[failure.job_files.job for failure in failures if failure.is_final],
    )
