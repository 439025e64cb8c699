"""What counts as a number in a value of a user or of ModelsLab. Pure."""

from __future__ import annotations

from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a whole number or a fraction; true and false, which Python takes for 1 and 0, are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
