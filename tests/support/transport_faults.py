"""
What can happen to a reply on its way, as answers of a :class:`~tests.support.raw_server.RawServer`.

One table for all tests that need it: each fault once alone, and all of them mixed.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, repeat

from tests.support.raw_server import RESET, Answer, Stream, dripping, reply, stalling
from tests.support.reply_table import URL

MIB = 2**20


def _release(distribution: str) -> tuple[int, ...]:
    return tuple(map(int, version(distribution).split(".")[:2]))


BOUNDED_LINES = _release("urllib3") >= (2, 8)
"""Earlier ones read the size of a chunk for as long as the timeout allows."""

SUCCESS = reply({"status": "success", "output": [URL]})
_BODY = SUCCESS.partition(b"\r\n\r\n")[2]
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_FILLER = b"x" * 2**16


@dataclass(frozen=True)
class TransportFault:
    """
    One thing that can go wrong with a reply. All of them are transient.

    :param answer: what the server does.
    :param reason: words of what a person is told.
    :param slow: only the client's own timeout ends it.
    :param endless: there is more of it than anybody should read: the server must see its connection closed.
    """

    answer: Answer
    reason: str
    slow: bool = False
    endless: bool = False


def _long(head: bytes, part: bytes = _FILLER, count: int | None = None) -> Stream:
    """Return an answer of a head and many equal parts, without end when no count is given."""
    return Stream(lambda: chain((head,), repeat(part) if count is None else repeat(part, count)))


def _gzip_of_zeros(mebibytes: int | None) -> Iterator[bytes]:
    """Yield gzip's parts for so many MiB of zeros, about 1 KiB for each; without end for ``None``."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(b"0" * MIB) + packer.flush(zlib.Z_FULL_FLUSH)
    yield gzip.compress(b"")[:10]
    yield from repeat(block) if mebibytes is None else repeat(block, mebibytes)


def _bomb(mebibytes: int | None) -> Stream:
    """Return an answer that is small on the wire and so large when it is unpacked."""
    head = _OK + b"Content-Encoding: gzip\r\n\r\n"
    return Stream(lambda: chain((head,), _gzip_of_zeros(mebibytes)))


def _cut_at(position: int) -> bytes:
    assert 0 < position < len(SUCCESS)
    return SUCCESS[:position]


def chunked(parts: Iterable[bytes]) -> bytes:
    """Return a body in chunks, without the last one."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


_LOST = "broke before a reply|broke off"
_TIMED_OUT = "no whole reply from ModelsLab within"
_ENCODED = "the reply is compressed"
_TOO_LONG = "longer than 32 MiB"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"

TRANSPORT_FAULTS = {
    "closed without a reply": TransportFault(b"", _LOST),
    "reset after the request": TransportFault(RESET, _LOST),
    "dropped inside the head": TransportFault(_cut_at(20), "broke|with nothing"),
    "dropped before the body": TransportFault(_cut_at(len(SUCCESS) - len(_BODY)), _LOST),
    "dropped inside the body": TransportFault(_cut_at(len(SUCCESS) - 5), _LOST),
    "dropped inside a chunk": TransportFault(_CHUNKED + b"40\r\n" + _BODY[:20], _LOST),
    "dropped before the last chunk": TransportFault(_CHUNKED + chunked([_BODY[:-1]]), _LOST),
    "dropped where no length was told": TransportFault(_OK + b"\r\n" + _BODY[:-3], "something that is not JSON"),
    "truncated JSON": TransportFault(reply(_BODY[:-3]), "something that is not JSON"),
    "no HTTP at all": TransportFault(b"SSH-2.0-OpenSSH_9.6\r\n", _LOST),
    "no status code": TransportFault(b"HTTP/1.1 fine\r\n\r\n" + _BODY, _LOST),
    "two lengths": TransportFault(_OK + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\n" + _BODY, "broke|not JSON|cannot"),
    "a broken chunk size": TransportFault(_CHUNKED + b"many\r\n" + _BODY, _LOST),
    "gzip": TransportFault(reply(gzip.compress(_BODY), 200, {"Content-Encoding": "GZip"}), _ENCODED),
    "broken gzip": TransportFault(reply(_BODY, 200, {"Content-Encoding": "gzip"}), _ENCODED),
    "cut gzip": TransportFault(reply(gzip.compress(_BODY)[:-12], 200, {"Content-Encoding": "gzip"}), _ENCODED),
    "called deflate": TransportFault(reply(_BODY, 200, {"Content-Encoding": "deflate"}), _ENCODED),
    "a redirect to itself": TransportFault(reply(b"", 302, {"Location": "/api/v6/video/fetch/1"}), "HTTP 302"),
    "a redirect to nowhere": TransportFault(reply(b"", 308, {"Location": "http://[\u00ff"}), "HTTP 308"),
    # Only the timeout ends these.
    "silence": TransportFault(stalling(), _TIMED_OUT, slow=True),
    "silence inside the head": TransportFault(stalling(_cut_at(20)), _TIMED_OUT, slow=True),
    "silence inside the body": TransportFault(stalling(_cut_at(len(SUCCESS) - 5)), _TIMED_OUT, slow=True),
    "a head that drips": TransportFault(dripping(b"HTTP/1.1 200 OK\r\nX-Filler: "), _TIMED_OUT, slow=True, endless=True),
    "a body that drips": TransportFault(dripping(_OK + b"Content-Length: 9999\r\n\r\n"), _TIMED_OUT, slow=True, endless=True),
    # Of these a part must be enough.
    "100 MB": TransportFault(_long(_OK + b"Content-Length: 104857600\r\n\r\n", count=1600), _TOO_LONG, endless=True),
    "100 MB in chunks": TransportFault(_long(_CHUNKED, chunked([_FILLER]), 1600), _TOO_LONG, endless=True),
    "a body without end": TransportFault(_long(_OK + b"\r\n"), _TOO_LONG, endless=True),
    "a redirect with a body without end": TransportFault(_long(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n"), _TOO_LONG, endless=True),
    "an error page without end": TransportFault(_long(b"HTTP/1.1 500 Oops\r\n\r\n<html>"), _TOO_LONG, endless=True),
    "100 MB in 100 KB of gzip": TransportFault(_bomb(100), _ENCODED),
    "gzip without end": TransportFault(_bomb(None), _ENCODED, endless=True),
    "a status line without end": TransportFault(_long(b"HTTP/1.1 200 "), _LOST, endless=True),
    "a header without end": TransportFault(_long(b"HTTP/1.1 200 OK\r\nX-Filler: "), _LOST, endless=True),
    "headers without end": TransportFault(_long(b"HTTP/1.1 200 OK\r\n", b"X-Filler: xxxxxxxxxxxxxxxxxx\r\n" * 2**11), _LOST, endless=True),
    "a chunk size without end": TransportFault(_long(_CHUNKED, b"0" * 2**16), _LOST + "|" + _TIMED_OUT, slow=True, endless=BOUNDED_LINES),
    "trailers without end": TransportFault(_long(_CHUNKED + b"0\r\n", b"X-Filler: xxxxxxxxxxxxxxxxxx\r\n" * 2**11), _LOST + "|" + _TIMED_OUT, slow=True, endless=True),
    "interim replies without end": TransportFault(_long(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2**11), _TIMED_OUT, slow=True, endless=True),
}  # fmt: skip
"""All faults of a reply by name."""

if _release("aiohttp") < (3, 14):
    # It has no limit, makes a dictionary of them all in the end, and is at it for hours.
    del TRANSPORT_FAULTS["headers without end"]

ODD_SUCCESSES: dict[str, Answer] = {
    "in its own words not encoded": reply(_BODY, 200, {"Content-Encoding": "Identity"}),
    "byte by byte": Stream(lambda: (SUCCESS[at : at + 1] for at in range(len(SUCCESS))), pause=0.001),
}
"""Replies that every client must understand."""

EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + SUCCESS


def job_id_of(request: bytes) -> str:
    """Return the job that a request of a family with its id in the path asks for."""
    return request.partition(b" HTTP/1.1")[0].rpartition(b"/")[2].decode()


def is_well_formed(request: bytes) -> bool:
    """Whether a request is a fetch with a JSON body that holds a key."""
    head, _, body = request.partition(b"\r\n\r\n")
    return head.startswith(b"POST /api/") and bool(json.loads(body)["key"])
