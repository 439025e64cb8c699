"""
The folder that outputs are stored in, on any file system that Airflow's ``ObjectStoragePath`` reaches.

A file is only ever visible whole: it gets its name when its last byte has been written. What is stored is not known
here.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from airflow_provider_modelslab._object_storage import open_folder
from airflow_provider_modelslab._outputs.media_types import content_type_of
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabSaveError

BLOCK_BYTES = 5 * 2**20
"""Bytes that are held back per upload before they are sent: the least that S3 takes as a part of a larger object."""

ABANDONED_SECONDS = 3600.0
"""Age from which on no download writes to an unfinished local file any more: one fails at a far shorter silence."""


class Store:
    """
    The folder that files are stored in.

    :param output_path: see :func:`save_outputs`. ``url`` is the same with a slash at its end: the user's own way to
        name the folder.
    """

    def __init__(self, output_path: str) -> None:
        folder = open_folder(output_path, "output_path")
        self.url = output_path.rstrip("/") + "/"
        self._output_path = output_path
        self._fs = folder.fs
        self._folder = f"{folder.path}/"
        self._protocols = folder.protocols
        self._is_local = folder.is_local
        self._is_object_store = folder.is_object_store
        # File systems are shared within a process, and remember listings.
        self._fs.invalidate_cache()

    def prepare(self) -> None:
        """Make the folder, and remove what killed workers have left in it half written."""
        if self._is_object_store:
            return  # Has no folders; and a bucket that does not exist is a mistake, not a wish.
        with _store_errors(self._output_path):
            self._fs.makedirs(self._folder.rstrip("/") or "/", exist_ok=True)
            for partial in Path(self._folder).glob(f".*{_PARTIAL}") if self._is_local else ():
                with suppress(OSError):
                    if partial.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                        partial.unlink()

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
            path, reason = f"output_path {self._output_path!r:.200}", f"{type(cause).__name__}: {cause!s:.500}"
            if isinstance(cause, _LASTING_ERRORS):
                raise ModelsLabArgumentError(
                    f"Correct {path}, or allow writing there: {reason}. Nothing was submitted"
                ) from cause
            raise ModelsLabSaveError(
                f"Try again later: {path} cannot be written to: {reason}. Nothing was submitted"
            ) from cause
        with suppress(Exception):
            self._fs.rm_file(self._folder + name)

    def size(self, name: str) -> int | None:
        """Return the size of a file, or ``None`` where it is not there."""
        with _store_errors(self.url + name):
            try:
                size: int = self._fs.info(self._folder + name)["size"]
                return size
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or ``None`` where it is not there."""
        with _store_errors(self.url + name):
            try:
                content: bytes = self._fs.cat_file(self._folder + name)
                return content
            except FileNotFoundError:
                return None

    def write(self, name: str, chunks: Iterator[bytes]) -> int:
        """
        Store a file and return its size; it is not there, or as it was, until the last byte has been written.

        An object store serves it with the content type of its extension.
        """
        open_file = self._uploaded if self._is_object_store else self._renamed
        size = 0
        with open_file(name) as write:
            for chunk in chunks:
                with _store_errors(self.url + name):
                    write(chunk)
                size += len(chunk)
        return size

    @contextmanager
    def _renamed(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """Write under a name that nobody else uses, and rename at the end."""
        partial = f"{self._folder}.{name}.{uuid.uuid4().hex}{_PARTIAL}"
        try:
            with _store_errors(self.url + name):
                handle = self._fs.open(partial, "wb")
            try:
                yield handle.write
            finally:
                with _store_errors(self.url + name):
                    handle.close()
            with _store_errors(self.url + name):
                self._fs.mv(partial, self._folder + name)
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(partial)
            raise

    @contextmanager
    def _uploaded(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """Write under the final name, which an object store shows only once the upload is completed."""
        content_type = content_type_of(name)
        options: dict[str, dict[str, Any]] = {
            "s3": {"ContentType": content_type},
            "gs": {"content_type": content_type},
            "abfs": {"content_settings": {"content_type": content_type}},  # adlfs before 2026.8 ignores it
        }
        told = next((options[protocol] for protocol in options if protocol in self._protocols), {})
        with _store_errors(self.url + name):
            handle = self._fs.open(self._folder + name, "wb", block_size=BLOCK_BYTES, **told)
        try:
            yield handle.write
            with _store_errors(self.url + name):
                handle.close()
        except BaseException:
            # Closing completes the upload with the bytes so far: when a block ends, and when the object is deleted.
            with suppress(Exception):
                handle.discard()
            handle.closed = True
            raise


_LASTING_ERRORS = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)

_PARTIAL = ".part"


@contextmanager
def _store_errors(where: str) -> Iterator[None]:
    """Raise an error of a store as the end of all saving: the next file would meet the same."""
    try:
        yield
    except Exception as error:
        raise ModelsLabSaveError(
            f"{where} cannot be used: {type(error).__name__}: {str(error)[:500]}. The generation is done and paid for; "
            "output URLs may expire"
        ) from error
