"""
Reading an Airflow connection of type ``modelslab``: which key, which host, how patient a client.

The fields are checked here, once, and named in the errors. Nothing here does I/O; where connections come from
is the hook's business.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from airflow_provider_modelslab.endpoints import MODELSLAB

DEFAULT_REQUEST_TIMEOUT = 30.0
"""Seconds for one request and its whole reply."""

LONGEST_REQUEST_TIMEOUT = 86400.0
"""Seconds that ``request_timeout`` may be; operating systems refuse to wait for ages."""

DEFAULT_RETRIES = 3
"""How many times a request that failed for a passing reason is repeated by ``fetch``."""

DEFAULT_REQUESTS_PER_SECOND = 10.0
"""How often all waits of a triggerer together may ask, for one connection."""


MAX_CONNECTIONS = 30
"""TCP connections, and so requests at a time, of one client."""


class ConnectionFields(Protocol):
    """What is read of an Airflow connection."""

    host: str | None
    port: int | None
    schema: str | None
    password: str | None
    extra: str | None


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """
    What a client needs to know of its connection.

    :param key: the API key; left out of the ``repr``.
    :param base_url: replaces the scheme and the host of every endpoint; ``None`` for the official hosts.
    :param request_timeout: seconds for one request and its whole reply.
    :param retries: how many times a request that failed for a passing reason is repeated.
    :param requests_per_second: how often all waits of a triggerer together may ask.
    :param ca_bundle: the file of the certificate authorities to trust; ``None`` for those of the environment.
    """

    key: str = field(repr=False)
    base_url: str | None = None
    request_timeout: float = DEFAULT_REQUEST_TIMEOUT
    retries: int = DEFAULT_RETRIES
    requests_per_second: float = DEFAULT_REQUESTS_PER_SECOND
    ca_bundle: str | None = None

    @property
    def uses_tls(self) -> bool:
        """Whether requests are encrypted: always, but where the connection's own host says ``http://``."""
        return not (self.base_url or "").startswith("http://")


def read_connection(connection: ConnectionFields) -> ClientOptions:
    """
    Return the client options of a connection.

    :param connection: an Airflow connection, or anything with its fields.
    :raises ValueError: a field is missing or wrong; the message names it and never holds the key.
    """
    key = (connection.password or "").strip()
    if not key:
        raise ValueError("it has no API key: put your ModelsLab key into the password field")
    extra = _extra(connection.extra)
    return ClientOptions(
        key=key,
        base_url=_base_url(connection.host, connection.port, connection.schema),
        request_timeout=_positive_number(extra, "request_timeout", DEFAULT_REQUEST_TIMEOUT, LONGEST_REQUEST_TIMEOUT),
        retries=_count(extra, "retries", DEFAULT_RETRIES),
        requests_per_second=_positive_number(extra, "requests_per_second", DEFAULT_REQUESTS_PER_SECOND),
        ca_bundle=_path(extra, "ca_bundle"),
    )


def _base_url(host: str | None, port: int | None, schema: str | None) -> str | None:
    """
    Return ``https://gateway.example:8443`` for the host field, with what a connection URI may have split off.

    A path is kept (a gateway may have one), a trailing ``/api`` is not: every request brings its own.
    ``modelslab.com`` means the same as nothing: the official hosts, of which there are two.
    """
    host = (host or "").strip()
    if not host:
        return None
    if "@" in host or "?" in host or "#" in host:
        raise ValueError("its host must be a plain URL: no user-info, no query, no fragment")
    url = host if "://" in host else f"{(schema or _usual_scheme(host)).strip().lower()}://{host}"
    try:
        parts = urlsplit(url)
        own_port = parts.port or port
    except ValueError:
        raise ValueError(f"its host {host!r:.200} is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not _is_plain(url):
        raise ValueError(f"its host {host!r:.200} is not an http(s) URL such as 'http://127.0.0.1:8787'")
    path = parts.path.rstrip("/").removesuffix("/api")
    if parts.hostname == MODELSLAB and not path and own_port in (None, 443):
        return None
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{name}{f':{own_port}' if own_port else ''}{path}"


def _is_plain(url: str) -> bool:
    """Whether a URL is without blanks, control characters, and what some take for a slash."""
    return url.isprintable() and not any(char.isspace() or char == "\\" for char in url)


def _usual_scheme(host: str) -> str:
    """Return the scheme for a host that comes without one: what listens on this machine is a sandbox, without TLS."""
    return "http" if re.match(r"localhost\b|127\.", host) else "https"


def _extra(text: str | None) -> dict[str, Any]:
    # Read here and not by extra_dejson, which talks to Airflow's supervisor: in a trigger that may block.
    try:
        extra = json.loads(text) if text and text.strip() else {}
    except (ValueError, RecursionError):
        raise ValueError("its extra is not JSON") from None
    if not isinstance(extra, dict):
        raise ValueError("its extra is not a JSON object")
    return extra


def _positive_number(extra: Mapping[str, Any], name: str, default: float, limit: float = math.inf) -> float:
    value = extra.get(name)
    if value is None or value == "":
        return default
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (0 < number <= limit and math.isfinite(number)):
        most = "" if limit == math.inf else f" and at most {limit:g}"
        raise ValueError(f"its extra field {name!r} must be a number above 0{most}")
    return number


def _count(extra: Mapping[str, Any], name: str, default: int) -> int:
    value = extra.get(name)
    if value is None or value == "":
        return default
    try:
        number = -1 if isinstance(value, bool) or (isinstance(value, float) and value % 1) else int(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if not 0 <= number <= 100:
        raise ValueError(f"its extra field {name!r} must be a whole number from 0 to 100")
    return number


def _path(extra: Mapping[str, Any], name: str) -> str | None:
    value = extra.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"its extra field {name!r} must be the path of a file")
    return value.strip() or None
