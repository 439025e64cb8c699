"""
The outcome of an HTTP request, as plain values: a whole reply, or none.

Transports return these two and raise nothing for what a network can do. What a reply means is not known here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class HttpReply:
    """
    A whole HTTP reply, as a transport hands it over.

    :param status: the HTTP status code.
    :param body: the body, undecoded.
    :param retry_after: the seconds of the ``Retry-After`` header, where there was one.
    :param location: the ``Location`` header: where a redirect leads to; empty where there was none.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None = None
    location: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class NoReply:
    """
    The outcome of a request without a whole reply.

    :param reason: what happened, in words for a person.
    :param sent: whether the request may have reached ModelsLab; false only where it certainly did not.
    """

    reason: str
    sent: bool


_RUNNING = re.compile(rb'\s*\{\s*"status"\s*:\s*"(?:processing|queued)"', re.IGNORECASE)


def running_reply(body: bytes | bytearray) -> bytes | None:
    """
    Return a whole body for the beginning of one that says first that its job is running; ``None`` for all others.

    :param body: the beginning of a body.
    """
    running = _RUNNING.match(body)
    return running and bytes(running[0]) + b"}"


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """
    Return the seconds of a ``Retry-After`` header, which is a number or a date; ``None`` where it is neither.

    :param header: the header, where there was one.
    :param now: the time, in seconds since the epoch.
    """
    try:
        seconds = float(header or "nan")
    except ValueError:
        try:
            moment = parsedate_to_datetime(str(header))
            seconds = max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() - now)
        except (TypeError, ValueError, OverflowError):
            return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
