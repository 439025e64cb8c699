"""After whole runs on a real Airflow against a server that echoes the API key, the key is where it was put, only."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from airflow_instance import AirflowInstance

from tests.support.echoes import KEYS, EchoServer, traces_in_database, traces_in_files
from tests.system.steps import wait_until_parked

STORED = "echoing_from_the_database"


@pytest.fixture(scope="module")
def in_database() -> Iterator[EchoServer]:
    with EchoServer(KEYS["unicode"]) as server:
        yield server


@pytest.fixture
def airflow_with_both(airflow: AirflowInstance, in_database: EchoServer) -> AirflowInstance:
    airflow.store_connection(STORED, json.loads(in_database.connection))
    return airflow


def assert_no_traces(airflow: AirflowInstance, *servers: EchoServer) -> None:
    """See to it that no log and no column has a key; that of the stored connection is encrypted."""
    for server in servers:
        assert not traces_in_database(airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], server.key)
        assert not traces_in_files(airflow.home, server.key)


@pytest.mark.parametrize("ending", ["success", "failed", "refused"])
def test_no_log_and_no_column_has_the_key(
    airflow_with_both: AirflowInstance, echoing: EchoServer, in_database: EchoServer, ending: str
):
    airflow, servers = airflow_with_both, (echoing, in_database)
    for server in servers:
        server.ending = "processing"
    runs = [
        (dag_id, airflow.trigger(dag_id, {"conn_id": conn_id}))
        for dag_id, conn_id in (
            ("echoes_deferrable", "modelslab_echoing"),
            ("echoes_deferrable", STORED),
            ("echoes_poke", STORED),
        )
    ]
    waits = [(dag_id, run_id) for dag_id, run_id in runs if dag_id == "echoes_deferrable"]
    for run in waits:
        wait_until_parked(airflow, *run, "wait")
    assert_no_traces(airflow, *servers)  # meanwhile: the arguments of the triggers
    for server in servers:
        server.ending = ending
    expected = "success" if ending == "success" else "failed"
    for run in runs:
        assert airflow.wait_for_run(*run) == expected, airflow.failures(*run)
        records = airflow.xcom(*run, "wait", "jobs")
        assert [record["status"] for record in records] == [{"refused": "processing"}.get(ending, ending)]
    assert_no_traces(airflow, *servers)
    assert all(server.server.requests for server in servers)
    logs = [file for file in airflow.home.rglob("*.log") if "echoes_deferrable" in str(file)]
    assert any("Waiting in the triggerer" in log.read_text(errors="replace") for log in logs)
