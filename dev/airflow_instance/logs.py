"""Airflow's log messages as text, the same for all releases: time, level, event."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: What a log message carries apart from its text: rendered in its own way, or the same in a whole log.
BOILERPLATE = frozenset(
    {"timestamp", "level", "event", "error_detail", "logger", "filename", "lineno"}
    | {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"}
)

#: How a message begins in the logs of Airflow 2: ``[2026-01-01T12:00:00.000+0000] {sensors.py:120} INFO - ``.
_LINE = re.compile(r"\[(?P<time>\S+)([+-]\d\d)(\d\d)\] \{[^}]*\} (?P<level>[A-Z]+) - ")

#: Where the next record of a log begins: with its time, plain, in brackets, or as the first member of an object; or
#: with the address of a visitor of the webserver.
_RECORD = re.compile(r"^(?=\[?\d{4}-\d\d-\d\d[T ]|\{\"timestamp\"|\d+\.\d+\.\d+\.\d+ )", re.MULTILINE)

#: What makes a record a complaint: its level, in each notation of Airflow's, a traceback, or a warning of Python's.
_COMPLAINT = re.compile(
    r"\[(warning|error|critical) *\]|\} (WARNING|ERROR|CRITICAL) - |\"level\":\s*\"(warning|error|critical)\""
    r"|^Traceback |\w+Warning: ",
    re.MULTILINE,
)


def complaints(log: str) -> Iterator[str]:
    """Find the warnings and errors of a log, each with its traceback."""
    return (record for record in _RECORD.split(log) if _COMPLAINT.search(record))


def line_text(line: str) -> str:
    """Write a line of an Airflow 2 log as :func:`message_text` would; continued lines stay as they are."""
    return _LINE.sub(r"\g<time>\2:\3 \g<level> ", line, count=1)


def message_text(message: Mapping[str, Any]) -> str:
    """Write a structured message as text: time, level, event, what else it carries, and the exceptions."""
    words = [message.get("timestamp", ""), message.get("level", "").upper(), message["event"]]
    words += [f"{name}={value}" for name, value in message.items() if name not in BOILERPLATE]
    exceptions = [_traceback(exception) for exception in message.get("error_detail") or ()]
    return "\n".join([" ".join(filter(None, words)), *exceptions])


def _traceback(exception: Mapping[str, Any]) -> str:
    frames = [
        f"  File {frame['filename']}, line {frame['lineno']}, in {frame['name']}" for frame in exception["frames"]
    ]
    return "\n".join([*frames, f"{exception['exc_type']}: {exception['exc_value']}", *exception["exc_notes"]])
