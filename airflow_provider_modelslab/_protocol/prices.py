"""
The user's own prices of generations, by endpoint. ModelsLab tells none: an amount made of them is an estimate.

Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from airflow_provider_modelslab._protocol.numbers import is_number

Prices = Mapping[str, float]
"""What one job costs, by endpoint or the beginning of one: ``{"v6/images": 0.005, "v6/video/text2video": 0.2}``."""


def parse_prices(value: Any, argument: str) -> Prices:
    """
    Return a price table that a user has given: a mapping, or its JSON; nothing leaves it empty.

    :param value: the price table.
    :param argument: what the errors call it.
    :raises ValueError: it is none.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError):
            raise ValueError(f"{argument} must be JSON such as {_EXAMPLE}") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{argument} must map endpoints to prices, such as {_EXAMPLE}, not be a {type(value).__name__}"
        )
    return {_segments(endpoint, argument): _price(price, endpoint, argument) for endpoint, price in value.items()}


def price_of(endpoint: str, prices: Prices) -> float | None:
    """
    Return what one job of an endpoint costs by a price table, or ``None`` where it does not say.

    The longest entry counts that is the endpoint, or whole segments at its beginning.
    """
    segments = endpoint.split("/")
    beginnings = ("/".join(segments[:count]) for count in range(len(segments), 0, -1))
    return next((prices[beginning] for beginning in beginnings if beginning in prices), None)


_EXAMPLE = '{"v6/images": 0.005}'


def _segments(endpoint: Any, argument: str) -> str:
    text = endpoint.strip().strip("/") if isinstance(endpoint, str) else ""
    if not text:
        raise ValueError(f"{argument} names {endpoint!r:.200}, which is no endpoint such as 'v6/images'")
    return text


def _price(price: Any, endpoint: Any, argument: str) -> float:
    if not is_number(price) or not 0 <= price < math.inf:
        raise ValueError(f"{argument}[{endpoint!r:.200}] must be a number, not negative")
    return float(price)
