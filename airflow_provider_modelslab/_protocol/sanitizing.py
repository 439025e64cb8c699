"""
What comes from outside, made safe to keep: without the API key, and without what databases and logs cannot hold.

Pure: no I/O, no Airflow. What a reply means is not known here (:mod:`airflow_provider_modelslab.jobs` knows).
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

_MAX_DEPTH = 30
"""Nesting that is kept: enough for any parameters of a generation."""


def parse_json(body: bytes, key: str) -> dict[str, Any] | None:
    """
    Return the JSON object of a reply's body, made safe to keep, or ``None`` where it is none.

    :param body: the body, undecoded.
    :param key: the API key.
    """
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        document = _DECODER.decode(text)
        if not isinstance(document, dict):
            return None
        return document if _is_clean(text, key) else sanitize(document, key)
    except (ValueError, RecursionError):
        return None


def _is_clean(text: str, key: str) -> bool:
    """
    Return whether a document needs no more than its numbers sanitize, which few searches of its whole text can tell.

    Where nothing is escaped, all texts stand in it as they are; it cannot be nested deeper than it has brackets.
    """
    return (
        text.isascii()
        and "\\" not in text
        and "\0" not in text
        and text.count("{") + text.count("[") < _MAX_DEPTH
        and not ((echo := _echo(key)) and echo.search(text))
    )


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
        return _clean_text(value, key)
    if isinstance(value, float):
        return _clean_float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _clean_int(value)
    if isinstance(value, Mapping):
        return {_clean_text(str(name), key): sanitize(item, key, depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [sanitize(item, key, depth + 1) for item in value]
    return value if isinstance(value, bool) else None


def _clean_int(value: str | int) -> int | str | None:
    number = int(value)
    if -(2**63) <= number < 2**63:
        return number
    return str(number) if abs(number) < 10**100 else None


def _clean_float(value: str | float) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


# Numbers are clean from the start: to search a text for those that are not would take longer.
_DECODER = json.JSONDecoder(parse_int=_clean_int, parse_float=_clean_float, parse_constant=_clean_float)


def _clean_text(text: str, key: str) -> str:
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    text = text.replace("\0", "")
    echo = _echo(key)
    return echo.sub("***", text) if echo else text


@lru_cache(maxsize=16)
def _echo(key: str) -> re.Pattern[str] | None:
    """Return what finds a key in the forms in which a server may echo it."""
    if len(key) < 5:  # as Airflow's own masker: so short a text is no secret, and stands everywhere
        return None
    return re.compile("".join(map(_spellings, key)))


def _spellings(char: str) -> str:
    """Return the pattern of one character of a key, as it is or escaped for JSON, a URL, HTML or Python."""
    if char.isascii() and char.isalnum():
        return char  # nobody escapes these; a key of nothing else is found as fast as any text
    escaped = [
        quote(char, safe=""),
        json.dumps(char)[1:-1],  # backslash and u
        ascii(char)[1:-1],  # backslash and x, or U
        html.escape(char),
        f"&#{ord(char)};",
        f"&#0{ord(char)};",
        f"&#x{ord(char):x};",
    ]
    # JSON within JSON within a text doubles the backslashes again and again.
    anyhow = "|".join(re.escape(form).replace(r"\\", r"\\+") for form in escaped)
    return rf"(?:(?i:{anyhow})|\\*{re.escape(char)}{'|[+]' if char == ' ' else ''})"
