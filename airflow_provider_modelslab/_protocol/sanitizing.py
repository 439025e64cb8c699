"""
Foreign JSON, made safe to keep: without the API key, and without values that databases and logs cannot hold.

Pure: no I/O, no Airflow. What a reply means is not known here
(:mod:`airflow_provider_modelslab._protocol.replies` knows).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from airflow_provider_modelslab._protocol.key_echoes import redact

MAX_VALUES = 200_000
"""Values of a document that is read: a body with more of them than any reply holds up everything else."""

MAX_ESCAPES = 600_000
"""Backslashes of a body that is read: PHP writes one before each slash, and base64 of 32 MiB has fewer."""

MAX_REFERENCES = 200_000
"""Characters ``%`` and ``&`` of a body that is read: each may begin an escape, behind which the key is looked for."""

_ENDLESS = b"0" * 1000
"""So many digits or blanks in a row are in no reply: the JSON parser would stop all threads until it has read them."""

_DIGITS_AND_BLANKS = bytes.maketrans(b"123456789 \t\r\n", b"0" * 13)

_CHUNK_BYTES = 2**20

_MAX_DEPTH = 30
"""Nesting that is kept: enough for any parameters of a generation."""


def parse_json(body: bytes, key: str) -> dict[str, Any] | None:
    """
    Return the JSON object of a reply's body, made safe to keep, or ``None`` where it is none, or too large.

    :param body: the body, undecoded.
    :param key: the API key.
    """
    if _is_pathological(body):
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return sanitize(document, key) if isinstance(document, dict) else None


def _is_pathological(body: bytes) -> bool:
    """Whether reading a body would hold up the other threads: each step here takes milliseconds."""
    values, escapes, references = (
        sum(map(body.count, marks)) for marks in ((b"[", b"{", b","), (b"\\",), (b"%", b"&"))
    )
    if values > MAX_VALUES or escapes > MAX_ESCAPES or references > MAX_REFERENCES:
        return True
    chunks = (body[start : start + _CHUNK_BYTES + len(_ENDLESS)] for start in range(0, len(body), _CHUNK_BYTES))
    # Without the NULs that UTF-16 and UTF-32, which the JSON parser reads, too, put between digits.
    return any(_ENDLESS in chunk.translate(_DIGITS_AND_BLANKS, b"\0") for chunk in chunks)


def sanitize(value: Any, key: str, depth: int = 0) -> Any:
    """
    Return a JSON value that may be kept in any database and shown to anybody.

    The key is taken out, and what JSON can express but XComs, PostgreSQL or a log cannot take: NUL characters,
    lone surrogates, numbers that are not finite or longer than 64 bits, nesting without end.

    :param value: the value.
    :param key: the API key.
    :param depth: how deep it stands in another one.
    """
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, str):
        return _sanitize_text(value, key)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        if -(2**63) <= value < 2**63:
            return value
        return str(value) if abs(value) < 10**100 else None
    if isinstance(value, Mapping):
        return {_sanitize_text(str(name), key): sanitize(item, key, depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [sanitize(item, key, depth + 1) for item in value]
    return value if isinstance(value, bool) else None


def _sanitize_text(text: str, key: str) -> str:
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return redact(text.replace("\0", ""), key)
