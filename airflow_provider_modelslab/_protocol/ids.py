"""
Which ids a reply names, and by which fields: an id that was paid for must never be lost.

Pure and total: reading a reply raises nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from airflow_provider_modelslab._protocol.formatting import one_line
from airflow_provider_modelslab.endpoints import parse_job_id

_JOB_ID_FIELDS = ("id", "request_id")
"""The fields that a job is polled by, in the order in which they count. ``request_id``: nine public clients read it."""

_ID_LIKE = re.compile(r"(?i:(.*[_-])?(u?uid|id)|fetch_result|status_url)|\w*I[dD]")

_ECHOES = frozenset({"meta", "output"})
"""What is not searched: ``meta`` echoes the request, whose ids are the user's own."""

_MAX_IDS = 20
_MAX_LENGTH = 200
_MAX_DEPTH = 3


def named_id(document: Mapping[str, Any], *fields: str) -> str:
    """
    Return the id by which a reply names its job; empty where it names none that can be polled.

    :param document: the reply's JSON object.
    :param fields: the fields to look into; by default all by which jobs are polled.
    """
    ids = [job_id for field in fields or _JOB_ID_FIELDS if (job_id := _parsed(document.get(field)))]
    # One of 0 may stand for none: it counts where there is no other.
    return next((job_id for job_id in ids if job_id != "0"), "0" if ids else "")


def further_ids(document: Mapping[str, Any], known: Collection[str | None] = ()) -> dict[str, str]:
    """
    Return all that looks like an id in a reply, by the names of the fields, such as ``training_id`` or ``data.id``.

    :param document: the reply's JSON object.
    :param known: the ids that are known already, which are left out.
    """
    ids = {one_line(name)[:_MAX_LENGTH]: text for name, text in _ids_in(document) if text not in known}
    return dict(list(ids.items())[:_MAX_IDS])


def _parsed(value: Any) -> str:
    try:
        return parse_job_id(value)
    except ValueError:
        return ""


def _ids_in(document: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    for name, value in document.items():
        path = f"{prefix}{name}"
        for place, item in _items(path, value):
            if isinstance(item, Mapping):
                if depth < _MAX_DEPTH and name not in _ECHOES:
                    yield from _ids_in(item, f"{place}.", depth + 1)
            elif _ID_LIKE.fullmatch(name) and (text := _text_of(item)):
                yield place, text


def _items(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a value, or each item of a list, with its place."""
    if isinstance(value, list):
        yield from ((f"{path}.{index}", item) for index, item in enumerate(value[:_MAX_IDS]))
    else:
        yield path, value


def _text_of(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return _parsed(value) or one_line(str(value))[:_MAX_LENGTH]
