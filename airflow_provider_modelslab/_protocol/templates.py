"""What templates do to arguments: values that are not known yet at parse time, and texts that stand for values."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any


def is_rendered(value: Any) -> bool:
    """Whether a value is final at parse time: no XComArg, no mapped argument, no template in it."""
    if hasattr(value, "resolve"):
        return False
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, Mapping):
        return all(map(is_rendered, value.values()))
    if isinstance(value, (list, tuple, set)):
        return all(map(is_rendered, value))
    return True


def parse_literal(text: str, argument: str) -> Any:
    """
    Return the value of a JSON text, or of the Python literal that a template makes of a list or a dict.

    :param text: the text.
    :param argument: the name of the argument, for the error.
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
            f"{argument} is a text of {len(text)} characters that is neither JSON nor a Python literal"
        ) from None
