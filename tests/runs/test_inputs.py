"""Files in payloads, through Airflow's templates and XComs."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.dag_runs import TEST_DAGS, Run, load_dags

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.mark.usefixtures("airflow_database")
def test_files_reach_modelslab_wherever_a_dag_names_them(monkeypatch):
    with TemporaryDirectory(dir="/tmp") as folder, Sandbox(duration=0.2) as sandbox:
        Path(folder, "fox.png").write_bytes(PNG)
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", sandbox.connection)
        run = Run(load_dags(TEST_DAGS / "inputs.py")["inputs"], {"folder": Path(folder).name})
        assert run.state == "success", run.states
        payloads = [job.request.meta for job in sandbox.jobs.values()]
        assert sorted(payload["prompt"] for payload in payloads) == ["nested", "returned", "returned", "templated"]
        assert {requests.get(payload["init_image"], timeout=120).content for payload in payloads} == {PNG}
