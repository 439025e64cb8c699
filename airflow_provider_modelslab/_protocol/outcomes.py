"""
What an HTTP request comes to, as plain values: a whole reply, or none.

Transports return these two and raise nothing for what a network can do. What a reply means is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)  # a frozen one takes three times as long to make, and there is one for each poll
class HttpReply:
    """
    A whole HTTP reply, as a transport hands it over.

    :param status: the HTTP status code.
    :param body: the body, undecoded.
    :param retry_after: the ``Retry-After`` header, where there was one.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class NoReply:
    """
    What a transport hands over when no whole reply came.

    :param reason: what happened, in words for a person.
    :param sent: whether the request may have reached ModelsLab; false only where it certainly did not.
    """

    reason: str
    sent: bool
