"""
Makes the generated parts of the documentation from the code: ``python dev/reference.py``.

What docstrings and tables of the code say stands between markers on the pages. A test fails where that is not what this
makes.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, get_args

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_modelslab import exceptions
from airflow_provider_modelslab._polling.policy import DEFAULT_POLICY, Pacing
from airflow_provider_modelslab._polling.waits import JobWait
from airflow_provider_modelslab._protocol.replies import RATE_LIMIT_PAUSE, Reply
from airflow_provider_modelslab._protocol.verdicts import ACCOUNT_VERDICTS, Verdict
from airflow_provider_modelslab.endpoints import FetchEndpoint, route_of
from airflow_provider_modelslab.jobs import Job, JobStatus
from airflow_provider_modelslab.provider_info import provider_info

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"


def main() -> None:
    """Write all that is generated."""
    for path, content in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")


def generated() -> dict[Path, str]:
    """Return what is to stand in each file that has generated parts."""
    pages = {
        DOCS / "schemas" / "jobs.schema.json": _json({"type": "array", "items": job_schema()}),
        DOCS / "schemas" / "manifest.schema.json": _json(manifest_schema()),
    }
    for page, parts in PARTS.items():
        text = (DOCS / page).read_text(encoding="utf-8")
        for marker, make in parts.items():
            text = _filled(text, marker, make())
        pages[DOCS / page] = text
    return pages


def _filled(text: str, marker: str, content: str) -> str:
    """Return the text of a page with what is made between a marker and the end of its part."""
    before, start, rest = text.partition(f"<!-- generated: {marker} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not start or not end:
        raise ValueError(f"no page has a place for {marker!r}")
    return f"{before}{start}{content}{end}{after}"


# --- docstrings -----------------------------------------------------------------------------------------


def arguments_table(module: str, name: str) -> str:
    """Return the arguments of a class with their defaults."""
    value = _public(module, name)
    return _table_of_parameters("argument", value, value.__init__)


def fields_table(module: str, name: str) -> str:
    """Return the fields of a dataclass."""
    rows = [f"| `{field}` | {meaning} |\n" for field, meaning in _parameters(_public(module, name))]
    return "| field | meaning |\n|---|---|\n" + "".join(rows)


HOOK_METHODS = (
    *("submit", "asubmit", "fetch", "afetch", "wait", "cancel", "acancel"),
    *("upload", "balance", "test_connection"),
)


def hook_methods() -> str:
    """Return what each method of the hook does, with its arguments."""
    hook = _public("hooks", "ModelsLabHook")
    return "\n".join(_method(getattr(hook, name)) for name in HOOK_METHODS)


def _method(method: Callable[..., Any]) -> str:
    summary = _markdown((inspect.getdoc(method) or "").partition("\n:")[0])
    table = _table_of_parameters("argument", method, method) if _parameters(method) else ""
    outcomes = _outcomes(method)
    return "\n".join([f"### {method.__name__}\n\n{summary}\n", *filter(None, (table, outcomes))])


def _outcomes(method: Callable[..., Any]) -> str:
    """Return what a method returns, and which errors it raises."""
    found = re.findall(r"^:(return|raises)( \w+)?: ((?:.|\n(?!:))*)", inspect.getdoc(method) or "", re.MULTILINE)
    words = {"return": "Returns", "raises": "Raises"}
    lines = [f"- {words[kind]}{error and f' `{error.strip()}`'}: {_prose(text)}\n" for kind, error, text in found]
    return "".join(lines)


def _prose(text: str) -> str:
    return _markdown(" ".join(text.split()))


def _public(module: str, name: str) -> Any:
    return getattr(import_module(f"airflow_provider_modelslab.{module}"), name)


def _table_of_parameters(title: str, documented: Any, called: Callable[..., Any]) -> str:
    rows = [f"| `{name}` | {_default(called, name)} | {meaning} |\n" for name, meaning in _parameters(documented)]
    return f"| {title} | default | meaning |\n|---|---|---|\n" + "".join(rows)


def _parameters(documented: Any) -> list[tuple[str, str]]:
    """Return the parameters that a docstring describes, and what it says about them."""
    found = re.findall(r"^:param (\w+):((?:.|\n(?!:))*)", inspect.getdoc(documented) or "", re.MULTILINE)
    return [(name, _prose(meaning).replace("|", "\\|")) for name, meaning in found]


def _default(called: Callable[..., Any], name: str) -> str:
    parameter = inspect.signature(called).parameters.get(name)
    if parameter is None or parameter.kind is parameter.VAR_KEYWORD:
        return ""
    if parameter.default is parameter.empty:
        return "required"
    if name == "deferrable":
        return "`[operators] default_deferrable`"
    if "factory" in repr(parameter.default).lower():
        return "empty"
    return f"`{parameter.default!r}`"


def _markdown(text: str) -> str:
    """Return the reStructuredText of our docstrings as Markdown."""
    text = re.sub(r":\w+:`~?([^`<]*?)(?: <[^`]*>)?`", lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    return text.replace("``", "`").strip()


# --- tables ---------------------------------------------------------------------------------------------


class _Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def wall(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


_MEANINGS = {
    Verdict.SUCCESS: "finished, with outputs",
    Verdict.PROCESSING: "queued or running",
    Verdict.FAILED: "the generation failed",
    Verdict.NO_OUTPUT: "success without any output",
    Verdict.NOT_FOUND: '"Request not found"',
    Verdict.EMPTY_ERROR: "an error without a reason",
    Verdict.RATE_LIMITED: "the queue is full, or requests come too fast",
    Verdict.TRANSIENT: "no reply, HTTP 5xx, an HTML page",
    Verdict.INVALID_KEY: "the key is refused",
    Verdict.NO_CREDITS: "no credits or quota left",
    Verdict.NOT_IN_PLAN: "the plan does not allow it",
    Verdict.REFUSED: "the request is malformed",
}


def verdicts_table() -> str:
    """Return what each verdict about a poll does to a wait that meets nothing else."""
    rows = [f"| {meaning} | `{verdict.name}` | {_effect(verdict)} |" for verdict, meaning in _MEANINGS.items()]
    return "\n".join(["| reply | verdict | what the wait does |", "|---|---|---|", *rows]) + "\n"


def _effect(verdict: Verdict) -> str:
    """Let a wait meet a verdict until it ends, or for a day, and say what happened."""
    clock = _Clock()
    pacing = Pacing(replace(DEFAULT_POLICY, jitter=0.0), clock, Random(0))
    wait = JobWait(Job("1", "v6/video", eta=60.0), pacing, clock.wall())
    began, polls, pauses = clock.wall(), 0, []
    while not wait.job.finished and polls < 100:
        clock.sleep(max(wait.delay(), 0.001))
        job = {
            Verdict.SUCCESS: replace(wait.job, status="success", outputs=["https://cdn/a.png"]),
            Verdict.FAILED: wait.job.failed(),
            Verdict.REFUSED: wait.job.failed(),
        }.get(verdict, wait.job)
        wait.take(Reply(verdict, job, RATE_LIMIT_PAUSE if verdict is Verdict.RATE_LIMITED else None))
        polls += 1
        pauses.append(wait.delay())
        if polls == 1:
            began = clock.wall()
    if verdict in ACCOUNT_VERDICTS:
        return "polls once more; a second such reply ends the wait with an error"
    if wait.job.finished and polls == 1:
        return f"ends: the job is `{wait.job.status}`"
    if wait.job.finished:
        return (
            f"polls again; the {polls}th in a row, {clock.wall() - began:.0f} s after the first, makes the job `failed`"
        )
    if verdict is Verdict.RATE_LIMITED:
        return f"pauses, with all waits of the connection, for {pauses[0]:.0f} s or as long as the reply says"
    return f"polls again after {pauses[0]:.0f} s, later every {pauses[-1]:.0f} s; never ends by itself"


def errors_table() -> str:
    """Return the errors: why each is raised and what to do, as their docstrings say, and whether Airflow retries."""
    rows = []
    for name in exceptions.__all__:
        error = getattr(exceptions, name)
        cause, _, cure = " ".join((inspect.getdoc(error) or "").partition("\n:")[0].split()).partition(" Do: ")
        retried = "no" if issubclass(error, (AirflowFailException, AirflowSensorTimeout)) else "yes"
        rows.append(f"| `{name}` | {_markdown(cause)} | {_markdown(cure[0].upper() + cure[1:])} | {retried} |")
    return "\n".join(["| error | cause | what to do | Airflow retries it |", "|---|---|---|---|", *rows]) + "\n"


def endpoints_table() -> str:
    """Return the known families of fetch endpoints, and how the requests of each travel."""
    places = {"path": "into the path", "body": "into the body, as `request_id`"}
    rows = [
        f"| `{member.value}` | `{member.name}` | {route.host} | {places[route.id_in]} |"
        for member in FetchEndpoint
        for route in [route_of(member.value)]
    ]
    return "\n".join(["| family | in `FetchEndpoint` | host | the id goes |", "|---|---|---|---|", *rows]) + "\n"


def configuration_table() -> str:
    """Return the options of Airflow's configuration."""
    rows = []
    for section, config in provider_info()["config"].items():
        for name, option in config["options"].items():
            meaning = _markdown(" ".join(option["description"].split()))
            rows.append(f"| `[{section}] {name}` | {meaning} | {option['default'] or 'none'} |")
    return "\n".join(["| option | meaning | default |", "|---|---|---|", *rows]) + "\n"


def guarantees() -> list[dict[str, Any]]:
    """
    Return what users can rely on, by sections.

    :return: each has a ``title`` and a list ``guarantee``, in which each has its ``event``, what ``happens``, and the
        ``tests`` that show it.
    """
    sections: list[dict[str, Any]] = tomllib.loads((REPOSITORY / "tests" / "guarantees.toml").read_text())["section"]
    return sections


def guarantee_tables() -> str:
    """Return a table for each section of the guarantees."""
    return "\n".join(f"## {section['title']}\n\n{_guarantee_table(section['guarantee'])}" for section in guarantees())


def _guarantee_table(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        tests = ", ".join(f"`{test}`" for test in row["tests"])
        lines.append(f"| {row['event']} | {row['happens']} | {tests} |")
    return "\n".join(["| event | what happens | tests |", "|---|---|---|", *lines]) + "\n"


# --- schemas --------------------------------------------------------------------------------------------

_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "JobStatus": {"enum": list(get_args(JobStatus))},
    "list[Output]": {"type": "array", "items": {"type": ["string", "object", "array"]}},
    "list[str]": {"type": "array", "items": {"type": "string"}},
    "float | None": {"type": ["number", "null"]},
    "bool | list[bool] | None": {"type": ["boolean", "array", "null"], "items": {"type": "boolean"}},
    "dict[str, Any]": {"type": "object"},
    "dict[str, str]": {"type": "object", "additionalProperties": {"type": "string"}},
    "Literal['', 'path', 'body']": {"enum": ["", "path", "body"]},
}


def job_schema() -> dict[str, Any]:
    """Return the JSON schema of a job's record, from the fields of the class."""
    meanings = dict(_parameters(Job))
    properties = {
        name: {**_TYPES[str(kind).replace('"', "'")], "description": meanings[name].replace("`", "")}
        for name, kind in Job.__annotations__.items()
        if name in meanings
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def manifest_schema() -> dict[str, Any]:
    """Return the JSON schema of a manifest."""
    count = {"type": "integer", "minimum": 0}
    text = _TYPES["str"]
    item = {
        "name": {**text, "description": "The key in payloads, or the position."},
        "payload": {"type": "object", "description": "The parameters, long texts shortened."},
        "status": _TYPES["JobStatus"],
        "outputs": _TYPES["list[Output]"],
        "message": text,
        "job_id": text,
        "files": {**_TYPES["list[str]"], "description": "The stored files, where output_path is given."},
    }
    items = {"type": "object", "required": [name for name in item if name != "files"], "properties": item}
    properties = {"total": count, "succeeded": count, "failed": count, "items": {"type": "array", "items": items}}
    return {"type": "object", "required": list(properties), "properties": properties}


def _json(schema: dict[str, Any]) -> str:
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "configuration.md": {"configuration": configuration_table},
    "endpoints.md": {"endpoints": endpoints_table},
    "errors.md": {"errors": errors_table},
    "guarantees.md": {"guarantees": guarantee_tables},
    "hook.md": {"methods": hook_methods},
    "operator.md": {"arguments": partial(arguments_table, "operators", "ModelsLabGenerateOperator")},
    "outputs-page.md": {"arguments": partial(arguments_table, "picking", "ModelsLabPickOperator")},
    "sandbox.md": {"arguments": partial(arguments_table, "sandbox", "Sandbox")},
    "sensor.md": {"arguments": partial(arguments_table, "sensors", "ModelsLabJobSensor")},
    "waiting.md": {"verdicts": verdicts_table},
    "xcoms.md": {"job": partial(fields_table, "jobs", "Job")},
}
"""The generated parts of the pages by their markers, and what makes each."""


if __name__ == "__main__":
    main()
