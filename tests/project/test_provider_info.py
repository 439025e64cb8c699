"""What Airflow learns of the provider: its metadata, and the connection form as Airflow renders it."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import warnings
from importlib.metadata import distribution
from importlib.resources import files
from typing import Any

import airflow
import jsonschema
import pytest

from airflow_provider_modelslab import __version__, get_provider_info
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.provider_info import CONNECTION_FIELDS

DISTRIBUTION = "airflow-provider-modelslab"
DECLARED_FORMS = tuple(map(int, airflow.__version__.split(".")[:2])) >= (3, 2)
"""Whether this Airflow reads the connection form from the provider info; older ones ask the hook."""


def test_the_entry_point_leads_to_the_provider_info():
    (entry_point,) = (
        each for each in distribution(DISTRIBUTION).entry_points if each.group == "apache_airflow_provider"
    )
    assert entry_point.load() is get_provider_info


def test_it_names_the_distribution():
    """Otherwise the discovery of providers breaks for the whole installation."""
    info = get_provider_info()
    assert info["package-name"] == distribution(DISTRIBUTION).metadata["Name"] == DISTRIBUTION
    assert distribution(DISTRIBUTION).version == __version__


def test_it_satisfies_airflows_schema():
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_the_description_is_shown_as_it_is():
    """Airflow's list of providers takes markup out of it, some releases together with the blanks around it."""
    description = get_provider_info()["description"]
    assert re.fullmatch(r"[\w,. -]+\.", description)
    assert {"Generate", "wait"} <= set(re.findall(r"\w+", description))


def test_every_module_that_it_names_exists():
    info = get_provider_info()
    for kind in ("hooks", "sensors", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)


def test_it_names_the_hook_and_the_hook_agrees():
    (connection_type,) = get_provider_info()["connection-types"]
    assert connection_type["hook-class-name"] == f"{ModelsLabHook.__module__}.{ModelsLabHook.__qualname__}"
    assert connection_type["connection-type"] == ModelsLabHook.conn_type
    assert connection_type["hook-name"] == ModelsLabHook.hook_name


@pytest.fixture
def providers_manager():
    from airflow.providers_manager import ProvidersManager

    return ProvidersManager()


def test_airflow_discovers_the_provider(providers_manager):
    assert providers_manager.providers[DISTRIBUTION].version == __version__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hook = providers_manager.hooks["modelslab"]
    assert not [each for each in caught if "modelslab" in str(each.message).lower()]
    assert (hook.hook_name, hook.connection_id_attribute_name, hook.connection_testable) == (
        "ModelsLab",
        "modelslab_conn_id",
        True,
    )


def test_field_behaviour(providers_manager):
    if not DECLARED_FORMS:
        pytest.importorskip("wtforms", reason="Airflow 3.0 and 3.1 ask no hook for its form without it")
    behaviour = providers_manager.field_behaviours["modelslab"]
    assert sorted(behaviour["hidden_fields"]) == ["extra", "login", "port", "schema"]
    assert behaviour["relabeling"] == {"password": "API key"}
    assert "http://127.0.0.1:8787" in behaviour["placeholders"]["host"]


@pytest.mark.skipif(not DECLARED_FORMS, reason="this Airflow asks the hook for its form")
def test_the_form_as_the_ui_gets_it():
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (form,) = (each for each in HookMetaService.hook_meta_data() if each.connection_type == "modelslab")
    standard: Any = form.standard_fields
    assert standard.password.title == "API key"
    assert standard.host.placeholder
    assert [standard.host.hidden, standard.password.hidden] == [False, False]
    assert [standard.login.hidden, standard.port.hidden, standard.url_schema.hidden] == [True, True, True]
    assert form.extra_fields
    titles = {name: field["schema"]["title"] for name, field in form.extra_fields.items()}
    assert titles == {
        "request_timeout": "Request timeout (seconds)",
        "retries": "Retries of a fetch",
        "requests_per_second": "Requests per second",
        "ca_bundle": "CA bundle",
        "output_hosts": "Hosts of outputs",
        "ledger_path": "Ledger of paid jobs",
        "max_jobs_per_day": "Jobs per day",
        "max_spending_per_day": "Spending per day (estimate)",
        "prices": "Prices",
    }


@pytest.mark.skipif(DECLARED_FORMS, reason="this Airflow reads the form from the provider info")
def test_the_form_that_the_hook_makes(providers_manager):
    pytest.importorskip("flask_appbuilder", reason="Airflow 3.0 and 3.1 show no form of a hook's without it")
    from wtforms import Form

    widgets = {
        info.field_name: info.field
        for info in providers_manager.connection_form_widgets.values()
        if info.hook_class_name.endswith("ModelsLabHook")
    }
    assert set(widgets) == set(CONNECTION_FIELDS)
    form = type("ConnectionForm", (Form,), widgets)(
        data={"retries": 5, "requests_per_second": 0.5, "ca_bundle": "/etc/ca.pem"}
    )
    assert 'value="/etc/ca.pem"' in form.ca_bundle.widget(form.ca_bundle)
    assert form.retries.label.text == "Retries of a fetch"
    assert 'value="5"' in form.retries.widget(form.retries)
    assert 'value="0.5"' in form.requests_per_second.widget(form.requests_per_second)
    assert form.validate()


def test_the_package_imports_nothing_heavy():
    """Airflow loads it in every process."""
    code = "import sys, airflow_provider_modelslab as p; p.get_provider_info(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"airflow", "requests", "aiohttp", "pendulum"} & set(modules)
