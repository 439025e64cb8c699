"""Every test run has an Airflow home of its own, set before Airflow is imported, and sees no other configuration."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

for name in [name for name in os.environ if name.startswith(("AIRFLOW", "MODELSLAB"))]:
    del os.environ[name]

_HOME = tempfile.TemporaryDirectory(prefix="airflow-provider-modelslab-tests-")
os.environ.update(
    {
        "AIRFLOW_HOME": _HOME.name,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_PROXY": "127.0.0.1,localhost",
    }
)


@pytest.fixture(autouse=True)
def no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MODELSLAB_API_KEY", raising=False)
    monkeypatch.delenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raising=False)
    yield
