"""Airflow's structured messages as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What a log message carries apart from its text: rendered in its own way, or the same in a whole log.
BOILERPLATE = frozenset(
    {"timestamp", "level", "event", "error_detail", "logger", "filename", "lineno"}
    | {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"}
)


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
