"""
Where the outputs of a finished job stand in its reply: the only place that knows the fields and their shapes.

An output is a URL, a text or embedded data (a string), or a structured result such as a transcript with the times of
its words (a JSON object or list), which stays whole. Pure and total: reading a reply raises nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_modelslab._protocol.numbers import is_number
from airflow_provider_modelslab.jobs import Output

_ADDRESS_FIELDS = ("links", "output_url", "link", "proxy_links")
"""
The fields with addresses that count where ``output`` holds nothing, in this order. ``links``: voice. ``output_url``:
read by the vendor's own command line. ``link``: v3/base64_crop. ``proxy_links``: enterprise image editing answers
nothing else.
"""

_RESULT_FIELDS = frozenset(
    {"text", "transcription", "transcript", "timestamps", "word_timestamps", "words", "segments", "caption", "lyrics"}
)
"""An object with one of these is a result in itself; all others only hold files together."""

_PIECE_FIELDS = frozenset({"word", "start", "end", "start_sec", "end_sec", "start_time", "end_time", "timestamp"})
"""An object with one of these is a piece of a transcript, which is the whole list."""

_STATE_FIELDS = frozenset({"id", "status", "message", "messege", "eta", "tip", "code"})
"""What tells of a job, and is no result."""

_ADDRESS = re.compile(r"https?://|data:", re.IGNORECASE)
_BASE64 = re.compile(r"(?![0-9a-f]+\Z)[A-Za-z0-9+/_-][A-Za-z0-9+/_=\r\n-]{63,}", re.IGNORECASE)
_HEAD = 4096
"""Characters of a text that tell whether it is base64: looking at millions would stop all other threads."""


def find_outputs(document: Mapping[str, Any]) -> list[Output]:
    """
    Return the outputs of a reply that says ``success``.

    :param document: the reply's JSON object.
    :return: the outputs, in the reply's order; empty where it holds none.
    """
    if outputs := list(_outputs_in(document.get("output"))):
        return outputs
    for field in _ADDRESS_FIELDS:
        if files := list(_files_in(document.get(field))):
            return [*files]
    meta = document.get("meta")  # v7 speech to text answers there
    if isinstance(meta, Mapping) and (outputs := list(_outputs_in(meta.get("transcription")))):
        return outputs
    # A transcript counts in any of the fields; loose words, such as "soon" in "links", are none.
    every = (_outputs_in(document.get(field)) for field in _ADDRESS_FIELDS)
    return next(filter(None, ([each for each in found if _is_structure(each)] for found in every)), [])


def find_copies(document: Mapping[str, Any]) -> list[str]:
    """Return the proxy's copies of the outputs, which stand beside them; before the outputs exist, too."""
    nested = document.get("output")
    inner = find_copies(nested) if isinstance(nested, Mapping) and _is_reply(nested) else []
    return inner or list(_files_in(document.get("proxy_links")))


def find_future_links(document: Mapping[str, Any]) -> list[str]:
    """Return where a reply says that files will be: never a sign that they are there."""
    return list(_files_in(document.get("future_links")))


def find_other_links(document: Mapping[str, Any]) -> list[str]:
    """Return the further URLs of a reply that says ``success``: neither its outputs nor their copies."""
    taken = {*find_copies(document), *(output for output in find_outputs(document) if isinstance(output, str))}
    every = (file for field in ("output", *_ADDRESS_FIELDS) for file in _files_in(document.get(field)))
    return [file for file in dict.fromkeys(every) if file not in taken]


def as_text(output: Output) -> str:
    """Return an output as one text, the same in every order of the fields of an object: databases change it."""
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, sort_keys=True)


def _outputs_in(value: Any) -> Iterator[Output]:
    if isinstance(value, str):
        if text := value.strip():
            yield text
    elif isinstance(value, Mapping):
        yield from _outputs_in_object(value)
    elif isinstance(value, Sequence):
        if _is_transcript(value):
            yield list(value)
            yield from _files_in(value)
            return
        for item in value:
            yield from _outputs_in(item)


def _outputs_in_object(value: Mapping[str, Any]) -> Iterator[Output]:
    if _is_reply(value):
        yield from find_outputs(value)
        return
    files = list(_files_in(value))
    if _is_result(value) if files else _says_something(value):
        yield dict(value)
    yield from files


def _is_reply(value: Mapping[str, Any]) -> bool:
    """Whether an object is a reply within a reply, as of a workflow: its outputs stand beside words on its state."""
    return ("output" in value or not value.keys().isdisjoint(_ADDRESS_FIELDS)) and not _is_result(value)


def _is_result(value: Mapping[str, Any]) -> bool:
    return any(_holds_something(value.get(field)) for field in _RESULT_FIELDS)


def _is_structure(output: Output) -> bool:
    return isinstance(output, list) or (isinstance(output, Mapping) and _is_result(output))


def _is_transcript(value: Sequence[Any]) -> bool:
    """Whether a list is made of the pieces of a transcript: an object alone that is a result needs no list."""
    if not all(map(_is_piece, value)) or not _holds_something(value):
        return False
    return len(value) > 1 or not (isinstance(value[0], Mapping) and _is_result(value[0]))


def _is_piece(value: Any) -> bool:
    """Whether a value has words and their times, as ``{"word": "A", "start": 0.1}`` and ``["A", 0.1, 0.4]`` have."""
    if isinstance(value, Mapping):
        if value.keys().isdisjoint(_PIECE_FIELDS):
            return False
        return "word" in value or _is_result(value) or next(_files_in(value), None) is None  # else a file with times
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return any(map(is_number, value)) and any(isinstance(item, str) and not _is_file(item) for item in value)


def _says_something(value: Mapping[str, Any]) -> bool:
    return any(_holds_something(item) for name, item in value.items() if name not in _STATE_FIELDS)


def _holds_something(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_something, value.values()))
    if isinstance(value, str):
        return bool(value.strip())
    return any(map(_holds_something, value)) if isinstance(value, Sequence) else bool(value)


def _files_in(value: Any) -> Iterator[str]:
    """Yield the URLs and the embedded data of a structure, without its words."""
    if isinstance(value, str):
        if _is_file(text := value.strip()):
            yield text
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _files_in(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _files_in(item)


def _is_file(text: str) -> bool:
    return _ADDRESS.match(text) is not None or _BASE64.fullmatch(text[:_HEAD]) is not None
