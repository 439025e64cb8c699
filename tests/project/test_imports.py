"""Every module imports without a deprecation warning, on whichever Airflow is installed."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

import airflow_provider_modelslab
from tests.project.test_architecture import PURE

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(airflow_provider_modelslab.__path__, "airflow_provider_modelslab.")
    if not module.name.endswith(("__main__", "ui.server"))  # the api-server of Airflow 3 alone imports that
    if AIRFLOW_V_3_1_PLUS or not module.name.endswith(".picking")
)
LIGHT = [
    *PURE,
    *(
        f"airflow_provider_modelslab.{name}"
        for name in "endpoints jobs _http.connection _outputs.names _outputs.media_types".split()
    ),
]


def run(code: str, *options: str) -> str:
    result = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


WARNINGS_ARE_ERRORS = (
    *("-W", "error::DeprecationWarning"),
    *("-W", "ignore:SelectableGroups dict interface"),  # of Airflow 3.2's OpenTelemetry, on Python 3.11
)


def test_no_module_warns_of_a_deprecation():
    """In one process of its own, with such warnings being errors from the start."""
    output = run("\n".join([*(f"import {name}" for name in MODULES), "print('imported')"]), *WARNINGS_ARE_ERRORS)
    assert "imported" in output


def test_the_pure_modules_load_neither_airflow_nor_http_clients():
    loaded = run(f"import sys, {', '.join(LIGHT)}; print(*sys.modules)").split()
    assert set(LIGHT) < set(loaded)
    assert not {"airflow", "requests", "aiohttp"} & set(loaded)


@pytest.mark.parametrize("module", [f"airflow_provider_modelslab.{name}" for name in "sensors operators hooks".split()])
def test_http_clients_are_left_to_those_who_send_requests(module):
    """Parsing a DAG and resuming a task must not pay for them. Airflow 2 imports some of them itself."""
    airflow = "import sys, airflow.providers.common.compat.sdk, airflow.triggers.base; before = set(sys.modules)"
    loaded = run(f"{airflow}; import {module}; print(*set(sys.modules) - before)").split()
    assert module in loaded
    assert not {"aiohttp", "requests", "urllib3"} & set(loaded)


def test_the_sandbox_imports_no_airflow():
    loaded = run("import sys, airflow_provider_modelslab.sandbox; print(*sys.modules)").split()
    assert "airflow" not in loaded


def test_the_pytest_plugin_is_light():
    loaded = run("import sys, airflow_provider_modelslab.sandbox.pytest_plugin; print(*sys.modules)").split()
    assert not {"airflow", "aiohttp", "requests"} & set(loaded)
