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
from functools import partial

from airflow_provider_modelslab._http.addresses import AddressGuard
from airflow_provider_modelslab._http.connection import DownloadOptions
from airflow_provider_modelslab._http.tls import create_ssl_context
from airflow_provider_modelslab._outputs.downloads import (
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
from airflow_provider_modelslab._protocol.formatting import count
from airflow_provider_modelslab._telemetry import metrics
from airflow_provider_modelslab.exceptions import (
    ModelsLabArgumentError,
    ModelsLabOutputExists,
    ModelsLabSaveError,
    argument_errors,
)
from airflow_provider_modelslab.jobs import Job, Output

SAVE_TIMEOUT = 3600.0
"""Seconds that saving may take when it is not told otherwise."""

FILES_AT_A_TIME = 3
"""Downloads, and with them uploads, under way together: an S3 client holds four times a block for each."""

STALLED_TURNS = 3
"""How often an output is tried from whose sources the bytes stop or trickle; in between, all others have their turn."""

_LISTED_FAILURES = 10

_ANOTHER_PATH = "Name another output_path, or if_exists='skip' or 'overwrite'"

Stored = tuple[str, int]
"""Name and size of a file."""


def save_outputs(
    jobs: Sequence[Job],
    output_path: str,
    *,
    if_exists: IfExists = "skip",
    timeout: float = SAVE_TIMEOUT,
    retry_policy: RetryPolicy | None = None,
    download_options: DownloadOptions | None = None,
    log: logging.Logger = logging.getLogger(__name__),  # noqa: B008
) -> list[Stored]:
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
    :param download_options: what the connection says of downloads; by default that is nothing.
    :param log: where to tell about it, for example the task's.
    :return: where the files are, and their sizes, one per output, in the order of the jobs and their outputs.
    :raises ModelsLabSaveError: some could not be stored.
    :raises ModelsLabOutputExists: some are there, and ``if_exists`` is ``"error"``.
    :raises ModelsLabArgumentError: an argument is wrong.
    """
    with argument_errors():
        parse_if_exists(if_exists)
    succeeded = [job for job in jobs if job.status == "success"]
    by_record: dict[str, JobFiles] = {}
    for job in succeeded:  # a job that is given twice is stored once
        job_files = by_record.setdefault(record_name(job), JobFiles(job))
        if len(job_files.job.outputs) != len(job.outputs):
            raise ModelsLabArgumentError(f"job {job} is given twice, with different outputs: pass it once")
    if not by_record:
        return []
    store = Store(output_path)
    with argument_errors("Correct the connection, with which outputs cannot be downloaded: "):
        options = download_options or DownloadOptions()
        ssl_context = create_ssl_context(options.ca_bundle)
    guard = AddressGuard(options.allowed_hosts)
    downloader = Downloader(timeout, retry_policy or RetryPolicy(), ssl_context, guard)
    try:
        _Saver(store, downloader, if_exists, log).save(list(by_record.values()))
    finally:
        downloader.close()
    return [(store.url + name, size) for job in succeeded for name, size in by_record[record_name(job)].stored()]


@dataclass(slots=True)
class JobFiles:
    """One job whose outputs are to be stored, and what has been stored of them."""

    job: Job
    files: dict[int, Stored] = field(default_factory=dict)

    def missing(self) -> list[int]:
        return [index for index in range(len(self.job.outputs)) if index not in self.files]

    def stored(self) -> list[Stored]:
        return [self.files[index] for index in sorted(self.files)]

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
        return isinstance(self.error, DownloadError) and self.error.retryability in (
            Retryability.ABSENT,
            Retryability.NEVER,
        )

    @property
    def is_stalled(self) -> bool:
        """Whether the output is worth another turn at the end of the queue."""
        return isinstance(self.error, DownloadError) and self.error.retryability is Retryability.STALLED

    def __str__(self) -> str:
        return f"{self.job_files.describe(self.index)}: {self.error}"


@dataclass(frozen=True, slots=True)
class _Saver:
    """Stores the outputs of jobs, several at a time."""

    store: Store
    downloader: Downloader
    if_exists: IfExists
    log: logging.Logger

    def save(self, batch: Sequence[JobFiles]) -> None:
        started = time.monotonic()
        self.store.prepare()
        pool = ThreadPoolExecutor(FILES_AT_A_TIME, thread_name_prefix="modelslab-output")
        try:
            if self.if_exists != "overwrite":
                list(pool.map(self._recall, batch))
            failures = self._save_missing(pool, [job_files for job_files in batch if job_files.missing()])
        except BaseException:
            # Airflow ends a task by an exception in its main thread, which must not wait for the others: each removes
            # what it has half written at its next byte, or when its connection has been silent for too long.
            self.downloader.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
        if failures:
            raise _save_error(failures, sum(len(job_files.job.outputs) for job_files in batch))
        self.log.info(
            "Stored %s of %s, %.1f MB, within %.1f s: %s",
            count(sum(len(job_files.files) for job_files in batch), "output"),
            count(len(batch), "job"),
            sum(size for job_files in batch for _, size in job_files.files.values()) / 1e6,
            time.monotonic() - started,
            self.store.url,
        )

    def _recall(self, job_files: JobFiles) -> None:
        """Find what an earlier call has stored, by the record."""
        content = self.store.read(record_name(job_files.job))
        if content is None:
            return
        if self.if_exists == "error":
            raise ModelsLabOutputExists(
                f"{_ANOTHER_PATH}: the outputs of job {job_files.job} are stored already: "
                f"{self.store.url}{record_name(job_files.job)} is there"
            )
        with suppress(ValueError, RecursionError):
            files = recorded_files(job_files.job, json.loads(content)) or []
            job_files.files = {
                index: (name, size) for index, (name, size) in enumerate(files) if self.store.size(name) == size
            }

    def _save_missing(self, pool: ThreadPoolExecutor, batch: Sequence[JobFiles]) -> list[Failure]:
        """Store the missing files, and the record of a job as soon as it is complete; return what failed."""
        failures = self._save_turn(pool, [(job_files, index) for job_files in batch for index in job_files.missing()])
        for _ in range(STALLED_TURNS - 1):
            stalled = [failure for failure in failures if failure.is_stalled]
            others = [failure for failure in failures if not failure.is_stalled]
            failures = others + self._save_turn(pool, [(each.job_files, each.index) for each in stalled])
        if self.if_exists == "error" and not failures:
            # Only now: the record of one job would make the repetition for another one fail.
            for job_files in batch:
                self._write_record(job_files)
        return failures

    def _save_turn(self, pool: ThreadPoolExecutor, outputs: Sequence[tuple[JobFiles, int]]) -> list[Failure]:
        """Store some outputs, in their order; return what failed."""
        failures: list[Failure] = []
        running = {pool.submit(self._save_output, *output): output for output in outputs}
        for future in as_completed(running):
            job_files, index = running[future]
            try:
                job_files.files[index] = future.result()
            except (DownloadError, DownloadCancelled) as error:
                failures.append(Failure(job_files, index, error))
            if not job_files.missing() and self.if_exists != "error":
                self._write_record(job_files)
        return failures

    def _save_output(self, job_files: JobFiles, index: int) -> Stored:
        """Store one output from the first source that has it: itself, or the proxy's copy where each output has one."""
        outputs, links = job_files.job.outputs, job_files.job.proxy_links
        sources = [outputs[index]]
        if len(links) == len(outputs) and links[index] != outputs[index]:
            sources.append(links[index])
        errors: list[DownloadError] = []
        for source in sources:
            log_pause = partial(self.log.debug, "%s: %s, asking again in %.1f s", redact_url(source))
            try:
                return self.downloader.repeat(partial(self._store_from, source, job_files, index), log_pause)
            except DownloadError as error:
                place = "" if source is sources[0] else f"{redact_url(source)}: "
                self.log.warning("Not available: %s: %s%s", job_files.describe(index), place, error)
                errors.append(error)
        raise next((error for error in errors if error.retryability is Retryability.STALLED), errors[0])

    def _store_from(self, source: Output, job_files: JobFiles, index: int) -> Stored:
        with self.downloader.open(source) as download:
            # The output itself tells the kind where the bytes do not, whichever source they come from.
            output = job_files.job.outputs[index]
            name = f"{output_stem(job_files.job, index)}.{kind_of(output, download.head, download.content_type)}"
            if self.if_exists != "overwrite" and (there := self.store.size(name)) is not None:
                if there == download.size:
                    return name, there
                if self.if_exists == "error":
                    raise ModelsLabOutputExists(
                        f"{_ANOTHER_PATH}: {self.store.url}{name} is there, and not what would be stored"
                    )
            size = self.store.write(name, download.chunks)
            metrics.file_stored(size)
            return name, size

    def _write_record(self, job_files: JobFiles) -> None:
        record = json.dumps(job_record(job_files.job, job_files.stored()), indent=2, ensure_ascii=False)
        self.store.write(record_name(job_files.job), iter([record.encode("utf-8", "replace")]))


def _save_error(failures: Sequence[Failure], total: int) -> ModelsLabSaveError:
    listed = "; ".join(map(str, failures[:_LISTED_FAILURES]))
    more = f"; and {len(failures) - _LISTED_FAILURES} more" if len(failures) > _LISTED_FAILURES else ""
    return ModelsLabSaveError(
        f"{len(failures)} of {count(total, 'output')} could not be stored: {listed}{more}. The generation is done and "
        "paid for; output URLs may expire",
        without_files=[failure.job_files.job for failure in failures if failure.is_final],
    )
