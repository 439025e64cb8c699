"""
Outputs that are kept: the files of finished jobs, stored wherever Airflow's ``ObjectStoragePath`` reaches.

A file is only ever visible whole: it gets its name when its last byte has been written and its size is right, and
until then has another name or none. The record beside the files of a job is written after them. Memory does not grow
with the size of files, only with how many are on their way at a time.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from airflow_provider_modelslab.downloads import Download, Downloader, NoFile, Patience, Stopped
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabOutputExists, ModelsLabSaveError
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.output_names import (
    extension,
    job_record,
    output_stem,
    record_name,
    recorded_files,
    shown,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

IfExists = Literal["skip", "overwrite", "error"]

SAVE_TIMEOUT = 3600.0
"""Seconds that saving may take when it is not told otherwise."""

FILES_AT_A_TIME = 3
"""Downloads, and with them uploads, under way together: an S3 client holds four times a block for each."""

BLOCK_BYTES = 5 * 2**20
"""Bytes that are held back per upload before they are sent: the least that S3 takes as a part of a larger object."""

ABANDONED_SECONDS = 3600.0
"""Age from which on an unfinished local file is nobody's any more: a download fails at a far shorter silence."""

_LISTED_FAILURES = 10

Stored = tuple[str, int]
"""Name and size of a file."""


def save_outputs(
    jobs: Sequence[Job],
    output_path: str,
    *,
    if_exists: IfExists = "skip",
    timeout: float = SAVE_TIMEOUT,
    patience: Patience | None = None,
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
        nothing, and fails where a record is there; without a record, they are what an interrupted saving left.
    :param timeout: seconds for all.
    :param patience: how long to ask for a file that does not come.
    :param log: where to tell about it, for example the task's.
    :return: where the files are, one per output, in the order of the jobs and their outputs.
    :raises ModelsLabSaveError: some could not be stored.
    :raises ModelsLabOutputExists: some are there, and ``if_exists`` is ``"error"``.
    :raises ModelsLabArgumentError: an argument is wrong.
    """
    if if_exists not in get_args(IfExists):
        raise ModelsLabArgumentError(f"if_exists must be one of {', '.join(get_args(IfExists))}, not {if_exists!r}")
    succeeded = [job for job in jobs if job.status == "success"]
    savings = _savings(succeeded)
    if not savings:
        return []
    store = _Store(output_path)
    downloader = Downloader(timeout, patience or Patience())
    try:
        _Saver(store, downloader, if_exists, log).save(list(savings.values()))
    finally:
        downloader.close()
    return [store.url(name) for job in succeeded for name, _ in savings[record_name(job)].stored()]


@dataclass(slots=True)
class _Saving:
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

    def told(self, index: int) -> str:
        return f"output {index} of job {self.job} ({shown(self.job.outputs[index])})"


def _savings(jobs: Sequence[Job]) -> dict[str, _Saving]:
    """Return what is to be saved, by the name of its record: a job that is given twice is saved once."""
    savings: dict[str, _Saving] = {}
    for job in jobs:
        saving = savings.setdefault(record_name(job), _Saving(job))
        if len(saving.job.outputs) != len(job.outputs):
            raise ModelsLabArgumentError(f"job {job} is given twice, with different outputs: pass it once")
    return savings


class _Saver:
    """Stores the outputs of jobs, several at a time."""

    def __init__(self, store: _Store, downloader: Downloader, if_exists: IfExists, log: logging.Logger) -> None:
        self._store = store
        self._downloader = downloader
        self._if_exists = if_exists
        self._log = log

    def save(self, savings: Sequence[_Saving]) -> None:
        started = time.monotonic()
        self._store.prepare()
        with ThreadPoolExecutor(FILES_AT_A_TIME, thread_name_prefix="modelslab-output") as pool:
            try:
                if self._if_exists != "overwrite":
                    list(pool.map(self._recall, savings))
                failures = self._save_missing(pool, [saving for saving in savings if not saving.complete])
            except BaseException:
                # Also when Airflow ends the task: the pool is left only when its threads have ended.
                self._downloader.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if failures:
            raise _save_error(failures, sum(len(saving.job.outputs) for saving in savings))
        self._log.info(
            "Stored %d outputs of %d jobs, %.1f MB, within %.1f s: %s",
            sum(len(saving.files) for saving in savings),
            len(savings),
            sum(size for saving in savings for _, size in saving.files.values()) / 1e6,
            time.monotonic() - started,
            self._store.url(""),
        )

    def _recall(self, saving: _Saving) -> None:
        """Find out what an earlier call has stored, by the record."""
        content = self._store.read(record_name(saving.job))
        if content is None:
            return
        if self._if_exists == "error":
            raise ModelsLabOutputExists(
                f"The outputs of job {saving.job} are stored already: {self._store.url(record_name(saving.job))} is "
                "there. Name another output_path, or if_exists='skip' or 'overwrite'"
            )
        with suppress(ValueError, RecursionError):
            files = recorded_files(saving.job, json.loads(content)) or []
            saving.files = {
                index: (name, size) for index, (name, size) in enumerate(files) if self._store.size(name) == size
            }

    def _save_missing(self, pool: ThreadPoolExecutor, savings: Sequence[_Saving]) -> list[str]:
        """Store what is not there yet, and the record of a job as soon as it is complete; return what failed."""
        failures: list[str] = []
        running = {
            pool.submit(self._save_output, saving, index): (saving, index)
            for saving in savings
            for index in range(len(saving.job.outputs))
            if index not in saving.files
        }
        for future in as_completed(running):
            saving, index = running[future]
            try:
                saving.files[index] = future.result()
            except (NoFile, Stopped) as error:
                failures.append(f"{saving.told(index)}: {error}")
            if saving.complete and self._if_exists != "error":
                self._store.write_record(saving)
        if self._if_exists == "error" and not failures:
            # Only now: the record of one job would make the repetition for another one fail.
            for saving in savings:
                self._store.write_record(saving)
        return failures

    def _save_output(self, saving: _Saving, index: int) -> Stored:
        """Store one output from the first source that has it."""
        reasons: dict[str, NoFile] = {}
        for source in saving.sources(index):

            def attempt(source: str = source) -> Stored:
                with self._downloader.open(source) as download:
                    return self._store_download(saving, index, download)

            def told(error: NoFile, seconds: float, source: str = source) -> None:
                self._log.debug("%s: %s, asking again in %.1f s", shown(source), error, seconds)

            try:
                return self._downloader.repeat(attempt, told)
            except NoFile as error:
                reasons[shown(source)] = error
                self._log.warning("Not available: %s: %s: %s", saving.told(index), shown(source), error)
        raise next(iter(reasons.values()))

    def _store_download(self, saving: _Saving, index: int, download: Download) -> Stored:
        # Named after the output whichever source it comes from, so that the name is the same next time.
        output = saving.job.outputs[index]
        name = f"{output_stem(saving.job, index)}.{extension(output, download.head, download.content_type)}"
        if self._if_exists != "overwrite" and (there := self._store.size(name)) is not None:
            if there == download.size:
                return name, there
            if self._if_exists == "error":
                raise ModelsLabOutputExists(f"{self._store.url(name)} is there, and not what would be stored")
        return name, self._store.write(name, download.chunks)


def _save_error(failures: Sequence[str], total: int) -> ModelsLabSaveError:
    listed = "; ".join(failures[:_LISTED_FAILURES])
    more = f"; and {len(failures) - _LISTED_FAILURES} more" if len(failures) > _LISTED_FAILURES else ""
    return ModelsLabSaveError(
        f"{len(failures)} of {total} outputs could not be stored: {listed}{more}. The generation is done and paid for: "
        "retry or clear the task, which stores what is missing. Do so soon, since output URLs may expire"
    )


class _Store:
    """
    The folder that files are stored in.

    :param output_path: see :func:`save_outputs`.
    """

    def __init__(self, output_path: str) -> None:
        self._output_path = output_path
        self._fs, self._root = _opened(output_path)
        # Asked anew what is there: file systems are shared within a process, and remember listings.
        self._fs.invalidate_cache()

    def url(self, name: str) -> str:
        """Return where a file is, in the user's own way to name the folder."""
        return f"{self._output_path.rstrip('/')}/{name}"

    def prepare(self) -> None:
        """Make the folder, and remove what killed workers have left in it half written."""
        if self._object_store:
            return  # Has no folders; and a bucket that does not exist is a mistake, not a wish.
        with _store_errors(self._output_path):
            self._fs.makedirs(self._root or "/", exist_ok=True)
            if self._local:
                _remove_abandoned(self._root or "/")

    def size(self, name: str) -> int | None:
        """Return the size of a file, or ``None`` where it is not there."""
        with _store_errors(self.url(name)):
            try:
                size: int = self._fs.info(self._path(name))["size"]
                return size
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or ``None`` where it is not there."""
        with _store_errors(self.url(name)):
            try:
                content: bytes = self._fs.cat_file(self._path(name))
                return content
            except FileNotFoundError:
                return None

    def write(self, name: str, chunks: Iterator[bytes]) -> int:
        """Store a file and return its size; it is not there, or as it was, until the last byte has been written."""
        open_file = self._uploaded if self._object_store else self._renamed
        size = 0
        with open_file(name) as write:
            for chunk in chunks:
                with _store_errors(self.url(name)):
                    write(chunk)
                size += len(chunk)
        return size

    def write_record(self, saving: _Saving) -> None:
        record = json.dumps(job_record(saving.job, saving.stored()), indent=2, ensure_ascii=False)
        self.write(record_name(saving.job), iter([record.encode("utf-8", "replace")]))

    @property
    def _local(self) -> bool:
        return "file" in _protocols(self._fs)

    @property
    def _object_store(self) -> bool:
        return not _OBJECT_STORES.isdisjoint(_protocols(self._fs))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _renamed(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """Write under a name that nobody else uses, and rename at the end."""
        partial = self._path(f".{name}.{uuid.uuid4().hex}{_PARTIAL}")
        try:
            with _store_errors(self.url(name)):
                handle = self._fs.open(partial, "wb")
            try:
                yield handle.write
            finally:
                with _store_errors(self.url(name)):
                    handle.close()
            with _store_errors(self.url(name)):
                self._fs.mv(partial, self._path(name))
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(partial)
            raise

    @contextmanager
    def _uploaded(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """Write under the final name, which an object store shows only once the upload is completed."""
        with _store_errors(self.url(name)):
            handle = self._fs.open(self._path(name), "wb", block_size=BLOCK_BYTES)
        try:
            yield handle.write
            with _store_errors(self.url(name)):
                handle.close()
        except BaseException:
            # Closing completes the upload with what there is: when a block ends, and when the object is deleted.
            with suppress(Exception):
                handle.discard()
            handle.closed = True
            raise


_OBJECT_STORES = frozenset({"s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl"})
"""Protocols of fsspec whose files appear when their upload is completed, and not before."""

_PARTIAL = ".part"


def _opened(output_path: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a path, and the path as that knows it, without a slash at its end."""
    # Imported when files are stored: operators and sensors that store none need not wait for it.
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, ObjectStoragePath

    if not isinstance(output_path, str) or not ("://" in output_path or output_path.startswith("/")):
        raise ModelsLabArgumentError(
            f"output_path must be a URL such as 's3://aws_default@bucket/folder/' or an absolute path, not "
            f"{output_path!r:.200}"
        )
    try:
        # The connection is looked up here, in the task's own thread: Airflow's supervisor is spoken to by one only.
        path = ObjectStoragePath(output_path)
        return path.fs, path.path.rstrip("/")
    except (ValueError, ImportError, AirflowNotFoundException) as error:
        raise ModelsLabArgumentError(f"output_path {output_path!r:.200} cannot be used: {error}") from error


def _protocols(fs: AbstractFileSystem) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def _remove_abandoned(folder: str) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(_PARTIAL):
                with suppress(OSError):
                    if entry.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                        os.remove(entry)


@contextmanager
def _store_errors(where: str) -> Iterator[None]:
    """Raise what a store complains of as the end of all saving: the next file would meet the same."""
    try:
        yield
    except Exception as error:
        raise ModelsLabSaveError(
            f"{where} cannot be used: {type(error).__name__}: {str(error)[:500]}. The generation is done and paid for: "
            "correct what the store complains of and clear the task soon, since output URLs may expire"
        ) from error
