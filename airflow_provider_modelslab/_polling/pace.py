"""
How fast one session may send: never above its ceiling, and more slowly once ModelsLab has refused a request as one too
many. Pure: the time comes in.

Several triggerers and workers may share an account, and they do not know of each other. Each keeps a pace of its own,
along the curve of TCP CUBIC (RFC 9438): after a rate limit it resumes at half the pace, comes back close to the refused
pace within a minute, stays about there, and then climbs ever faster. All climb alike, and the fastest is refused most
often, so their shares become equal. The longer the pause that a refusal asks for, the slower the climb: in it, the
others do not use what the session leaves.
"""

from __future__ import annotations

KEPT = 0.9
"""The part of the refused pace to which a session comes back."""

RECOVERY = 60.0
"""Seconds from half of the refused pace back to that part, after a long pause."""

CLIMB = 2400.0
"""Seconds in which a session climbs by its whole ceiling after that."""

LONG_PAUSE = 7.5
"""Seconds of a pause from which on these times hold; after a shorter one, which costs less, both are shorter, too."""

FLOOR = 0.01
"""The part of the ceiling below which no pace falls, however often requests are refused: some request must find out."""


class Pace:
    """
    The pace of one session, which may be several clients of the same connection.

    :param ceiling: requests a second that the connection allows at the most.
    :ivar quiet_until: until when ModelsLab wants no request.
    """

    def __init__(self, ceiling: float) -> None:
        self.ceiling = ceiling
        self.quiet_until = float("-inf")
        self._next_request = float("-inf")
        self._refused: float | None = None
        self._slowness = 1.0

    @property
    def slowed(self) -> bool:
        """Whether a request has been refused."""
        return self._refused is not None

    def rate(self, now: float) -> float:
        """Return how many requests may start in a second."""
        if self._refused is None:
            return self.ceiling
        recovery, climb = RECOVERY * self._slowness, CLIMB * self._slowness
        since_recovery = now - self.quiet_until - recovery
        plateau = KEPT * self._refused
        if since_recovery < 0:
            missing = plateau - self._refused / 2
            rate = plateau - missing * min(-since_recovery / recovery, 1.0) ** 3
        else:
            rate = plateau + self.ceiling * (since_recovery / climb) ** 3
        return min(max(rate, FLOOR * self.ceiling), self.ceiling)

    def delay(self, now: float) -> float:
        """Return the seconds until the next request may start; none are left where it is below zero."""
        return max(self._next_request, self.quiet_until) - now

    def start(self, now: float) -> None:
        """Count a request that starts. No later one makes up for its lateness: no second exceeds the ceiling."""
        self._next_request = max(self._next_request, now) + 1 / self.rate(now)

    def refuse(self, started: float, now: float, pause: float) -> float:
        """
        Slow down after a rate limit.

        :param started: when the refused request started. Those that were under way with it slow down no further.
        :param pause: seconds that ModelsLab asks to pause.
        :return: seconds by which this pause is longer than one that was asked for before.
        """
        if started >= self.quiet_until:
            self._refused, self._slowness = self.rate(started), 0.0
        self._slowness = max(self._slowness, min(max(pause, 1.0) / LONG_PAUSE, 1.0))
        before = max(self.quiet_until, now)
        self.quiet_until = max(self.quiet_until, now + pause)
        return self.quiet_until - before
