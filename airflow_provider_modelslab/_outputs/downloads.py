"""
How outputs come to a worker: the bytes behind a URL, or in it, as a stream that ends well or raises.

Here lives what is known of CDNs: which answers mean "not yet", "later" or "never", and when a body is whole. Only
``http`` and ``https`` are fetched, and nobody is told who asks: neither the API key nor any other credential is sent.
What is done with the bytes is not known here.
"""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import requests
import tenacity
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from airflow_provider_modelslab._http import sync_transport
from airflow_provider_modelslab._http.connection import MAX_CONNECTIONS
from airflow_provider_modelslab._outputs.media_types import HEAD_BYTES, holds_base64, not_media
from airflow_provider_modelslab._outputs.names import is_url
from airflow_provider_modelslab._protocol.replies import header_seconds

MAX_FILE_BYTES = 10 * 2**30
"""A longer file is not stored: no generation comes near it, and a stream without an end must not fill a store."""

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
"""Seconds of silence after which a connection counts as lost."""

_CHUNK_BYTES = 2**18
_MAX_REDIRECTS = 10
_SHORTEST_BASE64 = 64

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    How long to go on asking for a file that does not come, in seconds.

    :param absent: while the answer is that there is no such file: right after success it may take a CDN a while.
        Counted from the beginning of all downloads, as all files get ready at the same time.
    :param faults: while connections break and servers have trouble, for each source of each file.
    :param pause: before the first repetition; it doubles from there, unless the server names a time.
    :param longest_pause: what it doubles up to.
    """

    absent: float = 120.0
    faults: float = 300.0
    pause: float = 1.0
    longest_pause: float = 15.0


class Retryability(Enum):
    """What can be hoped for after a download came to nothing."""

    ABSENT = "there may be a file later"
    FAULT = "trouble that passes"
    NEVER = "asking again is pointless"


class DownloadError(Exception):
    """
    There is no whole file to be had from a source.

    :param reason: what happened, in words for a person; holds no URL.
    :param prospect: whether to ask again.
    :param retry_after: seconds to stay away, where the server named them.
    """

    def __init__(self, reason: str, prospect: Retryability, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.prospect = prospect
        self.retry_after = retry_after


class DownloadCancelled(Exception):
    """The downloads are to end: their time is over, or another one failed for a reason that they share."""


@dataclass(frozen=True, slots=True)
class Download:
    """
    A file on its way.

    :param head: its first bytes, :data:`~airflow_provider_modelslab._outputs.media_types.HEAD_BYTES`
        unless it is shorter.
    :param size: its size in bytes, where that is known before its end.
    :param content_type: as the server declares it; empty for inline data.
    :param chunks: all of its bytes, once; raises :class:`DownloadError` instead of ending early.
    """

    head: bytes
    size: int | None
    content_type: str
    chunks: Iterator[bytes]


class Downloader:
    """
    Fetches files; one serves all threads of a set of downloads.

    :param timeout: seconds until all must have ended.
    :param retry_policy: how long to ask for one file.
    """

    def __init__(self, timeout: float, retry_policy: RetryPolicy) -> None:
        self._timeout = timeout
        self._patience = retry_policy
        self._started = time.monotonic()
        self._stopping = threading.Event()
        self._session = _Session()
        self._responses: set[requests.Response] = set()

    def stop(self) -> None:
        """Let all downloads that are under way raise :class:`DownloadCancelled`, also those that wait for a byte."""
        self._stopping.set()
        for response in list(self._responses):
            # Wakes the thread that reads; urllib3 before 2.3 cannot, and there it notices at its next byte.
            with suppress(Exception):
                response.raw.shutdown()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def repeat(self, attempt: Callable[[], Result], on_pause: Callable[[DownloadError, float], None]) -> Result:
        """
        Repeat a download for as long as there is hope.

        :param attempt: downloads and stores one file; raises :class:`DownloadError` where none came.
        :param on_pause: told why an attempt failed, and the seconds until the next.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=self._pause,
            stop=self._hopeless,
            sleep=self._sleep,
            before_sleep=lambda state: on_pause(_failure(state), state.upcoming_sleep),
            reraise=True,
        )
        return retrying(attempt)

    @contextmanager
    def open(self, output: str) -> Iterator[Download]:
        """
        Begin to download an output.

        :param output: a URL, a ``data:`` URL or base64 text.
        :raises DownloadError: there is none; also while the chunks are read.
        """
        self._check()
        if not is_url(output):
            yield _downloaded(_inline(output))
            return
        with self._response(output) as response:
            body = self._body(response)
            content_type = response.headers.get("Content-Type", "")
            head, chunks = _peeked(body)
            if reason := not_media(output, head, content_type):
                raise DownloadError(reason, Retryability.ABSENT)
            if holds_base64(output):
                yield _downloaded(_decoded(chunks))
            else:
                whole = None if _encoding(response) else _content_length(response)
                yield Download(head, whole, content_type, chunks)

    def _check(self) -> None:
        if self._stopping.is_set():
            raise DownloadCancelled("another output failed first")
        if time.monotonic() - self._started > self._timeout:
            raise DownloadCancelled(f"the {self._timeout:g} s for saving are over")

    # --- one request ------------------------------------------------------------------------------------

    @contextmanager
    def _response(self, url: str) -> Iterator[requests.Response]:
        try:
            response = self._session.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))
        except ValueError as error:  # what requests raises for a malformed URL, that of a redirect included
            raise DownloadError(f"not a URL that can be fetched ({type(error).__name__})", Retryability.NEVER) from None
        except requests.exceptions.TooManyRedirects:
            raise DownloadError(f"more than {_MAX_REDIRECTS} redirects", Retryability.NEVER) from None
        except _BROKEN as error:
            raise DownloadError(f"no reply ({type(error).__name__})", Retryability.FAULT) from None
        with response, self._interruptible(response):
            if response.status_code not in (200, 203):
                retry_after = header_seconds(response.headers.get("Retry-After"))
                raise DownloadError(f"HTTP {response.status_code}", _prospect(response.status_code), retry_after)
            if _encoding(response) not in _KNOWN_ENCODINGS:
                raise DownloadError("an encoding that was not asked for", Retryability.NEVER)
            _refuse_oversize(_content_length(response) or 0)
            yield response

    @contextmanager
    def _interruptible(self, response: requests.Response) -> Iterator[None]:
        self._responses.add(response)
        try:
            yield
        finally:
            self._responses.discard(response)

    def _body(self, response: requests.Response) -> Iterator[bytes]:
        """Return the bytes of a body; it ends only where the body ends that the headers promised."""
        # What has arrived, instead of waiting for a full chunk: a trickle must not outlast the deadline. (urllib3 1 has
        # no such method.)
        read = getattr(response.raw, "read1", response.raw.read)
        size = 0
        while True:
            self._check()
            try:
                chunk = read(_CHUNK_BYTES, decode_content=True)
            except _BROKEN as error:
                self._check()
                raise DownloadError(
                    f"broke off after {size} bytes ({type(error).__name__})", Retryability.FAULT
                ) from None
            if not chunk:
                break
            size += len(chunk)
            _refuse_oversize(size)
            yield chunk
        promised, received = _content_length(response), response.raw.tell()
        if promised not in (None, received):
            raise DownloadError(f"broke off after {received} of {promised} bytes", Retryability.FAULT)

    # --- repetition -------------------------------------------------------------------------------------

    def _pause(self, state: tenacity.RetryCallState) -> float:
        grown = tenacity.wait_random_exponential(
            self._patience.pause, self._patience.longest_pause, min=self._patience.pause / 2
        )
        return max(grown(state), _failure(state).retry_after or 0.0)

    def _hopeless(self, state: tenacity.RetryCallState) -> bool:
        if _failure(state).prospect is Retryability.ABSENT:
            spent, limit = time.monotonic() - self._started, self._patience.absent
        else:
            spent, limit = state.seconds_since_start or 0.0, self._patience.faults
        return spent + state.upcoming_sleep > limit

    def _sleep(self, seconds: float) -> None:
        self._stopping.wait(min(seconds, max(0.0, self._started + self._timeout - time.monotonic())))
        self._check()


class _Session(requests.Session):
    """A session that sends no credentials, whatever ``~/.netrc``, a URL or a redirect holds."""

    def __init__(self) -> None:
        super().__init__()
        self.headers.update(
            {"User-Agent": sync_transport.HEADERS["User-Agent"], "Accept": "*/*", "Accept-Encoding": "identity"}
        )
        self.auth = lambda request: request
        self.max_redirects = _MAX_REDIRECTS
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Add nothing to a redirected request, where requests would look into ``~/.netrc``."""


_BROKEN = (requests.exceptions.RequestException, HTTPError, OSError)

_KNOWN_ENCODINGS = ("", "gzip", "x-gzip", "deflate")
"""What is undone on the fly, should a server encode a body against our wish."""


def _prospect(status: int) -> Retryability:
    # Stores of the S3 kind answer 403 for what they do not have when listing is not allowed.
    if status in (403, 404) or 200 <= status < 300:
        return Retryability.ABSENT
    return Retryability.FAULT if status in (408, 425, 429) or status >= 500 else Retryability.NEVER


def _encoding(response: requests.Response) -> str:
    encoding: str = response.headers.get("Content-Encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def _content_length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "").strip()
    return int(length) if length.isascii() and length.isdigit() else None


def _refuse_oversize(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise DownloadError(f"more than {MAX_FILE_BYTES // 2**30} GiB, which is no generated file", Retryability.NEVER)


def _failure(state: tenacity.RetryCallState) -> DownloadError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, DownloadError)  # noqa: S101 - nothing else is repeated
    return error


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, DownloadError) and error.prospect is not Retryability.NEVER


# --- base64 -----------------------------------------------------------------------------------------------


def _inline(output: str) -> Iterator[bytes]:
    """Return the bytes that an output consists of: base64 text or a ``data:`` URL."""
    if output[:5].lower() == "data:":
        header, _, data = output.partition(",")
        if not header.lower().rstrip().endswith(";base64"):
            return iter([unquote_to_bytes(data)])
    elif len(output) < _SHORTEST_BASE64:
        raise DownloadError("neither a URL nor base64 data", Retryability.NEVER)
    return _decoded(
        output[at : at + _CHUNK_BYTES].encode("ascii", "replace") for at in range(0, len(output), _CHUNK_BYTES)
    )


def _decoded(text: Iterable[bytes]) -> Iterator[bytes]:
    """Return the bytes of base64 text that comes in pieces, in either alphabet, padded or not, as data URL or not."""
    rest = b""
    first, pieces = _peeked(iter(text))
    pieces = _without_prefix(pieces) if first[:5].lower() == b"data:" else pieces
    try:
        for piece in pieces:
            rest += piece.translate(_STANDARD_ALPHABET, b" \t\r\n")
            whole = len(rest) - len(rest) % 4
            yield base64.b64decode(rest[:whole], validate=True)
            rest = rest[whole:]
        yield base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True)
    except binascii.Error:
        raise DownloadError("not base64 data", Retryability.NEVER) from None


_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")


def _without_prefix(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        _, comma, data = piece.partition(b",")
        if comma:
            return chain([data], pieces)
    return iter(())


def _downloaded(chunks: Iterator[bytes]) -> Download:
    head, chunks = _peeked(chunks)
    if not head:
        raise DownloadError("an empty file", Retryability.NEVER)
    return Download(head, None, "", chunks)


def _peeked(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes of a stream, and the stream with them."""
    start = bytearray()
    for chunk in chunks:
        start += chunk
        if len(start) >= HEAD_BYTES:
            break
    return bytes(start[:HEAD_BYTES]), chain([bytes(start)], chunks)
