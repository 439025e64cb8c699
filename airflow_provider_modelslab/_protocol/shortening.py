"""
Embedded data made short, so that databases and logs never hold whole files.

Pictures travel inside JSON: base64 in payloads, which ModelsLab echoes in ``meta``, and base64 outputs. This module is
the one gate for them: a value goes through :func:`shorten`, and an output of a job through :func:`shorten_output`,
before it becomes an XCom, a trigger argument, an event, a rendered field, an asset event or a log line.
:func:`shorten_fields` stands where a reply is read, so that no ``meta`` that comes from ModelsLab is longer than
:data:`MAX_FIELDS`, or holds a secret. The limits of one job in the metadata database follow: at most 32 kB of ``meta``,
2 kB of message, and for each output 2 kB of data, or 8 kB of text or of a structured result.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_modelslab._protocol.masking import mask_secrets
from airflow_provider_modelslab._protocol.outputs import as_text
from airflow_provider_modelslab.jobs import Output

MAX_DATA = 2 * 2**10
"""Characters of base64 text or of a ``data:`` URL that are kept."""

MAX_TEXT = 8 * 2**10
"""Characters of any other text that are kept: prompts fit in."""

MAX_FIELDS = 32 * 2**10
"""Characters of JSON that :func:`shorten_fields` returns, but for a last field that tells how many it left out."""

_START = 32
_DATA = re.compile(r"data:[^,]*,|[A-Za-z0-9+/_=\r\n-]+\Z", re.IGNORECASE)
_DESCRIPTION = re.compile(r"… \(\d+ characters, (sha256:[0-9a-f]{64})\)\Z")


def shorten(value: Any) -> Any:
    """
    Return a JSON value whose long texts are replaced by their start, their length and their digest.

    The shape stays: a list keeps its items, an object its fields. ``data:image/png;base64,…`` of five million
    characters becomes ``data:image/png;base64,iVBORw0KGgo… (5000000 characters, sha256:…)``. What is short already
    comes back equal, so that shortening twice changes nothing.

    :param value: a JSON value.
    """
    if isinstance(value, str):
        return describe(value) if is_long(value) else value
    if isinstance(value, Mapping):
        return {shorten(name): shorten(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shorten(item) for item in value]
    return value


def shorten_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the parameters of a job, or an echo of them, shortened to :data:`MAX_FIELDS` in all, and without secrets.

    A field that does not fit is described as one text; what follows once nothing fits is counted.

    :param fields: the object.
    """
    short: dict[str, Any] = {}
    left = MAX_FIELDS
    for name, item in shorten(mask_secrets(fields)).items():
        text = json.dumps(item, ensure_ascii=False, default=str)
        if len(name) + len(text) > left:
            item = describe(text)
            text = item
        left -= len(name) + len(text)
        if left < 0:
            short["…"] = f"{len(fields) - len(short)} more fields"
            break
        short[name] = item
    return short


def shorten_output(output: Output) -> Output:
    """Return an output as it is, or described as one text where it is long: a structured result is never cut inside."""
    return describe(as_text(output)) if is_long_output(output) else output


def shorten_job(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a job, of either kind, with its outputs and all else shortened."""
    short: dict[str, Any] = shorten({name: value for name, value in record.items() if name != "outputs"})
    return short | {"outputs": [*map(shorten_output, record["outputs"])]} if "outputs" in record else short


def is_long_output(output: Output) -> bool:
    """Return whether :func:`shorten_output` replaces an output."""
    return is_long(output) if isinstance(output, str) else len(as_text(output)) > MAX_TEXT


def is_long(text: str) -> bool:
    """Return whether :func:`shorten` replaces a text."""
    return len(text) > MAX_DATA and (len(text) > MAX_TEXT or _DATA.match(text) is not None)


def describe(text: str) -> str:
    """Return the start of a text, its length and its digest."""
    return f"{text[:_START]}… ({len(text)} characters, {digest(text)})"


def described_digest(output: Output) -> str | None:
    """Return the digest in a text that :func:`describe` made, or ``None`` where it made none of it."""
    match = _DESCRIPTION.search(output) if isinstance(output, str) else None
    return match[1] if match else None


def digest(text: str) -> str:
    """Return what tells a text from all others, for example ``sha256:ab12…``."""
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
