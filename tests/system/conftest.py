"""A real Airflow for the tests in this folder: scheduler, triggerer, dag-processor and api-server as processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_instance import AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def slow_sandbox() -> Iterator[Sandbox]:
    """A sandbox whose jobs take long enough that the sensor must defer."""
    with Sandbox(duration=6.0) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def connections(slow_sandbox: Sandbox) -> dict[str, str]:
    """The environment variables with the connections of the instance."""
    return {"AIRFLOW_CONN_MODELSLAB_DEFAULT": slow_sandbox.connection}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, connections: dict[str, str]) -> Iterator[AirflowInstance]:
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    dags.mkdir()
    (dags / "examples").symlink_to(TESTS.parent / "example_dags")
    (dags / "tests").symlink_to(TESTS / "dags")
    with AirflowInstance(home, dags, connections) as instance:
        yield instance
