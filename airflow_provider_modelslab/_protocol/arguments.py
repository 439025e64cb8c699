"""
The arguments of users: what stands for jobs, for an endpoint, for a time, a number or a folder.

Pure: a wrong argument is refused with a ``ValueError`` that names it and says what was expected.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from airflow_provider_modelslab._protocol.kinds import endpoint_of_address, kind_of, kind_started_by, read_by_others
from airflow_provider_modelslab._protocol.numbers import is_number
from airflow_provider_modelslab._protocol.replies import job_of_reply
from airflow_provider_modelslab._protocol.sanitizing import sanitize
from airflow_provider_modelslab._protocol.templates import parse_literal, refuse_task
from airflow_provider_modelslab.endpoints import (
    FAMILIES,
    OFFICIAL_HOSTS,
    IdPlace,
    endpoint_of_submission,
    example_below,
    is_address,
    parse_endpoint,
    parse_job_id,
    parse_submission_path,
)
from airflow_provider_modelslab.jobs import JOB_STATUSES, Job, Output

Parsed = TypeVar("Parsed")

IfExists = Literal["skip", "overwrite", "error"]
"""What happens to files that are there."""

_GENERATIONS = frozenset({"text2img", "img2img", "inpaint", "controlnet"})
"""The generation endpoints directly below families that have further families below them."""

_ID_PLACES: tuple[IdPlace, ...] = get_args(IdPlace)

_MAX_DEPTH = 10

_YEAR_5000 = 1e11

_MAX_SECONDS = 100 * 365 * 86_400.0


def parse_jobs(value: Any, endpoint: Any = None, base_url: str | None = None, key: str = "") -> list[Job]:
    """
    Return the jobs that an argument names, in its order.

    :param value: one job or a collection of jobs, which may be nested. A job is a
        :class:`~airflow_provider_modelslab.jobs.Job`, an id (integer or string), a
        submission reply (a mapping with ``fetch_result`` and/or ``id``), a ``fetch_result`` URL, a record of
        :meth:`Job.to_dict <airflow_provider_modelslab.jobs.Job.to_dict>`, or a string with the JSON (or, as a
        template renders it, the Python literal) of any of these. ``None`` is what a skipped upstream leaves: no job.
    :param endpoint: the family of those jobs that do not say it themselves.
    :param base_url: the connection's own base URL, where it has one: its host may then stand in ``fetch_result``.
    :param key: the API key, which is taken out of everything that is kept.
    :raises ValueError: something is no job; the message names ``jobs`` or ``endpoint``.
    """
    family = None if endpoint is None else parse_family(endpoint)
    return [
        parse_job(item, f"jobs[{position}]", family, base_url, key)
        for position, item in enumerate(flatten_jobs(value))
        if item is not None
    ]


def flatten_jobs(value: Any, argument: str = "jobs", depth: int = 0) -> list[Any]:
    """
    Return the single items of an argument that names jobs, not parsed yet; ``None`` for each skipped upstream.

    :param value: the argument.
    :param argument: its name, for the errors.
    :param depth: how deep it stands in another one.
    :raises ValueError: it is nested too deep, or can be read only once.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"{argument} is nested more than {_MAX_DEPTH} deep")
    refuse_task(value, argument)
    if isinstance(value, str) and value.strip()[:1] in ("[", "{", "(", '"', "'"):
        return flatten_jobs(parse_literal(value.strip(), argument), argument, depth + 1)
    if isinstance(value, Iterator):
        raise ValueError(f"{argument} is an iterator, which can be read only once: pass a list")
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
        return [value]
    with suppress(TypeError):
        value = value[:]  # type: ignore[index]  # of a mapped upstream's XComs: one query, instead of one per item
    return [item for part in value for item in flatten_jobs(part, argument, depth + 1)]


def parse_family(value: Any) -> str:
    """
    Return the family that an ``endpoint`` names under which jobs are fetched.

    :raises ValueError: it names none, or a generation endpoint.
    """
    family = parse_endpoint(value)
    parent, _, action = family.rpartition("/")
    if not kind_of(family) and (meant := endpoint_of_address(family)):
        raise ValueError(f"endpoint {family!r} is one address of several for the same work: pass {meant!r}")
    has_families_below = any(known.startswith(f"{parent}/") for known in FAMILIES)
    if family not in FAMILIES and parent in FAMILIES and (action in _GENERATIONS or not has_families_below):
        raise ValueError(
            f"endpoint {family!r} is a generation endpoint; its jobs are fetched under "
            f"{endpoint_of_submission(family)!r}: pass that"
        )
    return family


def parse_generation_endpoint(value: Any, argument: str = "endpoint") -> str:
    """
    Return the path of the generation endpoint that an argument names.

    :param argument: what the user calls it, for the error.
    :raises ValueError: it names none, or a family under which jobs are fetched.
    """
    path = parse_submission_path(value, argument)
    if (kind := kind_of(path)) and not kind_started_by(path):
        start = kind.start.format(endpoint=path)
        raise ValueError(f"{argument} {path!r} is where a {kind.name} is asked for: pass {start!r}, which starts one")
    # Below v1/enterprise and v4, some families are generation endpoints, too.
    if path in FAMILIES and (path.startswith(("v6/", "v7/", "v8/")) or path in ("v3", "v1/enterprise")):
        raise ValueError(
            f"{argument} {path!r} is the family under which jobs are fetched: pass a generation endpoint, whose path "
            f"begins with '{path}/', such as {example_below(path)!r}"
        )
    return path


def parse_seconds(value: Any, argument: str, *, or_zero: bool = False) -> float:
    """
    Return a time in seconds.

    :param value: a number of seconds or a ``timedelta``.
    :param argument: the name of the argument, for the error.
    :param or_zero: whether 0 is a time, too.
    :raises ValueError: it is no such time, or longer than Airflow can count.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not is_number(seconds) or not 0 <= seconds <= _MAX_SECONDS or not (seconds or or_zero):
        raise ValueError(
            f"{argument} must be a number of seconds {'of at least' if or_zero else 'above'} 0 and up to a century, or "
            f"such a timedelta, not {value!r:.200}"
        )
    return float(seconds)


def parse_optional(parse: Callable[[Any, str], Parsed], value: Any, argument: str) -> Parsed | None:
    """Return what a function of this module makes of an argument, or ``None`` where the argument is not given."""
    return None if value is None else parse(value, argument)


def parse_count(value: Any, argument: str, least: int = 1) -> int:
    """Return a whole number of at least ``least``, or raise a ``ValueError`` that names the argument."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{argument} must be a whole number of at least {least}, not {value!r:.200}")
    return value


def parse_max_in_flight(value: Any) -> int | None:
    """Return how many jobs may be in flight, ``None`` for ``"auto"``, or raise a ``ValueError``."""
    if value == "auto":
        return None
    if isinstance(value, str):
        raise ValueError(f"max_in_flight must be 'auto' or a whole number of at least 1, not {value!r:.200}")
    return parse_count(value, "max_in_flight")


def parse_amount(value: Any, argument: str) -> float:
    """Return an amount of money, or raise a ``ValueError`` that names the argument."""
    if not is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"{argument} must be a number of at least 0, not {value!r:.200}")
    return float(value)


def parse_if_exists(value: Any) -> IfExists:
    """Return what happens to files that are there, or raise a ``ValueError``."""
    if value not in get_args(IfExists):
        raise ValueError(f"if_exists must be one of {', '.join(get_args(IfExists))}, not {value!r:.200}")
    choice: IfExists = value
    return choice


def without_path_types(value: Any) -> Any:
    """Return a path object as text: Airflow renders templates in texts, and its database stores them."""
    return str(value) if isinstance(value, os.PathLike) or hasattr(value, "fs") else value


def parse_output_path(value: Any, argument: str = "output_path") -> str:
    """
    Return the URL or the absolute path of a folder.

    :param value: a string, a ``pathlib.Path`` or an ``ObjectStoragePath``.
    :param argument: the name of the argument, for the error.
    :raises ValueError: it is neither, or relative.
    """
    path = without_path_types(value)
    if not isinstance(path, str) or not re.match(r"/|[a-z][\w+.-]*://.", path) or "\0" in path:
        raise ValueError(
            f"{argument} must be a URL such as 's3://aws_default@bucket/folder/' or an absolute path, not "
            f"{value!r:.200}"
        )
    parts = urlsplit(path)
    if parts.scheme == "file" and parts.netloc:
        raise ValueError(f"{argument} {path!r:.200} must have three slashes: 'file:///{parts.netloc}{parts.path}'")
    return path


def parse_job(item: Any, argument: str, endpoint: str | None, base_url: str | None, key: str) -> Job:
    """
    Return the job that a single value names; see :func:`parse_jobs`.

    :param argument: what the user calls the value, for the error.
    :param endpoint: its family, as :func:`parse_family` returns it, where the value does not say it itself.
    """
    if isinstance(item, Job):
        return item
    if isinstance(item, (str, Mapping)):
        item = sanitize(item, key)  # now, since what is wrong with it will be said in its own words
    try:
        if isinstance(item, Mapping):
            return _job_of_mapping(item, endpoint, base_url)
        if isinstance(item, str) and is_address(item):
            _refuse_other_url(item)
            return job_of_reply({"fetch_result": item}, endpoint, base_url)
        job_id = parse_job_id(item)
    except ValueError as error:
        raise type(error)(f"{argument}: {error}") from None
    if endpoint is None:
        raise ValueError(
            f"endpoint is missing: job {job_id} does not say its own; pass, for example, endpoint='v6/video'"
        )
    return Job(id=job_id, endpoint=endpoint)


def _refuse_other_url(url: str) -> None:
    if "/fetch" not in url and "/api/v" in url:
        raise ValueError(
            "this is the URL of an endpoint, not of a job: pass the id with endpoint=, or the URL that the reply to "
            "the submission names as fetch_result"
        )
    if "/fetch" not in url:
        raise ValueError(
            "this is the URL of an output, not of a job: pass the XCom 'jobs' of the task that generated it, for "
            "example draw.output['jobs'], or the reply to the submission"
        )


def _job_of_mapping(item: Mapping[str, Any], endpoint: str | None, base_url: str | None) -> Job:
    if "endpoint" not in item:
        return job_of_reply(*read_by_others(item, endpoint), base_url)
    if item.get("status") not in (None, *JOB_STATUSES):
        raise ValueError(f"status {item['status']!r:.100} is none of {', '.join(JOB_STATUSES)}")
    # A record of ours: its other fields are named as a reply's are, but for these.
    reply = {
        **{name: value for name, value in item.items() if name != "ids"},
        "fetch_result": None,
        "output": item.get("outputs"),
        "generationTime": item.get("generation_time"),
    }
    job = job_of_reply(reply, parse_endpoint(item["endpoint"]) if item["endpoint"] else endpoint, base_url)
    ids, host, id_in = item.get("ids"), item.get("host"), item.get("id_in")
    return replace(
        job,
        outputs=_outputs(item["outputs"]) if job.outputs else [],
        submitted=_moment(item.get("submitted")),
        reply_id=str(item.get("reply_id") or ""),
        host=host if isinstance(host, str) and host in OFFICIAL_HOSTS else "",
        id_in=next((place for place in _ID_PLACES if place == id_in), ""),
        ids={name: text for name, text in ids.items() if isinstance(text, str)} if isinstance(ids, Mapping) else {},
        other_links=[link for link in _list(item.get("other_links")) if isinstance(link, str)],
    )


def _outputs(value: Any) -> list[Output]:
    """Return the outputs of a record as they stand: what is in a structured result was looked at once."""
    return [output for output in _list(value) if isinstance(output, (str, dict, list)) and output]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _moment(value: Any) -> float | None:
    """Return seconds since the epoch, or ``None`` for what is no such number."""
    return float(value) if is_number(value) and 0 < value < _YEAR_5000 else None
