"""Every test run has an Airflow home of its own, set before Airflow is imported, and sees no other configuration."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run; HYPOTHESIS_PROFILE=search looks for new ones, for much longer.
UNHURRIED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, max_examples=400, **UNHURRIED)
settings.register_profile("search", max_examples=20_000, **UNHURRIED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

for name in [name for name in os.environ if name.startswith(("AIRFLOW", "MODELSLAB"))]:
    del os.environ[name]

_HOME = tempfile.TemporaryDirectory(prefix="airflow-provider-modelslab-tests-")
_DAGS_FOLDER = Path(_HOME.name) / "dags"
_DAGS_FOLDER.mkdir()
(_DAGS_FOLDER / "examples").symlink_to(Path(__file__).parent.parent / "example_dags")
(_DAGS_FOLDER / "tests").symlink_to(Path(__file__).parent / "dags")
os.environ.update(
    {
        "AIRFLOW_HOME": _HOME.name,
        # Where it is missing, dag.test() of Airflow 3.2 waits for an API of its own that has not come up.
        "AIRFLOW__API_AUTH__JWT_SECRET": "of-these-tests-only" * 4,
        "AIRFLOW__CORE__DAGS_FOLDER": str(_DAGS_FOLDER),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_PROXY": "127.0.0.1,localhost",
    }
)

from airflow_provider_modelslab.sandbox import Sandbox  # noqa: E402
from tests.support.raw_server import RawServer  # noqa: E402


@pytest.fixture(autouse=True)
def no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELSLAB_API_KEY", raising=False)
    monkeypatch.delenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raising=False)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tasks in this process defer at once, and triggers tell at once, unless a test says otherwise."""
    if "airflow_provider_modelslab.triggers" in sys.modules:  # the sandbox's own tests need no Airflow
        from tests.support.pacing import set_policy

        set_policy(monkeypatch)


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """
    A sandbox whose jobs end only when the test says so; the connection ``modelslab_default`` leads to it.

    It has no queue limit: tests of it start sandboxes of their own, and the others may hold hundreds of jobs.
    """
    with Sandbox(duration=float("inf"), queue_limit=None) as held:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", unhurried(held.connection))
        yield held


def unhurried(connection: str) -> str:
    """Return a connection without the ceiling on requests, which is tested by itself and would slow the rest."""
    return json.dumps({**json.loads(connection), "extra": {"requests_per_second": 10_000}})


@pytest.fixture
def raw_server() -> Iterator[RawServer]:
    """A server that records the bytes of requests and answers with bytes that the test chooses."""
    with RawServer() as server:
        yield server


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What hook, trigger, sensor and operator log, at every level, whichever logging the Airflow at hand uses."""
    from airflow_provider_modelslab.hooks import ModelsLabHook
    from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
    from airflow_provider_modelslab.sensors import ModelsLabJobSensor
    from airflow_provider_modelslab.triggers import ModelsLabJobTrigger

    for logging_class in (ModelsLabHook, ModelsLabJobSensor, ModelsLabGenerateOperator, ModelsLabJobTrigger):
        monkeypatch.setattr(logging_class, "log", logging.getLogger(f"under_test.{logging_class.__name__}"))
    caplog.set_level(logging.CRITICAL, logger="airflow_provider_modelslab.sandbox")
    for logger in ("under_test", "airflow_provider_modelslab"):
        caplog.set_level(logging.DEBUG, logger=logger)
    return caplog


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """A migrated metadata database, which ``dag.test()`` needs."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
