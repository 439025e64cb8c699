"""An account that takes so many requests a second, and sessions that share it and know nothing of each other."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from airflow_provider_modelslab._polling.pace import Pace
from airflow_provider_modelslab.sandbox.faults import RequestLimit

ROUND_TRIP = (0.05, 0.3)
"""Seconds from the start of a request to its reply."""

LATENESS = 0.01
"""Seconds by which an event loop may be late."""


class Account(Protocol):
    """What takes only so many requests, of all sessions together."""

    def admits(self, now: float) -> bool:
        """Return whether a request that comes now is taken, and count it."""

    def pause(self, now: float) -> float:
        """Return for how many seconds a refusal asks."""


class Bucket(RequestLimit):
    """
    Refills steadily, and takes a second's worth of requests at once, as the sandbox does.

    :param per_second: requests.
    :param asked: seconds that a refusal asks for.
    """

    def __init__(self, per_second: float, asked: float) -> None:
        super().__init__(per_second)
        self.asked = asked

    def pause(self, now: float) -> float:
        return self.asked


class Windows:
    """
    Counts anew in each window, which begins with its first request, as the throttle of the framework Laravel does.

    :param per_second: requests, in the mean of a window.
    :param window: its length in seconds.
    :param asked: seconds that a refusal asks for; ``None`` for those until the window's end.
    """

    def __init__(self, per_second: float, window: float, asked: float | None = None) -> None:
        self.most, self.window, self.asked = per_second * window, window, asked
        self.end, self.counted = float("-inf"), 0

    def admits(self, now: float) -> bool:
        if now >= self.end:
            self.end, self.counted = now + self.window, 0
        self.counted += 1
        return self.counted <= self.most

    def pause(self, now: float) -> float:
        return math.ceil(self.end - now) if self.asked is None else self.asked


class SlidingWindow:
    """
    Takes so many requests in any window, wherever it begins.

    :param per_second: requests, in the mean of a window.
    :param window: its length in seconds.
    :param asked: seconds that a refusal asks for.
    """

    def __init__(self, per_second: float, window: float, asked: float) -> None:
        self.most, self.window, self.asked = per_second * window, window, asked
        self.taken: deque[float] = deque()

    def admits(self, now: float) -> bool:
        while self.taken and self.taken[0] <= now - self.window:
            self.taken.popleft()
        if len(self.taken) >= self.most:
            return False
        self.taken.append(now)
        return True

    def pause(self, now: float) -> float:
        return self.asked


@dataclass
class Session:
    """
    A triggerer that always has jobs to poll.

    :param starts: when it starts, in seconds.
    :param leaves: when it stops.
    :ivar accepted: moments at which requests were accepted.
    :ivar refused: moments at which requests were refused.
    """

    starts: float = 0.0
    leaves: float = float("inf")
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Shares:
    """
    What came of an account in a span of time.

    :param used: the part of the limit that was in use.
    :param refused: the part of the requests that were refused.
    :param ratio: the largest share over the smallest.
    :param longest_gap: the longest time that a session went without an accepted request.
    """

    used: float
    refused: float
    ratio: float
    longest_gap: float


def simulate(sessions: Sequence[Session], account: Account, *, ceiling: float, seconds: float, seed: int) -> None:
    """
    Let sessions share an account.

    :param account: the account.
    :param ceiling: requests a second that each session allows itself at the most.
    :param seconds: how long it goes.
    """
    random = Random(seed)
    paces = [Pace(ceiling) for _ in sessions]
    # Moments of requests that want to start or that arrive; of these, with the start and the moment of the reply.
    events: list[tuple[float, int, float | None, float]] = [
        (session.starts + random.random(), number, None, 0.0) for number, session in enumerate(sessions)
    ]
    heapq.heapify(events)
    refusals: list[tuple[float, int, float, float]] = []
    while events:
        now, number, started, replied = heapq.heappop(events)
        while refusals and refusals[0][0] <= now:
            at, refused, its_start, pause = heapq.heappop(refusals)
            paces[refused].refuse(its_start, at, pause)
        session, pace = sessions[number], paces[number]
        if started is not None:
            if account.admits(now):
                session.accepted.append(now)
            else:
                session.refused.append(now)
                heapq.heappush(refusals, (replied, number, started, account.pause(now)))
            continue
        if now > min(session.leaves, seconds):
            continue
        if (delay := pace.delay(now)) <= 0:
            pace.start(now)
            there, back = (random.uniform(*ROUND_TRIP) / 2 for _ in range(2))
            heapq.heappush(events, (now + there, number, now, now + there + back))
            delay = pace.delay(now)
        heapq.heappush(events, (now + delay + random.uniform(0, LATENESS), number, None, 0.0))


def shares(sessions: Sequence[Session], limit: float, begin: float, end: float) -> Shares:
    """Return what came of an account between two moments; sessions that have left by then do not count."""
    present = [session for session in sessions if session.leaves >= end]
    accepted = [[moment for moment in session.accepted if begin <= moment <= end] for session in present]
    refused = sum(begin <= moment <= end for session in sessions for moment in session.refused)
    total = sum(map(len, accepted))
    gaps = [
        later - earlier
        for moments in accepted
        for earlier, later in zip([begin, *moments], [*moments, end], strict=True)
    ]
    return Shares(
        used=total / (limit * (end - begin)),
        refused=refused / (total + refused),
        ratio=max(map(len, accepted)) / max(1, min(map(len, accepted))),
        longest_gap=max(gaps),
    )
