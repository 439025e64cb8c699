"""Durations and moments in words."""

from __future__ import annotations

import math
import re

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_modelslab._protocol.formatting import format_duration, format_moment, one_line, short_name

NOON = pendulum.datetime(2026, 11, 28, 12, tz="UTC").timestamp()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.5, "0.5 s"),
        (4, "4 s"),
        (90, "1 minute 30 seconds"),
        (3599.6, "1 hour"),
        (7510, "2 hours 5 minutes"),
        (604800, "1 week"),
    ],
)
def test_a_duration_has_the_units_that_matter(seconds, words):
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (4.2, "12:00:04 UTC"),
        (86400, "2026-11-29 12:00:00 UTC"),
        (-200, "11:56:40 UTC"),
    ],
)
def test_a_moment_has_its_date_where_that_is_another_one(seconds, words):
    assert format_moment(NOON + seconds, NOON) == words


@given(st.floats(allow_nan=False))
def test_no_number_is_too_large_for_words(seconds):
    assert format_duration(seconds)
    assert format_moment(seconds, NOON)


def test_the_language_of_a_dag_file_does_not_matter():
    """Another file in the same process may have set pendulum's language."""
    pendulum.set_locale("de")
    try:
        assert format_duration(90) == "1 minute 30 seconds"
    finally:
        pendulum.set_locale("en")
    assert format_duration(math.inf)


# --- foreign texts ---


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("No GPU left", "No GPU left"),
        ("один\tтекст\r\n  in lines\u2028", "один текст in lines"),
        ("\x1b[2J\x1b[32mSUCCESS", "[2J [32mSUCCESS"),
        ("\x1b]8;;https://evil.example\x07click", "]8;;https://evil.example click"),
        ("\u202egnp.exe\u200b\ufeff\u2066", "gnp.exe"),
        ("::group::hidden", "(group)hidden"),
        ("a ::EndGroup:: b ##[group]c ##[endgroup]", "a (EndGroup) b (group)c (endgroup)"),
        ("::::group::group::", "::(group)group::"),
        ("std::group::of", "std(group)of"),
    ],
)
def test_a_foreign_text_is_one_harmless_line(text, line):
    assert one_line(text) == line


@given(st.text() | st.lists(st.sampled_from(["::", "group", "end", "##[", "]", "\u200b", "\n", " "])).map("".join))
def test_whatever_a_text_holds_it_is_one_line_without_markers(text):
    line = one_line(text)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    assert not re.search(r"(?i)(::|##\[)(end)?group(::|\])", line)
    assert one_line(line) == line


def test_a_name_is_short_and_one_line():
    assert short_name("an owl\nand a fox") == "an owl and a fox"
    assert short_name("x" * 100) == "x" * 100
    assert short_name("x" * 101) == "x" * 100 + "…"
