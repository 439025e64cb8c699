"""
Where receipts are kept: a folder of small JSON files on any file system, or Airflow's own store of task states.

What a receipt means is not known here. A file is only ever read whole: local files are renamed into place, and an
object store shows no half of an object.
"""

from __future__ import annotations

import errno
import itertools
import json
import posixpath
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from airflow_provider_modelslab._object_storage import open_folder
from airflow_provider_modelslab._protocol.shortening import shorten
from airflow_provider_modelslab.exceptions import ModelsLabLedgerError

Records = dict[str, Any]
"""Records by their names; ``None`` for what is there and no JSON."""


class ReceiptStore(Protocol):
    """
    Where receipts are kept, by names such as ``my_dag/run_1/draw/owl.1f0c….1.json``.

    Every method raises ``ModelsLabLedgerError`` where the store does not work.
    """

    survives_clear: bool
    """Whether what is kept is still there after the task was cleared."""

    others_may_write: bool
    """Whether others may write at the same time."""

    def read_folder(self, folder: str) -> Records:
        """Return all records in a folder, but not below it."""

    def read_all(self, folder: str = "") -> Records:
        """Return all records below a folder, or of the whole ledger: for reports, never for a submission."""

    def read(self, names: Iterable[str]) -> Records:
        """Return those of some records that are there."""

    def create(self, name: str, record: Mapping[str, Any]) -> bool:
        """Keep a record that must not be there yet; return whether it is this one that is kept."""

    def write(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep records, whether or not they are there."""

    def delete(self, name: str) -> None:
        """Remove a record, if it is there."""


class FolderStore:
    """
    A folder on any file system that Airflow's ``ObjectStoragePath`` reaches.

    :param path: a URL such as ``s3://aws_default@bucket/ledger``, or an absolute path.
    :param named: how the user knows it, for errors.
    :raises ModelsLabArgumentError: it cannot be used.
    """

    survives_clear = True
    others_may_write = True

    def __init__(self, path: str, named: str = "") -> None:
        self._named = named or f"ledger_path {path!r:.200}"
        folder = open_folder(path, "ledger_path", self._named)
        self.path = folder.url
        self._fs = folder.fs
        self._folder = folder.path
        self._is_local = folder.is_local
        self._is_exclusive = folder.is_local or folder.is_object_store
        self._made: set[str] = set()

    def read_folder(self, folder: str) -> Records:
        """Return all records in a folder, but not below it: one listing, and one read for each."""
        return self.read(f"{folder}/{name}" for name in self.names(folder) if name.endswith(".json"))

    def names(self, folder: str) -> list[str]:
        """Return the names of what is in a folder, but not below it: one listing."""
        with self._errors():
            # File systems are shared within a process, and remember listings.
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(f"{self._folder}/{folder}", detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
            return [posixpath.basename(entry["name"]) for entry in found if entry["type"] == "file"]

    def read_all(self, folder: str = "") -> Records:
        """Return all records below a folder, or of the whole ledger: for reports, never for a submission."""
        with self._errors():
            self._fs.invalidate_cache()
            found = self._fs.find(f"{self._folder}/{folder}".rstrip("/"))
        below = f"{self._folder}/"  # Of a file, find() returns the file itself.
        return self.read(path[len(below) :] for path in found if path.startswith(below) and path.endswith(".json"))

    def read(self, names: Iterable[str]) -> Records:
        """Return those of some records that are there, read several at a time where the store can."""
        names = list(names)
        if not names:
            return {}
        with self._errors():
            # Whole files: cat() would take brackets in the name of the folder for a pattern. A list each: the oldest
            # fsspec that Airflow allows makes a wrong one of a single end.
            paths, whole = [f"{self._folder}/{name}" for name in names], [None] * len(names)
            contents = self._fs.cat_ranges(paths, whole, whole)
            for content in contents:
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
        pairs = zip(names, contents, strict=True)
        return {name: _parsed(content) for name, content in pairs if isinstance(content, bytes)}

    def create(self, name: str, record: Mapping[str, Any]) -> bool:
        """
        Keep a record that must not be there yet; return whether it is this one that is kept.

        Local files, S3, GCS and Azure refuse the second of two. Elsewhere it is looked for before and after: of two
        that are written in the very same moment, both might be taken for the first.
        """
        path, content = f"{self._folder}/{name}", _content(record)
        with self._errors():
            self._make_folder(path)
            if not self._is_exclusive and self._fs.exists(path):
                return False
            try:
                if self._is_local:
                    self._create_file(path, content)
                else:
                    self._fs.pipe_file(path, content, mode="create")
            except Exception as error:
                # It is there, which each store says in its own words; or the reply to our own request was lost, and the
                # client has repeated it.
                kept = self._content_of(path)
                if kept is not None:
                    return kept == content
                if getattr(error, "errno", None) != errno.ENOSYS:
                    raise
                # Speaks S3, but knows no conditions.
                self._fs.pipe_file(path, content)
                return self._content_of(path) == content
            return self._is_exclusive or self._content_of(path) == content

    def write(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep records, several at a time where the store can."""
        with self._errors():
            contents = {f"{self._folder}/{name}": _content(record) for name, record in records.items()}
            if not self._is_local:
                self._fs.pipe(contents)
                return
            for path, content in contents.items():
                self._make_folder(path)
                partial = f"{path}.{uuid.uuid4().hex}.part"
                try:
                    self._fs.pipe_file(partial, content)
                    self._fs.mv(partial, path)
                except BaseException:
                    with suppress(Exception):
                        self._fs.rm_file(partial)
                    raise

    def delete(self, name: str) -> None:
        """Remove a record, if it is there."""
        with self._errors(), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._folder}/{name}")

    def _create_file(self, path: str, content: bytes) -> None:
        """Write a local file that must not be there yet; on a full disk leave none: it would be taken for another's."""
        file = self._fs.open(path, "xb")
        try:
            with file:
                file.write(content)
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(path)
            raise

    def _content_of(self, path: str) -> bytes | None:
        with suppress(FileNotFoundError):
            content: bytes = self._fs.cat_file(path)
            return content
        return None

    def _make_folder(self, path: str) -> None:
        folder = posixpath.dirname(path)
        if self._is_local and folder not in self._made:
            self._fs.makedirs(folder, exist_ok=True)
            self._made.add(folder)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = f"{type(error).__name__}: {error!s:.500}"
            raise ModelsLabLedgerError(
                f"Correct {self._named}, or try again when it works: the ledger cannot be read or written: {reason}"
            ) from error


class TaskState(Protocol):
    """What is used of Airflow's task state store."""

    def get(self, key: str) -> Any:
        """Return the value, or ``None``."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""


class TaskStateStore:
    """
    Airflow's task state store, which Airflow has from 3.3 on and keeps for one task instance.

    Data is shortened: it goes into Airflow's database.

    :param state: the task state store.
    :param survives_clear: whether Airflow keeps it when the task is cleared.
    """

    others_may_write = False

    def __init__(self, state: TaskState, survives_clear: bool) -> None:
        self.survives_clear = survives_clear
        self._state = state
        self._parts: list[Records] | None = None

    def read_folder(self, folder: str) -> Records:
        """Return all records: there is one folder only."""
        return {name: record for part in self._loaded() for name, record in part.items()}

    def read_all(self, folder: str = "") -> Records:
        """Return all records."""
        return self.read_folder(folder)

    def read(self, names: Iterable[str]) -> Records:
        """Return those of some records that are there."""
        kept = self.read_folder("")
        return {name: kept[name] for name in names if name in kept}

    def create(self, name: str, record: Mapping[str, Any]) -> bool:
        """Keep a record that must not be there yet; Airflow lets only the try that runs write."""
        if name in self.read_folder(""):
            return False
        self.write({name: record})
        return True

    def write(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep records: each part of the memory that changes is written once."""
        parts, changed = self._loaded(), set()
        for name, record in records.items():
            number = next((n for n, part in enumerate(parts) if name in part), None)
            if number is None:
                number = next((n for n, part in enumerate(parts) if len(part) < RECORDS_PER_KEY), len(parts))
                parts[number:number] = [] if number < len(parts) else [{}]
            parts[number][name] = shorten(dict(record))
            changed.add(number)
        for number in sorted(changed):
            self._keep(number)

    def delete(self, name: str) -> None:
        """Remove a record, if it is there."""
        for number, part in enumerate(self._loaded()):
            if part.pop(name, None) is not None:
                self._keep(number)

    def _loaded(self) -> list[Records]:
        if self._parts is None:
            with _state_errors():
                values = map(self._state.get, map(_key, itertools.count()))
                self._parts = [dict(value) for value in itertools.takewhile(_is_part, values)]
        return self._parts

    def _keep(self, number: int) -> None:
        with _state_errors():
            self._state.set(_key(number), self._loaded()[number])


class BothStores:
    """
    A folder, and beside it Airflow's task state store, which still knows the jobs once the folder is another one.

    :param folder: the folder.
    :param state: the task state store.
    :param progress: tells how far a record has come: of two that differ, the one that is further counts.
    """

    survives_clear = True
    others_may_write = True

    def __init__(self, folder: FolderStore, state: TaskStateStore, progress: Callable[[Any], Any]) -> None:
        self._folder = folder
        self._state = state
        self._progress = progress

    def read_folder(self, folder: str) -> Records:
        """Return all records in a folder, but not below it."""
        return self._merged(self._folder.read_folder(folder), self._state.read_folder(folder))

    def read_all(self, folder: str = "") -> Records:
        """Return all records below a folder."""
        return self._merged(self._folder.read_all(folder), self._state.read_all(folder))

    def read(self, names: Iterable[str]) -> Records:
        """Return those of some records that are there."""
        names = list(names)
        return self._merged(self._folder.read(names), self._state.read(names))

    def create(self, name: str, record: Mapping[str, Any]) -> bool:
        """Keep a record that must not be there yet; return whether it is this one that is kept."""
        is_kept = self._folder.create(name, record)
        if is_kept:
            try:
                self._state.write({name: record})
            except ModelsLabLedgerError:
                self._folder.delete(name)  # It is not submitted now.
                raise
        return is_kept

    def write(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep records in both, and in the one where the other does not work."""
        try:
            self._folder.write(records)
        finally:
            self._state.write(records)

    def delete(self, name: str) -> None:
        """Remove a record, if it is there."""
        try:
            self._folder.delete(name)
        finally:
            self._state.delete(name)

    def _merged(self, kept: Records, mirrored: Records) -> Records:
        further = {
            name: record
            for name, record in mirrored.items()
            if name not in kept or self._progress(record) > self._progress(kept[name])
        }
        return kept | further


RECORDS_PER_KEY = 20
"""Records in one value of the task state store: it is written again with each of them."""


def _key(number: int) -> str:
    return f"modelslab_receipts_{number}"


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping)


@contextmanager
def _state_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ModelsLabLedgerError(
            f"Try again later: Airflow's task state store, with the ledger, does not work ({type(error).__name__})"
        ) from error


def _content(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
