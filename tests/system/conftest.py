"""A real Airflow for the tests in this folder: scheduler, triggerer, dag-processor and api-server as processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from airflow_instance import AirflowInstance
from postgres import Postgres

from airflow_provider_modelslab.sandbox import Sandbox
from tests.conftest import unhurried
from tests.support.echoes import KEYS, EchoServer
from tests.support.s3 import Bucket, serve_bucket
from tests.support.statsd import StatsdServer
from tests.system.steps import Memory

TESTS = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the selection first, and its search of the logs right after it: other tests provoke warnings."""

    def place(item: pytest.Item) -> int:
        selection = item.get_closest_marker("selection")
        if selection is None or selection.kwargs.get("provokes_errors"):
            return 2
        return int(selection.kwargs.get("last", False))

    items.sort(key=place)


@pytest.fixture(scope="session")
def held_sandbox() -> Iterator[Sandbox]:
    """
    A sandbox without a queue limit, whose jobs end only when the test says so, however slow the machine is.

    The connections ``modelslab_default`` and, without the ceiling on requests, ``modelslab_held`` lead to it.
    """
    with Sandbox(duration=float("inf"), queue_limit=None) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def echoing() -> Iterator[EchoServer]:
    """A server that puts the API key into all that it says; the connection ``modelslab_echoing``."""
    with EchoServer(KEYS["quotes"]) as server:
        yield server


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket | None]:
    """A bucket on S3, known as ``s3://aws_default@bucket``; ``None`` where neither server nor client is installed."""
    if find_spec("s3fs") and find_spec("moto"):
        with serve_bucket() as bucket:
            yield bucket
    else:
        yield None


@pytest.fixture(scope="session")
def memories(tmp_path_factory: pytest.TempPathFactory, bucket: Bucket | None) -> list[Memory]:
    """Where tasks remember what they have paid for: a ledger in a folder, one on S3, and none."""
    local = Memory("local", {"ledger_path": str(tmp_path_factory.mktemp("ledger"))})
    s3 = Memory("s3", {"ledger_path": "s3://aws_default@bucket/ledger"})
    return [local, Memory("none", {}), *([s3] if bucket else [])]


@pytest.fixture(scope="session")
def statsd() -> Iterator[StatsdServer]:
    """A server that takes the metrics of Airflow's processes."""
    with StatsdServer() as server:
        yield server


@pytest.fixture(scope="session")
def installation(
    tmp_path_factory: pytest.TempPathFactory,
    held_sandbox: Sandbox,
    echoing: EchoServer,
    bucket: Bucket | None,
    statsd: StatsdServer,
) -> Iterator[AirflowInstance]:
    """One Airflow on PostgreSQL for all tests: its start takes long."""
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    dags.mkdir()
    (dags / "examples").symlink_to(TESTS.parent / "example_dags")
    (dags / "tests").symlink_to(TESTS / "dags")
    env = {
        "AIRFLOW_CONN_MODELSLAB_DEFAULT": held_sandbox.connection,
        "AIRFLOW_CONN_MODELSLAB_HELD": unhurried(held_sandbox.connection),
        "AIRFLOW_CONN_MODELSLAB_ECHOING": echoing.connection,
        **({"AIRFLOW_CONN_AWS_DEFAULT": bucket.connection} if bucket else {}),
        **statsd.env,
    }
    with Postgres() as postgres, AirflowInstance(home, dags, env, database=postgres.url) as instance:
        yield instance


@pytest.fixture
def airflow(installation: AirflowInstance) -> AirflowInstance:
    """The Airflow for a test, complete again whatever components the tests before have killed or launched."""
    installation.restore()
    return installation


@pytest.fixture
def connected_sandbox(installation: AirflowInstance) -> Iterator[Callable[..., Sandbox]]:
    """
    Start sandboxes that belong to one test, each known to Airflow's metadata database under the connection named.

    ``connected_sandbox("modelslab_full", queue_limit=5)``; ``extra`` goes into the connection.
    """
    with ExitStack() as stack:

        def start(connection_id: str, extra: Mapping[str, Any] | None = None, **options: Any) -> Sandbox:
            sandbox = stack.enter_context(Sandbox(**options))
            connection = json.loads(unhurried(sandbox.connection))
            connection["extra"] |= extra or {}
            installation.store_connection(connection_id, connection)
            return sandbox

        yield start
