"""
Makes the generated parts of the documentation from the code: ``python dev/reference.py``.

Docstrings become ``docs/api.md``, and tables of the code stand between markers on other pages. A test fails where what
is there is not what this makes.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, get_args

from airflow_provider_modelslab._polling.policy import DEFAULT_POLICY, Pacing
from airflow_provider_modelslab._polling.waits import JobWait
from airflow_provider_modelslab._protocol.replies import RATE_LIMIT_PAUSE, Reply
from airflow_provider_modelslab._protocol.verdicts import ACCOUNT_VERDICTS, Verdict
from airflow_provider_modelslab.jobs import Job, JobStatus
from airflow_provider_modelslab.provider_info import provider_info

DOCS = Path(__file__).resolve().parent.parent / "docs"

CLASSES = {
    "ModelsLabGenerateOperator": "operators",
    "ModelsLabJobSensor": "sensors",
    "ModelsLabPickOperator": "picking",
    "ModelsLabHook": "hooks",
    "Job": "jobs",
    "Sandbox": "sandbox",
}
"""The classes that the page of all arguments describes."""

API = """\
# All arguments

Made from the docstrings by `python dev/reference.py`. Every operator takes the arguments of Airflow's `BaseOperator`
besides, the sensor those of `BaseSensorOperator`.
"""


def main() -> None:
    """Write all that is generated."""
    for path, content in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")


def generated() -> dict[Path, str]:
    """Return what is to stand in each file that has generated parts."""
    pages = {
        DOCS / "api.md": API + "".join(_class(name, module) for name, module in CLASSES.items()),
        DOCS / "schemas" / "jobs.schema.json": _json({"type": "array", "items": job_schema()}),
        DOCS / "schemas" / "manifest.schema.json": _json(manifest_schema()),
    }
    tables: dict[str, tuple[str, Callable[[], str]]] = {
        "verdicts": ("waiting.md", verdicts_table),
        "configuration": ("configuration.md", configuration_table),
    }
    for marker, (page, make) in tables.items():
        before, start, rest = (DOCS / page).read_text(encoding="utf-8").partition(f"<!-- generated: {marker} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not start or not end:
            raise ValueError(f"{page} has no place for the table {marker!r}")
        pages[DOCS / page] = f"{before}{start}{make()}{end}{after}"
    return pages


# --- docstrings -----------------------------------------------------------------------------------------


def _class(name: str, module: str) -> str:
    value = getattr(import_module(f"airflow_provider_modelslab.{module}"), name)
    line = f"from airflow_provider_modelslab.{module} import {name}"
    text = f"\n## {name}\n\n`{line}`\n\n{_described(value, value.__init__)}"
    if name == "ModelsLabHook":
        methods = [each for each in vars(value) if inspect.isfunction(vars(value)[each]) and each in _HOOK_METHODS]
        text += "".join(f"\n### {each}\n\n{_described(getattr(value, each), getattr(value, each))}" for each in methods)
    return text


_HOOK_METHODS = (
    "submit",
    "asubmit",
    "fetch",
    "afetch",
    "wait",
    "cancel",
    "acancel",
    "upload",
    "balance",
    "test_connection",
)


def _described(documented: Any, called: Callable[..., Any]) -> str:
    """Return the text of a docstring, and a table of its parameters with their defaults."""
    docstring = inspect.getdoc(documented) or ""
    text, _, fields = docstring.partition("\n:")
    rows = [f"| `{name}` | {_default(called, name)} | {meaning} |\n" for name, meaning in _parameters(f":{fields}")]
    table = "\n| argument | default | meaning |\n|---|---|---|\n" + "".join(rows) if rows else ""
    return f"{_markdown(text)}\n{table}"


def _parameters(fields: str) -> Iterator[tuple[str, str]]:
    for kind, name, meaning in re.findall(r"^:(\w+) ?([\w ]*):((?:.|\n(?!:))*)", fields, re.MULTILINE):
        if kind == "param":
            yield name, _markdown(" ".join(meaning.split())).replace("|", "\\|")


def _default(called: Callable[..., Any], name: str) -> str:
    parameter = inspect.signature(called).parameters.get(name)
    if parameter is None or parameter.kind is parameter.VAR_KEYWORD or parameter.default is parameter.empty:
        return ""
    if name == "deferrable":
        return "`[operators] default_deferrable`"
    if "factory" in repr(parameter.default).lower():
        return "empty"
    return f"`{parameter.default!r}`"


def _markdown(text: str) -> str:
    """Return the reStructuredText of our docstrings as Markdown."""
    text = re.sub(r":\w+:`~?([^`<]*?)(?: <[^`]*>)?`", lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    text = re.sub(r"::\n\n((?:    .*\n?|\n)+)", _code_block, text)
    return text.replace("``", "`").strip()


def _code_block(match: re.Match[str]) -> str:
    return f":\n\n```text\n{inspect.cleandoc(match[1])}\n```\n"


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


def configuration_table() -> str:
    """Return the options of Airflow's configuration."""
    rows = []
    for section, config in provider_info()["config"].items():
        for name, option in config["options"].items():
            meaning = _markdown(" ".join(option["description"].split()))
            rows.append(f"| `[{section}] {name}` | {meaning} | {option['default'] or 'none'} |")
    return "\n".join(["| option | meaning | default |", "|---|---|---|", *rows]) + "\n"


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
    meanings = dict(_parameters(":" + (inspect.getdoc(Job) or "").partition("\n:")[2]))
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


if __name__ == "__main__":
    main()
