"""What an administrator sees: the DAGs that are parsed, the form of the connection and its button "Test"."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS
from airflow_instance import AirflowInstance

from airflow_provider_modelslab.provider_info import CONNECTION_FIELDS
from airflow_provider_modelslab.sandbox import Sandbox

EXAMPLES = {file.stem for file in (Path(__file__).parents[2] / "example_dags").glob("*.py")}

NEEDS_3_1 = {"modelslab_approval"}
"""Where people are asked, by an operator that earlier releases do not have."""

pytestmark = pytest.mark.selection


def test_the_dag_processor_parses_all_examples(airflow: AirflowInstance):
    for dag_id in EXAMPLES - (set() if AIRFLOW_V_3_1_PLUS else NEEDS_3_1):
        airflow.wait_for_dag(dag_id)
    assert airflow.import_errors() == ""


def test_the_form_of_the_connection_names_its_fields(airflow: AirflowInstance):
    form = airflow.connection_form("modelslab")
    assert "modelslab" in form
    # Airflow 3.0 knows no form without Flask AppBuilder, which is not installed with it.
    if AIRFLOW_V_3_1_PLUS or not AIRFLOW_V_3_0_PLUS:
        words = ("API key", *(field["label"] for field in CONNECTION_FIELDS.values()))
        assert [word for word in words if word not in form] == []


@pytest.mark.parametrize(("key", "expected"), [("right", True), ("wrong", False)])
def test_the_test_of_the_connection_tells_whether_the_key_is_right(
    airflow: AirflowInstance, held_sandbox: Sandbox, key: str, expected: bool
):
    connection = json.loads(held_sandbox.connection)
    if key == "wrong":
        connection["password"] = "not-the-key-of-the-sandbox"
    succeeded, message = airflow.test_connection(connection)
    assert succeeded is expected, message
    assert connection["password"] not in message
