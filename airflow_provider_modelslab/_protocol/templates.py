"""
What Airflow does to arguments before a task runs: values that come later, and texts that stand for values.

Airflow renders strings as templates, calls functions, and puts the outputs of upstream tasks in. A value is judged
when it is known, and not before.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

_DELIMITERS = {
    "variable_start_string": "{{",
    "block_start_string": "{%",
    "comment_start_string": "{#",
    "line_statement_prefix": None,
    "line_comment_prefix": None,
}

_MAX_DEPTH = 10

_PLAIN_TEXT = re.compile(r"[\w\s./:@,+~-]*")


def delimiters_of(jinja_options: Mapping[str, Any] | None) -> frozenset[str]:
    """
    Return the texts that begin a template.

    :param jinja_options: the ``jinja_environment_kwargs`` of a DAG.
    """
    options = {**_DELIMITERS, **(jinja_options or {})}
    return frozenset(options[name] for name in _DELIMITERS if options[name])


def is_rendered(value: Any, delimiters: Collection[str] | None) -> bool:
    """
    Return whether a value is final at parse time: no template, no function, no output of a task in it.

    :param value: the value of a template field.
    :param delimiters: the texts that begin a template. ``None`` where no DAG tells them: then only text without
        unusual characters is final.
    """
    if isinstance(value, os.PathLike):
        value = str(value)
    if isinstance(value, str):
        if delimiters is None:
            return _PLAIN_TEXT.fullmatch(value) is not None
        return not any(delimiter in value for delimiter in delimiters)
    if callable(value) or hasattr(value, "resolve") or hasattr(value, "template_fields"):
        return False
    if isinstance(value, Mapping):
        return all(is_rendered(item, delimiters) for item in value.values())
    if isinstance(value, (list, tuple, set)):
        return all(is_rendered(item, delimiters) for item in value)
    return True


def refuse_task(value: Any, argument: str, depth: int = 0) -> None:
    """
    Refuse a task where its output is meant, also within lists and dicts.

    :param value: what the user passes.
    :param argument: the name of the argument, for the error.
    :param depth: how deep it stands in another one.
    :raises ValueError: it is an operator, or a decorated function that has not been called.
    """
    task_id = getattr(value, "task_id", None)
    if isinstance(task_id, str):
        raise ValueError(f"{argument} is the task {task_id!r} itself: pass its output, {task_id}.output")
    if hasattr(value, "operator_class"):
        raise ValueError(f"{argument} is a decorated function: call it and pass what the call returns")
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        for name, item in value.items():
            refuse_task(item, f"{argument}[{name!r}]", depth + 1)


def parse_literal(text: str, argument: str, expected: str = "a dict or a list") -> Any:
    """
    Return the value of a JSON text, or of the Python literal that a template makes of a list or a dict.

    :param text: the text.
    :param argument: the name of the argument, for the error.
    :param expected: what the value should be, for the error.
    :raises ValueError: it is neither.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        # Without the text itself: it may be a whole request, with the key in it.
        raise ValueError(
            f"{argument} must be {expected}: it is a text of {len(text)} characters, neither JSON nor a Python literal"
        ) from None
