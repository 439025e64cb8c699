"""
Files as inputs: a path in a payload becomes a URL from which ModelsLab reads, right before the submission.

What identifies such an input is its content. The URL of an upload is another one each time, and a path may hold another
file tomorrow; so an item of a batch carries the digest in the file's place, and beside it where the file is.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from airflow_provider_modelslab._outputs.media_types import HEAD_BYTES, content_type_of, kind_of_bytes

MAX_BYTES = 5 * 2**20
"""What ModelsLab takes: "supports max 5MB uploads" (the page "Base64 to URL")."""

_GOOD_FOR = 20 * 3600.0
"""Seconds for which the URL of an upload is passed on: it expires after 24 hours, and a job may wait in the queue."""

Reader = Callable[[Any, str], bytes]
"""Returns the content of a path; the second argument is what the user calls it."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """
    A file in a payload.

    :param place: where it stands: the names and indexes that lead to it.
    :param path: where it is: a URL that ``ObjectStoragePath`` takes.
    :param digest: tells its content from all others.
    """

    place: tuple[str | int, ...]
    path: str
    digest: str

    @property
    def stand_in(self) -> str:
        """What stands in the payload while there is no URL."""
        return f"file sha256:{self.digest}"

    def to_record(self) -> list[Any]:
        """Return it as plain data."""
        return [list(self.place), self.path, self.digest]

    @classmethod
    def from_record(cls, record: Sequence[Any]) -> InputFile:
        """Return the file of a record."""
        place, path, digest = record
        return cls(tuple(place), path, digest)


def read_input(path: Any, argument: str) -> bytes:
    """
    Return the content of a file.

    :param path: a string, a ``pathlib.Path`` or an ``ObjectStoragePath``.
    :param argument: what the user calls it, for the error.
    :raises ValueError: it is no path, or the file is not there, cannot be read, is empty or too large.
    """
    if not isinstance(path, (str, os.PathLike)) and not is_stored_file(path):
        raise ValueError(f"{argument} must be a path or the content of a file, not {type(path).__name__}")
    # Imported when files are read: tasks without any need not wait for it.
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, ObjectStoragePath

    try:
        file = ObjectStoragePath(str(path) if "://" in str(path) else f"file://{Path(path).absolute()}")
        size = file.stat().st_size
        content: bytes = b"" if size > MAX_BYTES else file.read_bytes()
    except (AirflowNotFoundException, ImportError, ValueError) as error:
        raise ValueError(f"{argument}: the file {path} cannot be read: {error}") from None
    except Exception as error:  # each store has errors of its own
        raise ValueError(f"{argument}: the file {path} cannot be read ({type(error).__name__})") from None
    check_size(size, f"{argument}: the file {path}")
    return content


def check_size(size: int, what: str) -> None:
    """
    Refuse a file that ModelsLab does not take.

    :param size: its bytes.
    :param what: what the user calls it, for the error.
    :raises ValueError: it is empty or too large.
    """
    if not size:
        raise ValueError(f"{what} is empty")
    if size > MAX_BYTES:
        raise ValueError(f"{what} has {size} bytes, and ModelsLab takes {MAX_BYTES} (5 MB) at most")


def data_url(content: bytes) -> str:
    """Return a content as a ``data:`` URL, with the type that its first bytes tell."""
    content_type = content_type_of(f".{kind_of_bytes(content[:HEAD_BYTES])}").partition(";")[0]
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def is_stored_file(value: Any) -> bool:
    """Whether a value is an ``ObjectStoragePath``. A string never names a file: it may come from anybody."""
    return hasattr(value, "fs")


def take_files(payload: Any, argument: str, read: Reader) -> tuple[Any, list[InputFile]]:
    """
    Return a payload with stand-ins for its files, and the files.

    :param payload: the parameters of a generation; anything but an ``ObjectStoragePath`` stays as it is.
    :param argument: what the user calls it, for errors.
    :param read: reads a file.
    """
    files: list[InputFile] = []

    def walk(value: Any, place: tuple[str | int, ...], name: str) -> Any:
        if is_stored_file(value):
            content = read(value, name)
            files.append(InputFile(place, str(value), sha256(content).hexdigest()))
            return files[-1].stand_in
        if isinstance(value, Mapping):
            return {key: walk(item, (*place, key), f"{name}[{key!r}]") for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
            # The slice reads a mapped upstream's outputs with one query, instead of one for each.
            return [walk(item, (*place, index), f"{name}[{index}]") for index, item in enumerate(value[:])]
        return value

    return walk(payload, (), argument), files


def with_urls(payload: Mapping[str, Any], urls: Mapping[tuple[str | int, ...], str]) -> dict[str, Any]:
    """
    Return a payload with the URLs of its files in their places.

    :param payload: the payload with stand-ins.
    :param urls: the URL for each place.
    """

    def walk(value: Any, place: tuple[str | int, ...]) -> Any:
        if place in urls:
            return urls[place]
        if isinstance(value, Mapping):
            return {key: walk(item, (*place, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*place, index)) for index, item in enumerate(value)]
        return value

    whole: dict[str, Any] = walk(payload, ())
    return whole


@dataclass(slots=True)
class Uploads:
    """
    The files that a task has uploaded.

    :param urls: by the digest of the content, where it is, and since when, in seconds since the epoch.
    """

    urls: dict[str, tuple[str, float]] = field(default_factory=dict)

    def payload_of(
        self, payload: Mapping[str, Any], files: Sequence[InputFile], upload: Callable[[bytes], str], now: float
    ) -> Mapping[str, Any]:
        """
        Return a payload as it is submitted: with URLs for its files, each content uploaded once while its URL lives.

        :param payload: the payload with stand-ins.
        :param files: its files.
        :param upload: uploads a content and returns its URL.
        :param now: the time, in seconds since the epoch.
        :raises ValueError: a file is not what it was when the task started.
        """
        if not files:
            return payload
        for file in files:
            url, since = self.urls.get(file.digest, ("", 0.0))
            if not url or not 0 <= now - since < _GOOD_FOR:
                self.urls[file.digest] = upload(_unchanged(file)), now
        return with_urls(payload, {file.place: self.urls[file.digest][0] for file in files})


def _unchanged(file: InputFile) -> bytes:
    """Read a file once more: its content was not kept meanwhile."""
    content = read_input(file.path, "payload")
    if sha256(content).hexdigest() != file.digest:
        raise ValueError(f"payload: the file {file.path} has changed since the task started: clear the task")
    return content
