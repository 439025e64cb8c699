"""What one reply says, in terms of what to do next."""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What one reply says, in terms of what to do next."""

    SUCCESS = "success"
    PROCESSING = "processing"
    FAILED = "failed"
    # Inconclusive: ModelsLab says these of jobs that succeed later, so they count only when they persist.
    NO_OUTPUT = "no output"
    NOT_FOUND = "not found"
    EMPTY_ERROR = "empty error"
    # Not about the job; asking later helps.
    RATE_LIMITED = "rate limited"
    TRANSIENT = "transient"
    # Not about the job; asking again does not help.
    INVALID_KEY = "invalid key"
    NO_CREDITS = "no credits"
    NOT_IN_PLAN = "not in plan"
    REFUSED = "refused"
    # Only of submissions: ModelsLab may have accepted it, and the reply does not tell.
    AMBIGUOUS = "ambiguous"


ACCOUNT_VERDICTS = frozenset({Verdict.INVALID_KEY, Verdict.NO_CREDITS, Verdict.NOT_IN_PLAN})
"""Verdicts about the account rather than the job: once a second poll says so, they end a wait."""
