"""
The phrases by which ModelsLab's error messages say what they mean, in one table with the source of each.

A phrase counts at the beginning of a message only: messages quote prompts, and a prompt may hold any words.
Sources: *docs* is the vendor's documentation, *clients* are public clients that met the message, *Laravel* is the
framework of ModelsLab's servers.
"""

from __future__ import annotations

import re

from airflow_provider_modelslab._protocol.verdicts import Verdict

_UNIT = r"(?:s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
_PART = rf"(?:\d{{1,5}}(?:\.\d{{1,3}})? ?|(?:an?|one|a few) ){_UNIT}"
_TIME = rf"(?:about )?({_PART}(?:,? ?(?:and )?{_PART}){{0,3}})"

_PHRASES = (
    # (what a message begins with, what it means)
    (r"(training )?request not found", Verdict.NOT_FOUND),  # docs; of trainings: clients
    (r"try to fetch (the )?request", Verdict.PROCESSING),  # clients: sent with the status "error", too
    (r"internal server error|server error", Verdict.TRANSIENT),  # docs with HTTP 500; clients inside HTTP 200
    (r"(the )?service (is )?(temporarily |currently )?(un|not )available", Verdict.TRANSIENT),  # docs with 503; clients
    (r"rate limit|queue limit|too many requests", Verdict.RATE_LIMITED),  # docs
    (r"maximum \d+ queued requests", Verdict.RATE_LIMITED),  # docs, where it follows "Rate limit exceeded."
    (r"((the|your) )?queue (is )?full", Verdict.RATE_LIMITED),  # clients
    (r"too many attempts", Verdict.RATE_LIMITED),  # Laravel
    (r"((server is )?busy\W+)?(please )?try again (later|shortly|soon|in a moment)\b", Verdict.RATE_LIMITED),  # docs
    (
        rf"(please |you (can|may) )?(try again|retry|wait)( in| after| for)? {_TIME}",
        Verdict.RATE_LIMITED,
    ),  # clients: of minutes, too
    (r"you are sending too many", Verdict.RATE_LIMITED),  # clients
    (r"(invalid|incorrect|wrong|missing) api key", Verdict.INVALID_KEY),  # docs
    (r"(your )?api key (is )?(required|invalid|incorrect|missing|not valid)", Verdict.INVALID_KEY),  # docs; clients
    (r"unauthenticated", Verdict.INVALID_KEY),  # Laravel
    (r"(you have )?insufficient (wallet |account )?(credit|balance|fund)", Verdict.NO_CREDITS),  # docs
    (r"(your )?monthly limit exceeded", Verdict.NO_CREDITS),  # docs, older
    (r"(you are |you're |your account is |you have run |you've run )?out of credits", Verdict.NO_CREDITS),  # clients
    (r"(your )?credits (are |have been )?(exhausted|used up)", Verdict.NO_CREDITS),  # clients
    (r"(you have )?no (more )?credits", Verdict.NO_CREDITS),  # clients
    (r"((you have )?not|you (do not|don't) have) enough (balance|credits?|funds)", Verdict.NO_CREDITS),  # clients
    (r"((your|the) )?(wallet |account )?balance is (insufficient|too low|not enough)", Verdict.NO_CREDITS),  # clients
    (r"(please )?(fund|recharge|top up) your wallet", Verdict.NO_CREDITS),  # clients
    (r"(this|the) [\w -]{1,40} requires an? [\w -]{0,40}(subscription|plan)\b", Verdict.NOT_IN_PLAN),  # docs
    (r"invalid api request", Verdict.REFUSED),  # docs
    (r"(training|execution) has already finished", Verdict.REFUSED),  # docs: to a request that stops it
)

# Of a submission these are about its parameters; of a fetch, about the generation.
_COMPLAINTS = (
    r"the [\w .-]{1,60} (field )?(is required|must |is invalid|may not )",  # Laravel's validation, as plain text
    r"[\w.-]{1,60} (field )?is required",  # clients: the parameter's name without an article
    r"(the )?model ([\w.-]{1,60} )?((was )?not found|does not exist)",  # clients
    r"invalid (model|image|audio|video|voice|prompt|parameter|url|width|height)",  # clients
)

# ModelsLab took nothing, with any HTTP status: "try again later" alone does not say so.
_NOT_ACCEPTED = frozenset(
    {Verdict.INVALID_KEY, Verdict.NO_CREDITS, Verdict.NOT_IN_PLAN, Verdict.REFUSED, Verdict.RATE_LIMITED}
)


def _beginning_with(phrase: str) -> re.Pattern[str]:
    # No quotation marks or brackets: behind these, a message repeats what it was sent.
    return re.compile(rf"(?:(?:error|sorry|oops)\b)?[\s:;,.!–—-]*(?:{phrase})", re.IGNORECASE)


_VERDICTS = tuple((_beginning_with(phrase), verdict) for phrase, verdict in _PHRASES)
_RUNNING = _beginning_with(r"(please )?try again later|try to fetch (the )?request")
_COMPLAINT = _beginning_with("|".join(_COMPLAINTS))
_NO_ROUTE = _beginning_with(r"the route (\S{1,300} )?could not be found")  # Laravel
_ASKS_FOR_TIME = _beginning_with(r"((server is )?busy\W+)?(please |you (can|may) )?(try again|retry|wait)")

_SLOTS = re.compile(r"maximum (\d{1,5}) queued requests", re.IGNORECASE)  # docs
_PAUSE = re.compile(rf"(?:wait|again|retry)(?: (?:for|in|after))? {_TIME}", re.IGNORECASE)
_AMOUNT = re.compile(r"(?:(\d[\d.]*) ?|\b(?:an?|one|few) )([smhd])", re.IGNORECASE)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def verdict_of(message: str) -> Verdict | None:
    """Return what a message means by what it begins with, or ``None`` where it is in other words."""
    return next((verdict for phrase, verdict in _VERDICTS if phrase.match(message)), None)


def says_only_running(message: str) -> bool:
    """Return whether a message says no more than that a job is running, which explains nothing about it."""
    return not message or _RUNNING.match(message) is not None


def complains_of_parameters(message: str) -> bool:
    """Return whether a message, as the reply to a submission, is about its parameters."""
    return _COMPLAINT.match(message) is not None


def says_that_nothing_was_accepted(message: str) -> bool:
    """Return whether a message, as the reply to a submission, says that there is no job, and nothing to pay."""
    return complains_of_parameters(message) or (
        verdict_of(message) in _NOT_ACCEPTED and _ASKS_FOR_TIME.match(message) is None
    )


def names_no_route(message: str) -> bool:
    """Return whether a message says that there is no such endpoint."""
    return _NO_ROUTE.match(message) is not None


def slots_in(text: str) -> int | None:
    """Return the number of queue slots that a text such as "Maximum 5 queued requests allowed." names."""
    match = _SLOTS.search(text)
    return int(match[1]) or None if match else None


def pause_in(text: str) -> float | None:
    """Return the seconds that a text such as "Try again in 1 minute and 30 seconds." asks to wait."""
    match = _PAUSE.search(text)
    if match is None:
        return None
    parts = _AMOUNT.findall(match[1])
    return sum(float(amount or 1) * _SECONDS[unit.lower()] for amount, unit in parts)
