"""Templates that give something else when a deferred task resumes, with a real scheduler and triggerer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from airflow_instance import AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import check_run, urls_of_prompt, wait_until_parked

DAG, CONNECTION = "edited_while_deferred", "modelslab_edited"

BEFORE = {"owl": {"prompt": "an owl"}, "hare": {"prompt": "a hare"}, "fox": {"prompt": "a fox"}}
EDITED = {"fox": {"prompt": "another fox"}, "owl": {"prompt": "an owl"}}
"""In another order, shorter, and with another payload under a name."""


def test_a_variable_that_is_edited_while_a_batch_is_deferred_changes_nothing(
    airflow: AirflowInstance, connected_sandbox: Callable[..., Sandbox], tmp_path: Path
):
    sandbox = connected_sandbox(CONNECTION, duration=float("inf"))
    airflow.cli("variables", "set", "modelslab_batch", json.dumps(BEFORE))
    airflow.cli("variables", "set", "modelslab_folder", str(tmp_path / "before"))
    run_id = airflow.trigger(DAG, {"connection": CONNECTION})
    wait_until_parked(airflow, DAG, run_id, "generate")
    airflow.cli("variables", "set", "modelslab_batch", json.dumps(EDITED))
    airflow.cli("variables", "set", "modelslab_folder", str(tmp_path / "edited"))

    for count in (1, 2, 3):  # One job at a time: each of the last two is submitted after a resume.
        wait_until_parked(airflow, DAG, run_id, "generate", deferrals=count)
        assert len(sandbox.jobs) == count
        sandbox.finish_all()
    check_run(airflow, DAG, run_id)

    prompts = [job.request.meta["prompt"] for job in sandbox.jobs.values()]
    assert sorted(prompts) == ["a fox", "a hare", "an owl"]
    manifest = airflow.xcom(DAG, run_id, "generate", "manifest")
    assert [(item["name"], item["payload"], item["outputs"]) for item in manifest["items"]] == [
        (name, payload, urls_of_prompt(sandbox, payload["prompt"])) for name, payload in BEFORE.items()
    ]
    files = [Path(file) for file in airflow.xcom(DAG, run_id, "generate", "files")]
    assert [file.parent for file in files] == [tmp_path / "before"] * 3
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
