"""
The API key in a foreign text: found in every spelling in which a server may echo it, and taken out.

Pure: no I/O, no Airflow. A text is unescaped step by step, and after each step searched for the key, for parts of it
and for its base64. The work grows in proportion to the text, for any text.
"""

from __future__ import annotations

import html
import re
from base64 import b64encode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache

SHORTEST_PART = 16
"""Characters of a key in a row that give it away; of a shorter key, all of it."""

SHORTEST_KEY = 5
"""Characters of a key that is looked for, as by Airflow's own masker: a shorter text is no secret. What looks like an
escape in a key counts as the one character that it would stand for."""

_BLOCK = SHORTEST_PART // 2
"""Of any part in a row, one block at a multiple of this length is whole."""

_STEPS = 4
"""How often a text is unescaped: JSON within JSON within a URL, and one more."""

_ESCAPE = re.compile(
    r"""\\+(?:(?-i:u)(?:d[89ab][0-9a-f]{2}\\+(?-i:u)d[c-f][0-9a-f]{2}|[0-9a-f]{4})|(?-i:U)[0-9a-f]{8}|x[0-9a-f]{2}|.)?
    |%(?:[0-7][0-9a-f]|[cd][0-9a-f]%[89ab][0-9a-f]|e[0-9a-f](?:%[89ab][0-9a-f]){2}|f[0-7](?:%[89ab][0-9a-f]){3})
    |&(?:\#[0-9]+;|\#x[0-9a-f]+;|amp;|lt;|gt;|quot;|apos;)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)

MOST_ECHOES = 10_000
"""Beginnings of an echo in a text; one with more of them is made of nothing else, and goes as a whole."""

_MARKS = "\\%&"
"""Each escape begins with one of these."""

Span = tuple[int, int]


def redact(text: str, key: str) -> str:
    """
    Return a text with ``***`` for each echo of a key.

    :param text: any text.
    :param key: the key; one that is shorter than :data:`SHORTEST_KEY` is not looked for.
    """
    needles = _needles(key)
    if not needles or len(text) < min(SHORTEST_PART, *map(len, needles)):
        return text
    spans = sorted(_spans(text, needles))
    pieces, end = [], 0
    for start, stop in spans:
        if start >= end:
            pieces += [text[end:start], "***"]
        end = max(end, stop)
    return "".join([*pieces, text[end:]]) if spans else text


def _spans(text: str, needles: tuple[str, ...]) -> Iterator[Span]:
    """Yield where echoes stand in a text."""
    yield from _found(text, needles)
    steps: list[_Unescaped] = []
    while len(steps) < _STEPS and any(mark in text for mark in _MARKS):
        steps.append(_Unescaped(text))
        text = steps[-1].text
        for span in _found(text, needles):
            for step in reversed(steps):
                span = step.origin(span)
            yield span


class _Unescaped:
    """A text without its escapes, that knows where in the original each character came from."""

    def __init__(self, original: str) -> None:
        self._here: list[int] = []
        self._there: list[int] = []
        pieces: list[str] = []
        here = there = 0
        for match in _escapes(original):
            char = _meant(match[0])
            pieces += [original[there : match.start()], char]
            here += match.start() - there
            self._here += [here, here + len(char)]
            self._there += [match.start(), match.end()]
            here, there = here + len(char), match.end()
        self.text = "".join([*pieces, original[there:]])

    def origin(self, span: Span) -> Span:
        """Return where the characters of a span stand in the original."""
        return self._origin(span[0]), self._origin(span[1] - 1, 1)

    def _origin(self, index: int, offset: int = 0) -> int:
        segment = bisect_right(self._here, index) - 1
        if segment < 0:
            return index + offset
        if segment % 2:  # behind an escape, character by character
            return self._there[segment] + index - self._here[segment] + offset
        return self._there[segment + offset]


def _escapes(text: str) -> Iterator[re.Match[str]]:
    """Yield the escapes of a text; one search of the whole pattern would stop all other threads for a long text."""
    marks = [text.find(mark) for mark in _MARKS]
    while (at := min((mark for mark in marks if mark >= 0), default=-1)) >= 0:
        match = _ESCAPE.match(text, at)
        if match:
            yield match
        end = match.end() if match else at + 1
        marks = [text.find(_MARKS[index], end) if 0 <= mark < end else mark for index, mark in enumerate(marks)]


def _meant(escape: str) -> str:
    """
    Return the character that an escape stands for.

    A backslash stands for nothing: it may escape, or be meant. The backslashes of a key are left out, too.
    """
    if escape[0] == "%":
        char = bytes.fromhex(escape.replace("%", "")).decode("utf-8", "replace")[:1]
    elif escape[0] == "&":
        char = html.unescape(escape)[:1]
    else:
        codes = [code for code in escape.split("\\") if code]
        if not codes:
            return ""
        if len(codes) == 2:
            high, low = (int(code[1:], 16) for code in codes)
            char = chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
        elif len(codes[0]) > 1:
            number = int(codes[0][1:], 16)
            char = chr(number) if number < 0x110000 else ""
        else:
            char = codes[0]
    return "" if char == "\\" else char


@lru_cache(maxsize=16)
def _needles(key: str) -> tuple[str, ...]:
    """Return what to look for: the key as it is and unescaped, and its base64 at each alignment."""
    if len(key) < SHORTEST_KEY:
        return ()
    forms = [key]
    for _ in range(_STEPS):
        forms.append(_Unescaped(forms[-1]).text)
    forms += [form.replace(" ", "+") for form in forms]  # as HTML forms have it
    data = key.encode("utf-8", "surrogatepass")
    if len(data) >= SHORTEST_PART:
        for encode in (b64encode, urlsafe_b64encode):
            for shift, mixed in enumerate((0, 2, 3)):
                encoded = encode(b"\0" * shift + data).decode()
                forms.append(encoded[mixed : 8 * (shift + len(data)) // 6])
    return tuple(dict.fromkeys(form for form in forms if len(form) >= SHORTEST_KEY))


def _found(text: str, needles: tuple[str, ...]) -> Iterator[Span]:
    for needle in needles:
        if len(needle) < SHORTEST_PART:
            yield from _occurrences(text, needle)
        else:
            for at in range(0, len(needle) - _BLOCK + 1, _BLOCK):
                yield from _parts(text, needle, at)


def _occurrences(text: str, needle: str) -> Iterator[Span]:
    start = text.find(needle)
    for _ in range(MOST_ECHOES):
        if start < 0:
            return
        yield start, start + len(needle)
        start = text.find(needle, start + len(needle))
    yield 0, len(text)


def _parts(text: str, needle: str, at: int) -> Iterator[Span]:
    """Yield where long parts of a needle stand that have the block at an index of it."""
    block = needle[at : at + _BLOCK]
    found = text.find(block)
    for _ in range(MOST_ECHOES):
        if found < 0:
            return
        shift, start, stop = found - at, found, found + _BLOCK
        while start > max(0, shift) and text[start - 1] == needle[start - shift - 1]:
            start -= 1
        while stop < min(len(text), shift + len(needle)) and text[stop] == needle[stop - shift]:
            stop += 1
        if stop - start >= SHORTEST_PART:
            yield start, stop
            found = text.find(block, stop)
        else:
            found = text.find(block, found + 1)
    yield 0, len(text)
