"""What each process of Airflow learns of the page "Outputs", and what that costs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from airflow_provider_modelslab.ui.plugin import OPERATOR_NAMES, ModelsLabPlugin, tabs


@pytest.mark.parametrize("version", ["3.0.6", "3.1.8", "3.3.2"])
def test_before_3_4_tabs_stand_on_every_task_and_only_where_that_is_wanted(version):
    assert tabs(version, everywhere=False) == []
    assert [tab["destination"] for tab in tabs(version, everywhere=True)] == ["task_instance", "dag_run"]
    assert not any("applies_to" in tab for tab in tabs(version, everywhere=True))


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("version", ["3.4.0b2", "3.10.0"])
def test_from_3_4_tabs_stand_on_our_tasks_and_on_dags_with_our_tag(version, everywhere):
    task, run = tabs(version, everywhere)
    assert task["applies_to"] == {"operator_name": OPERATOR_NAMES}
    assert run["applies_to"] == {"dag.tags.name": ["modelslab"]}


def test_tabs_have_routes_of_their_own():
    """Airflow drops a view whose route another one has."""
    routes = {tab["url_route"] for tab in tabs("3.4.0", everywhere=False)}
    assert len(routes) == 2


def test_tabs_are_found_by_the_names_of_our_operators():
    classes = {ModelsLabGenerateOperator.__name__, ModelsLabJobSensor.__name__}
    assert classes | {"ModelsLabPickOperator", "@task.modelslab"} == set(OPERATOR_NAMES)


def test_the_plugin_says_where_the_page_is():
    assert [app["url_prefix"] for app in ModelsLabPlugin.fastapi_apps] == ["/modelslab"]


def test_workers_import_next_to_nothing():
    code = """
import sys, airflow
from airflow.providers.common.compat.sdk import AirflowPlugin, conf
before = set(sys.modules)
import airflow_provider_modelslab.ui.plugin
print(*sorted(set(sys.modules) - before))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(result.stdout.splitlines()[-1].split()) <= {
        "airflow_provider_modelslab",
        "airflow_provider_modelslab.ui",
        "airflow_provider_modelslab.ui.plugin",
    }
