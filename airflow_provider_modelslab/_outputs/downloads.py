"""
How outputs come to a worker: the bytes behind a URL, or in it, as a stream that ends well or raises.

Here lives what is known of CDNs: which answers mean "not yet", "later" or "never", and when a body is whole. Only
``http`` and ``https`` are fetched, from public addresses and those that the connection allows, and no server learns who
asks: neither the API key nor any other credential is sent.
What is done with the bytes is not known here.
"""

from __future__ import annotations

import base64
import binascii
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import TypeVar
from urllib.parse import unquote_to_bytes, urljoin

import requests
import tenacity
from requests.sessions import SessionRedirectMixin
from urllib3.exceptions import HTTPError, ReadTimeoutError

from airflow_provider_modelslab._http.addresses import AddressGuard, ForeignAddressError
from airflow_provider_modelslab._http.outcomes import is_encoded
from airflow_provider_modelslab._http.sync_transport import CONNECT_SECONDS, DownloadRules, open_session
from airflow_provider_modelslab._outputs.media_types import HEAD_BYTES, holds_base64, is_text, not_media
from airflow_provider_modelslab._outputs.names import is_url
from airflow_provider_modelslab._protocol.formatting import format_duration
from airflow_provider_modelslab._protocol.outcomes import retry_after_seconds
from airflow_provider_modelslab._protocol.shortening import described_digest
from airflow_provider_modelslab.jobs import Output

_CHUNK_BYTES = 2**18
_MAX_REDIRECTS = 10

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    When to give up on a file, in seconds unless said otherwise.

    :param absent: how long to ask again while the answer is that there is no such file: right after success a CDN may
        need a while. Counted from the start of all downloads, as all files get ready at the same time.
    :param faults: how long to ask again while connections break and servers have trouble, for each source of a file.
    :param pause: before the first repetition; it doubles from there, unless the server names a time.
    :param longest_pause: what it doubles up to.
    :param silence: after which a connection counts as stalled.
    :param least_speed: bytes a second below which it does, too.
    :param slow_after: over which that is taken; what a store takes to write does not count.
    :param max_bytes: a longer file is refused: no generation comes near it, and a stream without an end must not fill
        a store.
    """

    absent: float = 120.0
    faults: float = 300.0
    pause: float = 1.0
    longest_pause: float = 15.0
    silence: float = 30.0
    least_speed: float = 2.0 * 2**10
    slow_after: float = 30.0
    max_bytes: int = 10 * 2**30


class Retryability(Enum):
    """Whether another attempt may succeed where a download failed."""

    ABSENT = "there may be a file later"
    FAULT = "trouble that passes"
    STALLED = "another source, or this one later, may be quicker"
    FORBIDDEN = "there may be a file where nothing is fetched from"
    NEVER = "asking again is pointless"


class DownloadError(Exception):
    """
    A source has no whole file.

    :param reason: what happened, in words for a person; holds no URL.
    :param retryability: whether to ask again.
    :param retry_after: seconds to pause, where the server named them.
    """

    def __init__(self, reason: str, retryability: Retryability, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retryability = retryability
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
    :param content_type: as the server or the ``data:`` URL declares it; else empty.
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
    :param retry_policy: when to give up on one file.
    :param ssl_context: the certificates to trust, as for requests to ModelsLab.
    :param guard: the addresses that may be fetched from.
    """

    def __init__(
        self, timeout: float, retry_policy: RetryPolicy, ssl_context: ssl.SSLContext, guard: AddressGuard
    ) -> None:
        self._timeout = timeout
        self._policy = retry_policy
        self._started = time.monotonic()
        self._stopping = threading.Event()
        self._deadline = self._started + timeout
        rules = DownloadRules(self._deadline, retry_policy.least_speed, retry_policy.slow_after, guard)
        self._session = open_session(ssl_context, rules)
        self._session.headers["Accept"] = "*/*"

    def stop(self) -> None:
        """Let each download that is under way raise :class:`DownloadCancelled` at its next byte or its end."""
        self._stopping.set()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def repeat(self, attempt: Callable[[], Result], on_pause: Callable[[DownloadError, float], None]) -> Result:
        """
        Repeat a download for as long as the policy allows.

        :param attempt: downloads and stores one file; raises :class:`DownloadError` where none came.
        :param on_pause: called with the reason of a failed attempt, and the seconds until the next.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=self._pause,
            stop=self._is_over,
            sleep=self._sleep,
            before_sleep=lambda state: on_pause(_failure(state), state.upcoming_sleep),
            reraise=True,
        )
        return retrying(attempt)

    @contextmanager
    def open(self, output: Output) -> Iterator[Download]:
        """
        Begin to download an output.

        :param output: a URL, a ``data:`` URL, base64 text, any other text, or a structured result.
        :raises DownloadError: there is none; also while the chunks are read.
        """
        self._check()
        if not isinstance(output, str):
            yield _text_file(json.dumps(output, ensure_ascii=False, indent=2))
            return
        if is_text(output):
            yield _text_file(output)
            return
        if not is_url(output):
            yield _decoded_file(_inline(output), _declared_inline(output))
            return
        with self._response(output) as response:
            content_type = response.headers.get("Content-Type", "")
            head, chunks = _peeked(self._body(response))
            if reason := not_media(output, head, content_type):
                raise DownloadError(reason, Retryability.ABSENT)
            if holds_base64(output):
                yield _decoded_file(_decoded(chunks))
            else:
                yield Download(head, _content_length(response), content_type, chunks)

    def _check(self) -> float:
        """Return the seconds that are left, or raise :class:`DownloadCancelled`."""
        if self._stopping.is_set():
            raise DownloadCancelled("another output failed first")
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise DownloadCancelled(f"the {format_duration(self._timeout)} for storing are over")
        return left

    # --- one request ------------------------------------------------------------------------------------

    @contextmanager
    def _response(self, url: str) -> Iterator[requests.Response]:
        """Open a URL, or what it redirects to."""
        for _ in range(1 + _MAX_REDIRECTS):
            with self._get(url) as response:
                if target := _redirect_target(response):
                    url = target
                    continue
                if response.status_code not in (200, 203):
                    retry_after = retry_after_seconds(response.headers.get("Retry-After"), time.time())
                    raise DownloadError(
                        f"HTTP {response.status_code}", _retryability(response.status_code), retry_after
                    )
                if is_encoded(response.headers):
                    raise DownloadError("compressed, though the request refused that", Retryability.FAULT)
                self._refuse_oversize(_content_length(response) or 0)
                yield response
                return
        raise DownloadError(f"more than {_MAX_REDIRECTS} redirects", Retryability.NEVER)

    def _get(self, url: str) -> requests.Response:
        limits = (min(CONNECT_SECONDS, self._check()), self._policy.silence)
        try:
            return self._session.get(url, stream=True, timeout=limits, allow_redirects=False)
        except ValueError as error:  # requests raises it for a malformed URL
            raise DownloadError(f"not a URL that can be fetched ({type(error).__name__})", Retryability.NEVER) from None
        except ForeignAddressError as error:
            raise DownloadError(str(error), Retryability.FORBIDDEN) from None
        except _BROKEN as error:
            self._check()
            raise DownloadError(f"no reply ({type(error).__name__})", _of_break(error)) from None

    def _body(self, response: requests.Response) -> Iterator[bytes]:
        """Return the bytes of a body; it ends only where the body ends that the headers promised."""
        # What has arrived, instead of waiting for a full chunk: a store takes it meanwhile. (urllib3 1 has no such
        # method.)
        read = getattr(response.raw, "read1", response.raw.read)
        size = 0
        while True:
            self._check()
            try:
                chunk = read(_CHUNK_BYTES)
            except _BROKEN as error:
                self._check()
                raise DownloadError(
                    f"broke off after {size} bytes ({type(error).__name__})", _of_break(error)
                ) from None
            if not chunk:
                break
            size += len(chunk)
            self._refuse_oversize(size)
            yield chunk
        promised = _content_length(response)
        if promised not in (None, size):
            raise DownloadError(f"broke off after {size} of {promised} bytes", Retryability.FAULT)

    def _refuse_oversize(self, size: int) -> None:
        limit = self._policy.max_bytes
        if size > limit:
            raise DownloadError(f"longer than {limit / 2**30:g} GiB, which is no generated file", Retryability.NEVER)

    # --- repetition -------------------------------------------------------------------------------------

    def _pause(self, state: tenacity.RetryCallState) -> float:
        policy = self._policy
        grown = tenacity.wait_random_exponential(policy.pause, policy.longest_pause, min=policy.pause / 2)
        return max(grown(state), _failure(state).retry_after or 0.0)

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        if _failure(state).retryability is Retryability.ABSENT:
            spent, limit = time.monotonic() - self._started, self._policy.absent
        else:
            spent, limit = state.seconds_since_start or 0.0, self._policy.faults
        return spent + state.upcoming_sleep > limit

    def _sleep(self, seconds: float) -> None:
        self._stopping.wait(min(seconds, max(0.0, self._deadline - time.monotonic())))
        self._check()


_BROKEN = (requests.exceptions.RequestException, HTTPError, OSError)


_TIMEOUTS = (requests.exceptions.Timeout, ReadTimeoutError, TimeoutError)


def _of_break(error: BaseException) -> Retryability:
    """Return what a broken connection means; a stalled one has waited long enough in its place."""
    return Retryability.STALLED if isinstance(error, _TIMEOUTS) else Retryability.FAULT


def _redirect_target(response: requests.Response) -> str | None:
    try:
        redirect = SessionRedirectMixin().get_redirect_target(response)
        if not redirect:
            return None
        target = urljoin(response.url, redirect)
    except ValueError:  # also of an address that is no UTF-8
        raise DownloadError("a redirect to what is no URL", Retryability.NEVER) from None
    if response.url.lower().startswith("https:") and target.lower().startswith("http:"):
        raise DownloadError("a redirect from https to http, which is not followed", Retryability.FORBIDDEN)
    return target


def _retryability(status: int) -> Retryability:
    # Stores of the S3 kind answer 403 for what they do not have when listing is not allowed.
    if status in (403, 404) or 200 <= status < 300:
        return Retryability.ABSENT
    return Retryability.FAULT if status in (408, 425, 429) or status >= 500 else Retryability.NEVER


def _content_length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "").strip()
    return int(length) if length.isascii() and length.isdigit() else None


def _failure(state: tenacity.RetryCallState) -> DownloadError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, DownloadError)  # noqa: S101 - nothing else is repeated
    return error


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, DownloadError) and error.retryability in (Retryability.ABSENT, Retryability.FAULT)


# --- base64 -----------------------------------------------------------------------------------------------


def _inline(output: str) -> Iterator[bytes]:
    """Return the bytes that an output consists of: base64 text or a ``data:`` URL."""
    if described_digest(output):
        raise DownloadError(
            "its data was too long to be kept, so that only the digest is left: generate it again, with an output_path",
            Retryability.NEVER,
        )
    if output[:5].lower() == "data:":
        header, _, data = output.partition(",")
        if not header.lower().rstrip().endswith(";base64"):
            return iter([unquote_to_bytes(data)])
    elif "://" in output:
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


def _declared_inline(output: str) -> str:
    """Return the content type that a ``data:`` URL declares."""
    return output[5:].partition(",")[0] if output[:5].lower() == "data:" else ""


def _decoded_file(chunks: Iterator[bytes], content_type: str = "") -> Download:
    head, chunks = _peeked(chunks)
    if not head:
        raise DownloadError("an empty file", Retryability.NEVER)
    return Download(head, None, content_type, chunks)


def _text_file(text: str) -> Download:
    content = text.encode("utf-8", "replace")
    return Download(content[:HEAD_BYTES], len(content), "", iter([content]))


def _peeked(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes of a stream, and the stream with them."""
    start = bytearray()
    for chunk in chunks:
        start += chunk
        if len(start) >= HEAD_BYTES:
            break
    return bytes(start[:HEAD_BYTES]), chain([bytes(start)], chunks)
