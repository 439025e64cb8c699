"""
Durations, moments and foreign texts as people read them, in log lines, errors and results.

The caller says what time it is. All moments are in UTC, since workers and triggerer may stand in different zones.
"""

from __future__ import annotations

import re

import pendulum

_LONGEST = 1e9
"""Seconds, some thirty years; a longer time is a mistake, and need not be exact."""

_LONGEST_NAME = 100
"""Characters of a user's name for something that are shown: Airflow's database keeps those of a wait, too."""

_LOG_GROUP = re.compile(r"(?:::|##\[)((?:end)?group)(?:::|\])", re.IGNORECASE)
"""What Airflow's log view folds lines by."""


def one_line(text: str) -> str:
    """
    Return a foreign text as one line that does nothing to a terminal, a log file or Airflow's log view.

    Control and format characters become blanks, among them line breaks, the escapes of terminals, and what turns the
    direction of writing; the markers of log groups become plain words.

    :param text: the text.
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return _LOG_GROUP.sub(r"(\1)", " ".join(text.split()))


def short_name(name: str) -> str:
    """Return what a user calls something as log lines, errors and triggers have it: a short :func:`one_line`."""
    shown = one_line(name[:_LONGEST_NAME])
    return shown if len(name) <= _LONGEST_NAME else f"{shown}…"


def count(number: int, noun: str) -> str:
    """Return ``"1 job"`` or ``"2 jobs"``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """
    Return ``"0.5 s"``, ``"4 s"``, ``"1 minute 30 seconds"`` or ``"2 hours 5 minutes"``.

    :param seconds: how long something takes; a negative time counts as none.
    """
    seconds = min(max(seconds, 0.0), _LONGEST)
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds) if seconds < 3600 else round(seconds / 60) * 60
    return pendulum.duration(seconds=whole).in_words(locale="en")


def format_moment(moment: float, now: float) -> str:
    """
    Return ``"12:03:20 UTC"``, with the date before the time of another day.

    :param moment: the moment, in seconds since the epoch.
    :param now: the time, in seconds since the epoch.
    """
    today = pendulum.from_timestamp(now, tz="UTC")
    then = today.add(seconds=min(max(moment - now, -_LONGEST), _LONGEST))
    date = "" if then.date() == today.date() else f"{then:%Y-%m-%d} "
    return f"{date}{then:%H:%M:%S} UTC"
