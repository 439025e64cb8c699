from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

USE = """
import json, os
import requests

def test_it(modelslab_sandbox):
    connection = json.loads(os.environ["AIRFLOW_CONN_MODELSLAB_DEFAULT"])
    assert connection["host"] == modelslab_sandbox.url
    job = modelslab_sandbox.submit("v6/images/text2img", {"prompt": "a lighthouse"})
    assert job["id"] == 30000001
    modelslab_sandbox.finish(job["id"])
    assert requests.get(job["future_links"][0], timeout=10).ok

def test_each_test_has_its_own(modelslab_sandbox):
    assert modelslab_sandbox.jobs == {}

def test_nothing_is_left():
    assert "AIRFLOW_CONN_MODELSLAB_DEFAULT" not in os.environ
"""


def test_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_use.py").write_text(USE)
    plugin = "airflow_provider_modelslab.sandbox.pytest_plugin"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", plugin, "test_use.py"]
    # Where the package is installed, its entry point would load the plugin a second time.
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("AIRFLOW_CONN_MODELSLAB_DEFAULT", None)
    outcome = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert "3 passed" in outcome.stdout, outcome.stdout + outcome.stderr


def test_loading_the_plugin_costs_next_to_nothing() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import airflow_provider_modelslab.sandbox.pytest_plugin\n"
        "new = {name for name in set(sys.modules) - before if not name.startswith('airflow_provider_modelslab')}\n"
        "assert not new, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
