"""An HTTP request, as a plain value: what the pure functions build and the transports send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

_NO_HEADERS: Mapping[str, str] = {}


@dataclass(slots=True)  # a frozen one takes three times as long to make, and there is one for each poll
class HttpRequest:
    """
    One request.

    :param url: where to.
    :param body: the JSON body; ``None`` for none.
    :param method: the HTTP method.
    :param headers: headers besides those of every request. One may hold the API key: redirects are never followed.
    """

    url: str
    body: Mapping[str, object] | None = field(repr=False)
    method: Literal["GET", "POST"] = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS, repr=False)
