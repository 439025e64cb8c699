"""
Secrets in the parameters of a job, such as ``hf_token``: known by the names of their fields, and masked.

The API key is not among them: :mod:`airflow_provider_modelslab._protocol.key_echoes` finds that in any text. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(
    r"(?:token|secret|password|(?:\A|[_\W])(?:passwd|pwd|passphrase|credential|authorization|bearer"
    r"|(?:api|private|access|secret|ssh|hf|civitai|wandb)[_\W]?key))s?\d*\Z",
    re.IGNORECASE,
)
"""How such a name ends."""

_END_LENGTH = 100
"""How many characters at the end of a name are judged: foreign names may be megabytes long."""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_HF_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
"""What Hugging Face's tokens look like: errors quote them outside any field."""


def is_secret_name(name: str) -> bool:
    """Return whether the name of a field says that it holds a secret: ``hf_token``, ``apiKey``, ``db.password``."""
    return _SECRET_NAME.search(_WORD_START.sub("_", name[-_END_LENGTH:])) is not None


def mask_secrets(value: Any) -> Any:
    """
    Return a JSON value with ``***`` for the texts under names of secrets, and for tokens of Hugging Face anywhere.

    :param value: a JSON value.
    """
    if isinstance(value, str):
        return _HF_TOKEN.sub(MASK, value)
    if isinstance(value, Mapping):
        return {name: _masked(item) if is_secret_name(name) else mask_secrets(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_secrets(item) for item in value]
    return value


def secrets_in(value: Any) -> Iterator[str]:
    """Yield the texts under names of secrets in a JSON value, and the tokens of Hugging Face anywhere."""
    if isinstance(value, str):
        yield from _HF_TOKEN.findall(value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts_in(item) if is_secret_name(name) else secrets_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from secrets_in(item)


def _masked(value: Any) -> Any:
    """Mask all texts of a value; a number, such as a limit of tokens, is no secret."""
    if isinstance(value, str):
        return MASK if value else value
    if isinstance(value, Mapping):
        return {name: _masked(item) for name, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, (list, tuple)) else value


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts_in(item)
