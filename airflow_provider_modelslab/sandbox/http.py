"""A request and a reply as plain values: what the server and the rest of the sandbox exchange."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal


@dataclass(frozen=True)
class ReceivedRequest:
    """
    A request as it came in.

    :param method: the HTTP method.
    :param path: the path, with the query if there is one.
    :param headers: the headers; case does not matter in their names.
    :param body: the raw body. It holds the API key: keep it out of logs.
    :param at: when it came in, by ``time.monotonic()``.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    at: float = 0.0

    @cached_property
    def json(self) -> Any:
        """The body, parsed; ``None`` where it is not JSON."""
        try:
            return json.loads(self.body, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """
    An HTTP reply, and how much of it reaches the client.

    :param status: the HTTP status code.
    :param body: the whole body.
    :param content_type: its content type.
    :param delay: seconds to wait before sending it.
    :param max_age: seconds for which a browser may show it again without asking.
    :param sent: ``"all"`` of it, a ``"part"`` before the connection is closed, or ``"nothing"``.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    delay: float = 0.0
    max_age: int = 0
    sent: Literal["all", "part", "nothing"] = "all"


def _refuse(constant: str) -> None:
    """Refuse NaN and the infinities, which Python reads and JSON does not have."""
    raise ValueError(f"{constant} is not JSON")


def json_reply(body: Mapping[str, Any], status: int = 200) -> Reply:
    """Return a reply with a JSON body."""
    return Reply(status=status, body=json.dumps(body).encode())
