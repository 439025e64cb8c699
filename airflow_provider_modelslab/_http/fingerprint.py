"""Telling connections apart without their keys: what a wait remembers of the connection that it started with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from airflow_provider_modelslab._http.connection import ClientOptions

_ROUNDS = 100_000
"""Of the hash of the key, so that trying keys is slow; some 50 ms."""

_DIGITS = 6
"""Hexadecimal digits that are kept of a hash. With 24 bits, one key in 16 million fits: too few to single one out."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """
    What tells one connection from another.

    :param host: the connection's own base URL; empty for the official hosts.
    :param key: a few bits of a slow hash of the key.
    :param options: a few bits of a hash of the options that a wait depends on.
    """

    host: str
    key: str
    options: str


@lru_cache(maxsize=64)
def fingerprint_of(options: ClientOptions) -> Fingerprint:
    """Return the fingerprint of a connection. The first time this takes long: not on an event loop."""
    key = hashlib.pbkdf2_hmac(
        "sha256", options.key.encode("utf-8", "surrogatepass"), b"airflow-provider-modelslab", _ROUNDS
    )
    rest = repr((options.request_timeout, options.requests_per_second, options.ca_bundle))
    return Fingerprint(
        host=options.base_url or "",
        key=key.hex()[:_DIGITS],
        options=hashlib.sha256(rest.encode()).hexdigest()[:_DIGITS],
    )
