"""
Embedded data made short, so that databases and logs never hold whole files.

Pictures travel inside JSON: base64 in payloads, which ModelsLab echoes in ``meta``, and base64 outputs. This module is
the one gate for them: a value goes through :func:`shorten`, and an output of a job through :func:`shorten_output`,
before it becomes an XCom, a trigger argument, an event, a rendered field, an asset event or a log line. An output stays
up to 2 kB of data, or 8 kB of text or of a structured result. What ModelsLab echoes has two limits besides: one for
each job, where its reply is read (:data:`MAX_META`), and one for all jobs of an XCom or an event (:data:`MAX_ECHOES`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from airflow_provider_modelslab._protocol.masking import mask_secrets
from airflow_provider_modelslab._protocol.outputs import as_text
from airflow_provider_modelslab.jobs import Job, Output

MAX_DATA = 2 * 2**10
"""Characters of base64 text or of a ``data:`` URL that are kept."""

MAX_TEXT = 8 * 2**10
"""Characters of any other text that are kept: prompts fit in."""

MAX_FIELDS = 32 * 2**10
"""Characters of JSON that a payload has at the most in Airflow's database."""

MAX_META = 6 * 2**10
"""Characters of JSON that are kept of the ``meta`` of a job: a thousand waits hold them in memory."""

MAX_LINKS = 4 * 2**10
"""Characters of links that are kept of a job in progress."""

MAX_ECHOES = 512 * 2**10
"""Characters of JSON that the messages, ``meta`` and links of all jobs in an XCom, a trigger or an event have together.

Each job has an equal share of them. All jobs of a batch of 64 keep all that was read; 500 keep 1 kB each.
"""

_CONTAINER = 16

_START = 32
_LEFT_OUT = re.compile(r"\d+ more fields")
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


def shorten_fields(fields: Mapping[str, Any], limit: int = MAX_FIELDS) -> dict[str, Any]:
    """
    Return the parameters of a job, or an echo of them, without secrets and with so many characters of JSON in all.

    A field that does not fit is described as one text; what follows once nothing fits is counted.

    :param fields: the object.
    :param limit: the characters, without a last field that tells how many were left out.
    """
    short: dict[str, Any] = {}
    left = limit
    for name, item in shorten(mask_secrets(fields)).items():
        if name == "…" and _LEFT_OUT.fullmatch(str(item)):
            short[name] = item
            continue
        size = _size({name: item})
        if size > left:
            item = describe(json.dumps(item, ensure_ascii=False))
            size = _size({name: item})
        left -= size
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


def shorten_echoes(jobs: Sequence[Job]) -> list[Job]:
    """
    Return jobs whose messages, ``meta`` and links are short enough to travel together: see :data:`MAX_ECHOES`.

    :param jobs: the jobs.
    """
    share = MAX_ECHOES // max(1, len(jobs))
    return [_with_short_echo(job, share) for job in jobs]


def _with_short_echo(job: Job, share: int) -> Job:
    message = _cut(job.message, share // 2)
    ids = shorten_fields(job.ids, share // 2)
    left = share - _size(message) - _size(ids)
    links: dict[str, Any] = {}
    for name in ("proxy_links", "future_links", "other_links"):
        # Of a success, each copy may be the second source of an output.
        if name != "proxy_links" or job.status != "success":
            links[name] = fitting(getattr(job, name), left)
            left -= _size(links[name])
    return replace(job, message=message, ids=ids, meta=shorten_fields(job.meta, left), **links)


def fitting(links: Sequence[str], limit: int) -> list[str]:
    """Return the first links that have no more than so many characters together."""
    kept: list[str] = []
    for link in links:
        limit -= _size(link) + 2
        if limit < 0:
            break
        kept.append(link)
    return kept


def _cut(text: str, limit: int) -> str:
    """Return the beginning of a text that has so many characters as JSON."""
    while text and (size := _size(text)) > limit:
        text = text[: len(text) * limit // size]
    return text


def _size(value: Any) -> int:
    """
    Return the characters of a JSON value as Airflow's database stores it: beyond ASCII, six for each.

    A list or an object counts for more than its brackets: in memory, an empty one is larger than a line of text.
    """
    text = json.dumps(value, default=str)
    return len(text) + _CONTAINER * (text.count("[") + text.count("{"))


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
