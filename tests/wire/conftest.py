"""What several tests over real sockets watch."""

from __future__ import annotations

import pytest

from airflow_provider_modelslab._http import async_transport


@pytest.fixture
def opened_sessions(monkeypatch: pytest.MonkeyPatch) -> list[async_transport.Session]:
    """The sessions that clients for event loops have opened so far."""
    opened: list[async_transport.Session] = []
    original = async_transport.Session

    def record(*args: object) -> async_transport.Session:
        opened.append(original(*args))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(async_transport, "Session", record)
    return opened
