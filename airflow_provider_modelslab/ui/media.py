"""
Which stored files the page may show, and their bytes.

A path comes from an XCom, which the author of a DAG can fill with anything. It is served only when it lies below a
folder that the administrator has named. Nothing is ever fetched from the web.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow_provider_modelslab._outputs.media_types import content_type_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHUNK_BYTES = 2**18

SIGNED_SECONDS = 300
"""How long a URL is valid that a store has signed: until the file has begun to come, also after a pause in a video."""

_LOCAL = ("", "file", "local")
_WEB = ("http", "https", "data", "ftp")

_SHOWN = ("image/", "video/", "audio/", "text/plain")
"""What a browser shows; all else is a file to download."""

_READ_BY_SCRIPT = ("text/", "application/json")
"""Texts, which the page itself shows."""


class Refused(Exception):
    """A path leads to nothing that may be shown."""


@dataclass(frozen=True, slots=True)
class Location:
    """
    Where a path leads.

    :param store: scheme and bucket, with the connection where the path names one; empty for this machine's files.
    :param parts: the folders and the file, without any that lead up again.
    """

    store: str
    parts: tuple[str, ...]

    def is_below(self, root: Location) -> bool:
        """Whether this is a file in a folder, or in one below it."""
        length = len(root.parts)
        return self.store == root.store and len(self.parts) > length and self.parts[:length] == root.parts


def locate(path: str) -> Location:
    """
    Return where a path or a URL of a store leads; symbolic links of this machine are followed.

    :raises Refused: it is not absolute, climbs, or leads into the web.
    """
    scheme, separator, folders = path.partition("://")
    if not separator:
        scheme, folders = "", path
    scheme = scheme.lower()
    if scheme in _WEB or "\0" in path or "::" in path:
        raise Refused("Not a path of a store")
    if scheme in _LOCAL:
        if not folders.startswith("/"):
            raise Refused("Not an absolute path")
        _refuse_climbing(folders)
        return Location("", PurePosixPath(os.path.realpath(folders)).parts)
    bucket, _, key = folders.partition("/")
    _refuse_climbing(key)
    return Location(f"{scheme}://{bucket}", tuple(part for part in key.split("/") if part))


def _refuse_climbing(folders: str) -> None:
    if any(part in (".", "..") for part in folders.split("/")):
        raise Refused("A path with . or .. in it")


def open_stored(path: str, roots: Sequence[str]) -> LocalFile | StoreFile:
    """
    Return a file that may be shown.

    :param path: as a task has listed it.
    :param roots: the folders below which files may be shown: paths, or URLs as they stand in ``output_path``.
    :raises Refused: it may not, or it is not there.
    """
    location = locate(path)
    if not any(location.is_below(locate(root)) for root in roots):
        raise Refused("Not below a folder of [modelslab] media_roots")
    return StoreFile(path) if location.store else LocalFile("/".join(location.parts)[1:])


class LocalFile:
    """
    A file of this machine.

    :param path: without symbolic links.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            status = os.stat(path)
        except OSError:
            raise Refused("The file is not there any more") from None
        if not stat.S_ISREG(status.st_mode):
            raise Refused("Not a file")
        self.size = status.st_size

    def signed_url(self, download: bool) -> None:
        """Return nothing: only the api-server can hand it out."""

    def read(self, part: range) -> Iterator[bytes]:
        """Return some of the bytes."""
        with open(self._path, "rb") as file:
            # Between the check and now a folder may have become a link: what is open must be what was meant.
            if os.path.realpath(self._path) == self._path:
                yield from _read(file, part)


class StoreFile:
    """
    A file in an object store, or wherever else Airflow's ``ObjectStoragePath`` reaches.

    :param path: its URL.
    """

    def __init__(self, path: str) -> None:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        try:
            opened = ObjectStoragePath(path)
            self._fs: AbstractFileSystem = opened.fs
            self._path: str = opened.path
            info = self._fs.info(self._path)
        except Exception as error:  # of any store, any driver, any connection
            raise Refused(f"The file cannot be read ({type(error).__name__})") from None
        if info["type"] != "file" or "file" in self._fs.protocol:
            raise Refused("Not a file of a store")
        self.size: int = info["size"]

    def signed_url(self, download: bool) -> str | None:
        """
        Return a URL at which the store hands out the file for a while, where it can and may.

        It may not where a browser wants the file from the page's own site: to save it, and to read it in a script.

        :param download: whether the browser is to save it.
        """
        if download or media_type(self._path).startswith(_READ_BY_SCRIPT):
            return None
        try:
            url = self._fs.sign(self._path, expiration=SIGNED_SECONDS)
        except Exception:  # each store has its own for "not with these credentials"
            return None
        return url if urlsplit(url).scheme in ("http", "https") else None

    def read(self, part: range) -> Iterator[bytes]:
        """Return some of the bytes."""
        with self._fs.open(self._path, "rb") as file:
            yield from _read(file, part)


def _read(file: Any, part: range) -> Iterator[bytes]:
    file.seek(part.start)
    left = len(part)
    while left and (chunk := file.read(min(CHUNK_BYTES, left))):
        left -= len(chunk)
        yield chunk


def parse_range(header: str | None, size: int) -> range | None:
    """
    Return which bytes a ``Range`` header asks for; nothing where it asks for several parts, or for something unknown.

    :raises ValueError: there are no such bytes.
    """
    unit, _, spec = (header or "").partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip() != "bytes" or not dash or not (first or last) or not f"{first}{last}".isdecimal():
        return None
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        raise ValueError("no such bytes")
    return range(start, stop)


def media_type(path: str) -> str:
    """Return the type to serve a file as: by its extension, so that nothing in it decides."""
    return content_type_of(path.lower())


def disposition(path: str, download: bool) -> str:
    """Return the ``Content-Disposition`` of a file."""
    shown = media_type(path).startswith(_SHOWN) and not download
    return f"{'inline' if shown else 'attachment'}; filename*=UTF-8''{quote(PurePosixPath(path).name, safe='')}"
