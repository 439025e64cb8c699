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
    assert requests.get(job["future_links"][0], timeout=60).ok

def test_each_test_has_its_own(modelslab_sandbox):
    assert modelslab_sandbox.jobs == {}

def test_nothing_is_left():
    assert "AIRFLOW_CONN_MODELSLAB_DEFAULT" not in os.environ
"""


def test_the_fixture(tmp_path: Path) -> None:
    use = tmp_path / "test_use.py"
    use.write_text(USE)
    plugin = "airflow_provider_modelslab.sandbox.pytest_plugin"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        plugin,
        f"--rootdir={tmp_path}",
        str(use),
    ]
    # Where the package is installed, its entry point would load the plugin a second time.
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("AIRFLOW_CONN_MODELSLAB_DEFAULT", None)
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert "3 passed" in outcome.stdout, outcome.stdout + outcome.stderr


def test_imports_cost_no_more_than_they_must() -> None:
    code = """
import sys, pytest
def load(module):
    before = set(sys.modules)
    __import__(module)
    return {name.partition(".")[0] for name in set(sys.modules) - before} - {"airflow_provider_modelslab"}
assert not load("airflow_provider_modelslab.sandbox.pytest_plugin")
assert not load("airflow_provider_modelslab.sandbox.__main__") & {"airflow", "requests"}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
