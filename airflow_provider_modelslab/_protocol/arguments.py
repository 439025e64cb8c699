"""
What users hand over as jobs, turned into jobs: ids, submission replies, job records, URLs, JSON of any of these.

Pure: whatever is no job is refused with a ``ValueError`` that says which item it was and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_modelslab._protocol.replies import job_of_reply
from airflow_provider_modelslab._protocol.sanitizing import sanitize
from airflow_provider_modelslab._protocol.templates import parse_literal
from airflow_provider_modelslab.endpoints import parse_endpoint, parse_job_id
from airflow_provider_modelslab.jobs import JOB_STATUSES, Job

_MAX_DEPTH = 10

_YEAR_5000 = 1e11


def parse_jobs(value: Any, endpoint: Any = None, base_url: str | None = None, key: str = "") -> list[Job]:
    """
    Return the jobs that an argument names, in its order.

    :param value: one job or a collection of jobs, which may be nested. A job is a
        :class:`~airflow_provider_modelslab.jobs.Job`, an id (integer or string), a
        submission reply (a mapping with ``fetch_result`` and/or ``id``), a ``fetch_result`` URL, a record of
        :meth:`Job.to_dict <airflow_provider_modelslab.jobs.Job.to_dict>`, or a string with the JSON (or, as a
        template renders it, the Python literal) of any of these.
    :param endpoint: the family of those jobs that do not say it themselves.
    :param base_url: the connection's own base URL, where it has one: its host may then stand in ``fetch_result``.
    :param key: the API key, which is taken out of everything that is kept.
    :raises ValueError: something is no job; the message names ``jobs`` or ``endpoint``.
    """
    family = None if endpoint is None else parse_endpoint(endpoint)
    return [_parse_job(item, position, family, base_url, key) for position, item in enumerate(_flat(value, 0))]


def _flat(value: Any, depth: int) -> Iterable[Any]:
    """Yield the single jobs of a nested argument."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"jobs is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("[", "{", "(", '"', "'"):
            yield from _flat(parse_literal(text, "jobs"), depth + 1)
            return
    if isinstance(value, Iterator):
        raise ValueError("jobs is an iterator, which can be read only once: pass a list")
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        for item in _items(value):
            yield from _flat(item, depth + 1)
        return
    yield value


def _items(value: Iterable[Any]) -> Iterable[Any]:
    """Return the items of a collection: of a mapped upstream's XComs with one query, instead of one per item."""
    try:
        items: Iterable[Any] = value[:]  # type: ignore[index]
        return items
    except TypeError:
        return value


def _parse_job(item: Any, position: int, endpoint: str | None, base_url: str | None, key: str) -> Job:
    if isinstance(item, Job):
        return item
    if isinstance(item, (str, Mapping)):
        item = sanitize(item, key)  # now, since what is wrong with it will be said in its own words
    try:
        if isinstance(item, Mapping):
            return _job_of_mapping(item, endpoint, base_url)
        if isinstance(item, str) and "://" in item:
            return job_of_reply({"fetch_result": item}, endpoint, base_url)
        job_id = parse_job_id(item)
    except ValueError as error:
        raise type(error)(f"jobs[{position}]: {error}") from None
    if endpoint is None:
        raise ValueError(
            f"endpoint is missing: job {job_id} does not say its own; pass, for example, endpoint='v6/video'"
        )
    return Job(id=job_id, endpoint=endpoint)


def _job_of_mapping(item: Mapping[str, Any], endpoint: str | None, base_url: str | None) -> Job:
    if "endpoint" not in item:
        return job_of_reply(item, endpoint, base_url)
    if item.get("status") not in (None, *JOB_STATUSES):
        raise ValueError(f"status {item['status']!r:.100} is none of {', '.join(JOB_STATUSES)}")
    # A record of ours: its other fields are named as a reply's are, but for these.
    reply = {
        **item,
        "fetch_result": None,
        "output": item.get("outputs"),
        "generationTime": item.get("generation_time"),
    }
    job = job_of_reply(reply, parse_endpoint(item["endpoint"]) if item["endpoint"] else endpoint, base_url)
    return replace(job, submitted=_moment(item.get("submitted")))


def _moment(value: Any) -> float | None:
    """Return seconds since the epoch, or ``None`` for what is no such number."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _YEAR_5000
    return float(value) if known else None
