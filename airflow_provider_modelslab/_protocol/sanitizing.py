"""
Foreign JSON, made safe to keep: without the API key, and without values that databases and logs cannot hold.

Pure: no I/O, no Airflow. What a reply means is not known here
(:mod:`airflow_provider_modelslab._protocol.replies` knows).
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

_MAX_DEPTH = 30
"""Nesting that is kept: enough for any parameters of a generation."""


def parse_json(body: bytes, key: str) -> dict[str, Any] | None:
    """
    Return the JSON object of a reply's body, made safe to keep, or ``None`` where it is none.

    :param body: the body, undecoded.
    :param key: the API key.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return sanitize(document, key) if isinstance(document, dict) else None


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
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
    echo = _echo(key)
    return echo.sub("***", text) if echo else text


@lru_cache(maxsize=16)
def _echo(key: str) -> re.Pattern[str] | None:
    """Return the pattern of a key in the forms in which a server may echo it."""
    if len(key) < 5:  # as Airflow's own masker: so short a text is no secret, and stands everywhere
        return None
    return re.compile("".join(map(_any_form, key)))


def _any_form(char: str) -> str:
    r"""
    Return the pattern of one character of a key, as it is or escaped for JSON, a URL, HTML or Python.

    Character by character, because servers differ in what they escape: ``'`` becomes ``&#39;``, ``&#039;`` or
    ``&#x27;`` while ``&`` becomes ``&amp;``, and ``/`` is ``%2F``, ``\/`` or itself beside other escapes.
    """
    if char.isascii() and char.isalnum():
        return char  # never escaped
    # The character itself comes last: it may begin its own escape.
    forms = [re.escape(quote(char, safe="")), re.escape(quote_plus(char))]
    forms += [f"&#0*{ord(char)};", f"&#x0*{ord(char):x};", re.escape(html.escape(char))]
    if char == "\\":
        forms.append(r"\\{1,64}")
    else:
        utf16 = char.encode("utf-16-be", "replace").hex()
        json_escape = "".join(f"\\u{utf16[at : at + 4]}" for at in range(0, len(utf16), 4))
        for form in (json_escape, ascii(char)[1:-1], f"\\{char}"):
            forms.append(_BACKSLASHES.join(map(re.escape, form.split("\\"))))
    return f"(?i:{'|'.join(forms)})"


_BACKSLASHES = r"\\{0,64}"
"""JSON within JSON within a text doubles them again and again."""
