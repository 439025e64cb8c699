"""
Reading an Airflow connection of type ``modelslab``: its key, its host and the options of a client.

The fields are checked here, once, by the limits of the connection form, and named in the errors. Nothing here does
I/O; the hook looks connections up.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

from airflow_provider_modelslab._http.addresses import Host, bare
from airflow_provider_modelslab._protocol.arguments import parse_optional, parse_output_path
from airflow_provider_modelslab._protocol.formatting import one_line
from airflow_provider_modelslab._protocol.prices import Prices, parse_prices
from airflow_provider_modelslab.endpoints import MODELSLAB, OFFICIAL_HOSTS, FetchEndpoint, did_you_mean
from airflow_provider_modelslab.provider_info import CONNECTION_FIELDS

DEFAULT_REQUEST_TIMEOUT = 30.0
"""Seconds for one request and its whole reply."""

DEFAULT_RETRIES = 3
"""How many times a request that failed for a passing reason is repeated by ``fetch``."""

DEFAULT_REQUESTS_PER_SECOND = 10.0
"""How many requests all waits of a triggerer may send together, for one connection."""

MAX_CONNECTIONS = 30
"""TCP connections, and so requests at a time, of one client."""

SHORTEST_GOOD_KEY = 16
"""Characters of a key below which parts of it are words, so that only the whole of it is taken out of replies."""

_PROTOCOL_WORDS = (
    "https://modelslab.com/api/v6/ fetch_result future_links output outputs proxy_links status success processing "
    "failed error message messege id eta meta tips generationTime nsfw_content_detected data:image/png;base64 "
    + " ".join(FetchEndpoint)
)

_log = logging.getLogger(__name__)


class ApiKey(str):
    """A key that is not shown where a traceback lists local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class ConnectionFields(Protocol):
    """What is read of an Airflow connection."""

    host: str | None
    port: int | None
    schema: str | None
    password: str | None
    extra: str | None


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """
    What a download of outputs needs to know of the connection; the key is not among it.

    :param ca_bundle: the file of the certificate authorities to trust; ``None`` for those of the environment.
    :param allowed_hosts: hosts that may have private addresses.
    """

    ca_bundle: str | None = None
    allowed_hosts: frozenset[Host] = frozenset()


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """
    What a client needs to know of its connection.

    :param key: the API key; left out of the ``repr``.
    :param base_url: replaces the scheme and the host of every endpoint; ``None`` for the official hosts.
    :param request_timeout: seconds for one request and its whole reply.
    :param retries: how many times a request that failed for a passing reason is repeated.
    :param requests_per_second: how many requests all waits of a triggerer may send together.
    :param ca_bundle: the file of the certificate authorities to trust; ``None`` for those of the environment.
    :param output_hosts: hosts, besides the connection's own, whose outputs are downloaded from private addresses.
    :param ledger_path: the folder in which paid jobs are remembered, where a task names none.
    :param max_jobs_per_day: how many jobs operators may submit on a UTC day; ``None`` for any number.
    :param max_spending_per_day: for what estimated amount; ``None`` for any.
    :param prices: what one job costs, by endpoint.
    """

    key: str = field(repr=False)
    base_url: str | None = None
    request_timeout: float = DEFAULT_REQUEST_TIMEOUT
    retries: int = DEFAULT_RETRIES
    requests_per_second: float = DEFAULT_REQUESTS_PER_SECOND
    ca_bundle: str | None = None
    output_hosts: frozenset[Host] = frozenset()
    ledger_path: str | None = None
    max_jobs_per_day: int | None = None
    max_spending_per_day: float | None = None
    prices: Prices = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ApiKey(self.key))

    @property
    def download_options(self) -> DownloadOptions:
        """What downloads of outputs need to know."""
        own = {_host_of(self.base_url)} if self.base_url else set()
        return DownloadOptions(self.ca_bundle, self.output_hosts | own)


def read_connection(connection: ConnectionFields) -> ClientOptions:
    """
    Return the client options of a connection.

    :param connection: an Airflow connection, or anything with its fields.
    :raises ValueError: a field is missing or wrong; the message names it and never holds the key.
    """
    key = _key(connection.password)
    extra = _extra(connection.extra)
    hosts = _text(extra, "output_hosts", "a text: hosts, separated by commas")
    ledger_path = _text(extra, "ledger_path", "the path of a folder")
    max_jobs = _optional_number(extra, "max_jobs_per_day")
    return ClientOptions(
        key=key,
        base_url=_base_url(connection.host, connection.port, connection.schema),
        request_timeout=_number(extra, "request_timeout", DEFAULT_REQUEST_TIMEOUT),
        retries=int(_number(extra, "retries", DEFAULT_RETRIES)),
        requests_per_second=_number(extra, "requests_per_second", DEFAULT_REQUESTS_PER_SECOND),
        ca_bundle=_text(extra, "ca_bundle", "the path of a file") or None,
        ledger_path=parse_optional(parse_output_path, ledger_path or None, "its extra field 'ledger_path'"),
        output_hosts=frozenset(_listed_host(each, "output_hosts") for each in re.split(r"[,\s]+", hosts) if each),
        max_jobs_per_day=None if max_jobs is None else int(max_jobs),
        max_spending_per_day=_optional_number(extra, "max_spending_per_day"),
        prices=parse_prices(extra.get("prices"), "its extra field 'prices'"),
    )


def _key(password: str | None) -> ApiKey:
    key = ApiKey((password or "").strip())
    if not key:
        raise ValueError("it has no API key: put your ModelsLab key into the password field")
    if not key.isprintable():  # the API of workflows takes it in a header, which cannot hold it
        raise ValueError("its API key holds a line break or another control character: put it in as one line")
    if key in _PROTOCOL_WORDS:
        raise ValueError(
            "its API key is a word that stands in most replies and addresses, which could not be told from an echo of "
            "the key: put your ModelsLab key into the password field"
        )
    if len(key) < SHORTEST_GOOD_KEY:
        _log.warning(
            "The API key has less than %d characters: is it your ModelsLab key? "
            "Where a reply echoes a part of it, that part is kept",
            SHORTEST_GOOD_KEY,
        )
    return key


def _base_url(host: str | None, port: int | None, schema: str | None) -> str | None:
    """
    Return ``https://gateway.example:8443`` for the host field, with what a connection URI may have split off.

    Every request brings its own ``/api/…``: a gateway's path is kept without it, and an official host has none,
    nor does it speak without TLS.
    ``modelslab.com`` means the same as nothing: the official hosts, of which there are two.
    """
    host = (host or "").strip()
    if not host:
        return None
    if "@" in host or "?" in host or "#" in host:
        raise ValueError("its host must be a plain URL: no user-info, no query, no fragment")
    scheme = (schema or "").strip().lower()
    url = host if "://" in host else f"{scheme}{':' if scheme else ''}//{host}"
    try:
        parts = urlsplit(url)
        # For a field of the form that is empty, or that it hides, some releases of Airflow 3 send 0.
        own_port = port or None if parts.port is None else parts.port
    except ValueError:
        raise ValueError(f"its host {host!r:.200} is not a URL") from None
    name = parts.hostname or ""
    scheme = parts.scheme or ("http" if _is_loopback(name) else "https")
    if scheme not in ("http", "https") or not name or not _is_plain(url):
        raise ValueError(f"its host {host!r:.200} is not an http(s) URL such as 'http://127.0.0.1:8787'")
    if own_port is not None and not 0 < own_port < 2**16:
        raise ValueError(f"its host has no port {own_port}: ports are whole numbers from 1 to 65535")
    path = re.sub(r"/api(/v\d+)?$", "", parts.path.rstrip("/"))
    if name in OFFICIAL_HOSTS:
        scheme, path = "https", ""
        own_port = None if own_port in (80, 443) else own_port
        if name == MODELSLAB and own_port is None:
            return None
    name = f"[{name}]" if ":" in name else name
    return f"{scheme}://{name}{f':{own_port}' if own_port else ''}{path}"


def _is_plain(url: str) -> bool:
    """Whether a URL is without blanks, control characters, and what some take for a slash."""
    return url.isprintable() and not any(char.isspace() or char == "\\" for char in url)


def _is_loopback(name: str) -> bool:
    """Return whether a host without a scheme is on this machine: a sandbox, without TLS."""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _extra(text: str | None) -> dict[str, Any]:
    # Read here and not by extra_dejson, which talks to Airflow's supervisor: in a trigger that may block.
    try:
        extra = json.loads(text) if text and text.strip() else {}
    except (ValueError, RecursionError):
        raise ValueError("its extra is not JSON") from None
    if not isinstance(extra, dict):
        raise ValueError("its extra is not a JSON object")
    for name in extra.keys() - CONNECTION_FIELDS.keys():
        _log.warning(
            "Correct or remove the field %s in the extra of the ModelsLab connection: it is not known and has no "
            "effect%s. Known are: %s",
            one_line(name)[:100],
            did_you_mean(name, CONNECTION_FIELDS),
            ", ".join(CONNECTION_FIELDS),
        )
    return extra


def _number(extra: Mapping[str, Any], name: str, default: float) -> float:
    number = _optional_number(extra, name)
    return default if number is None else number


def _optional_number(extra: Mapping[str, Any], name: str) -> float | None:
    """Return a field of the form, which may be empty, or hold a number as a text."""
    value = extra.get(name)
    if value is None or value == "":
        return None
    schema = CONNECTION_FIELDS[name]["schema"]
    whole = "integer" in schema["type"]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if (
        not math.isfinite(number)
        or number < schema.get("minimum", -math.inf)
        or number <= schema.get("exclusiveMinimum", -math.inf)
        or number > schema.get("maximum", math.inf)
        or (whole and number % 1)
    ):
        raise ValueError(f"its extra field {name!r} must be {_describe(schema, whole)}")
    return number


def _describe(schema: Mapping[str, Any], whole: bool) -> str:
    limits = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "up to {}"}
    named = " ".join(text.format(schema[limit]) for limit, text in limits.items() if limit in schema)
    return f"a {'whole ' if whole else ''}number {named}"


def _text(extra: Mapping[str, Any], name: str, meaning: str) -> str:
    """Return a field of the form, which may be empty."""
    value = "" if extra.get(name) is None else extra[name]
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"its extra field {name!r} must be {meaning}")
    return value.strip()


def _listed_host(text: str, name: str) -> Host:
    try:
        parts = urlsplit(f"//[{text}]" if text.count(":") > 1 and "[" not in text else f"//{text}")
        host, port = bare(parts.hostname or ""), parts.port
    except ValueError:
        host, port = "", None
    if not host or not _is_plain(text) or set("/@?#*%") & set(text):
        raise ValueError(
            f"its extra field {name!r} holds {text!r:.200}, which is no host: write 'minio.internal' or '10.1.2.3:9000'"
        )
    return host, port


def _host_of(url: str) -> Host:
    parts = urlsplit(url)
    return bare(parts.hostname or ""), parts.port or (443 if parts.scheme == "https" else 80)
