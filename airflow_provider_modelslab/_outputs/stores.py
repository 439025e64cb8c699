"""
The folder that outputs are stored in, on any file system that Airflow's ``ObjectStoragePath`` reaches.

A file is only ever visible whole: it gets its name when its last byte has been written. What is stored is not known
here.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_modelslab._outputs.media_types import content_type_of
from airflow_provider_modelslab._protocol.arguments import parse_output_path
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabSaveError, argument_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BLOCK_BYTES = 5 * 2**20
"""Bytes that are held back per upload before they are sent: the least that S3 takes as a part of a larger object."""

ABANDONED_SECONDS = 3600.0
"""Age from which on an unfinished local file is nobody's any more: a download fails at a far shorter silence."""


class Store:
    """
    The folder that files are stored in.

    :param output_path: see :func:`save_outputs`.
    """

    def __init__(self, output_path: str) -> None:
        self._output_path = output_path
        self._fs, self._root = _opened(output_path)
        # File systems are shared within a process, and remember listings.
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

    def probe(self) -> None:
        """
        Find out whether files can be written, by writing one and removing it.

        :raises ModelsLabArgumentError: they cannot: the folder or the bucket is missing, or it is not allowed.
        :raises ModelsLabSaveError: the store does not work now.
        """
        name = f".modelslab-probe-{uuid.uuid4().hex}"
        try:
            self.prepare()
            self.write(name, iter([b"probe"]))
        except ModelsLabSaveError as error:
            cause = error.__cause__
            message = (
                f"output_path {self._output_path!r:.200} cannot be written to: {type(cause).__name__}: {cause!s:.500}"
            )
            if isinstance(cause, _LASTING_ERRORS):
                raise ModelsLabArgumentError(f"{message}. Nothing was submitted") from cause
            raise ModelsLabSaveError(f"Try again later: {message}. Nothing was submitted") from cause
        with suppress(Exception):
            self._fs.rm_file(self._path(name))

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
        """
        Store a file and return its size; it is not there, or as it was, until the last byte has been written.

        An object store serves it with the content type of its extension.
        """
        open_file = self._uploaded if self._object_store else self._renamed
        size = 0
        with open_file(name) as write:
            for chunk in chunks:
                with _store_errors(self.url(name)):
                    write(chunk)
                size += len(chunk)
        return size

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
            handle = self._fs.open(
                self._path(name), "wb", block_size=BLOCK_BYTES, **_content_type_options(self._fs, name)
            )
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

_LASTING_ERRORS = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)

_PARTIAL = ".part"


def _opened(output_path: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a path, and the path as that knows it, without a slash at its end."""
    # Imported when files are stored: operators and sensors that store none need not wait for it.
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, ObjectStoragePath

    with argument_errors():
        parse_output_path(output_path)
    try:
        # The connection is looked up here, in the task's own thread: Airflow's supervisor is spoken to by one only.
        path = ObjectStoragePath(output_path)
        return path.fs, path.path.rstrip("/")
    except (ValueError, ImportError, AirflowNotFoundException) as error:
        raise ModelsLabArgumentError(f"output_path {output_path!r:.200} cannot be used: {error}") from error


def _content_type_options(fs: AbstractFileSystem, name: str) -> dict[str, Any]:
    """Return the options of a file system's ``open`` that say with which content type a file is served."""
    content_type = content_type_of(name)
    options: dict[str, dict[str, Any]] = {
        "s3": {"ContentType": content_type},
        "gs": {"content_type": content_type},
        "abfs": {"content_settings": {"content_type": content_type}},  # adlfs before 2026.8 ignores it
    }
    return next((options[protocol] for protocol in options if protocol in _protocols(fs)), {})


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
    """Raise an error of a store as the end of all saving: the next file would meet the same."""
    try:
        yield
    except Exception as error:
        raise ModelsLabSaveError(
            f"{where} cannot be used: {type(error).__name__}: {str(error)[:500]}. The generation is done and paid for: "
            "correct what the store complains of and clear the task soon, since output URLs may expire"
        ) from error
