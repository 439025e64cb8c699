"""The latest requests, for tests to read. Bounded, because a sandbox may run for days."""

from __future__ import annotations

from collections import deque

from airflow_provider_modelslab.sandbox.http import ReceivedRequest


class RequestLog:
    """
    Keeps the latest requests.

    :param max_requests: how many.
    :param max_bytes: how many bytes of their bodies.
    """

    def __init__(self, max_requests: int = 20_000, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._requests: deque[ReceivedRequest] = deque()
        self._bytes = 0

    def add(self, request: ReceivedRequest) -> None:
        """Keep a request, and drop the oldest ones that are too many."""
        self._requests.append(request)
        self._bytes += len(request.body)
        while len(self._requests) > self._max_requests or self._bytes > self._max_bytes:
            self._bytes -= len(self._requests.popleft().body)

    def requests(self) -> list[ReceivedRequest]:
        """Return the requests, oldest first."""
        return list(self._requests)
