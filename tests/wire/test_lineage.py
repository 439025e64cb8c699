"""
Which file came from which job, as Airflow's own lineage collector keeps it.

The collector keeps something only where a plugin reads it, so a task is executed in a process that has such a plugin.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from airflow_provider_modelslab._telemetry.lineage import file_uri, job_uri
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.sandbox import Sandbox

PLUGIN = """
from airflow.providers.common.compat.sdk import AirflowPlugin, HookLineageReader

class Reader(AirflowPlugin):
    name = "reads_lineage"
    hook_lineage_readers = [HookLineageReader]
"""

TASKS = {
    "operator": """
task = ModelsLabGenerateOperator(
    task_id="task", endpoint="v6/images/text2img", payloads=[{"prompt": "a fox"}, {"prompt": "a gem"}], output_path=folder
)
""",
    "operator that reuses": """
task = ModelsLabGenerateOperator(
    task_id="task", endpoint="v6/images/text2img", payload={"prompt": "a fox"}, output_path=folder, reuse="always"
)
""",
    "sensor": """
hook = ModelsLabHook()
jobs = [hook.submit("v6/images/text2img", {"prompt": prompt, "samples": 2}) for prompt in ("a fox", "a gem")]
task = ModelsLabJobSensor(task_id="task", jobs=[job.to_dict() for job in jobs], output_path=folder, poke_interval=0.1)
""",
}

EXECUTED = """
import json, sys
from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.tasks import RecordingTaskInstance

folder = sys.argv[1]
{task}
ti = RecordingTaskInstance()
files = task.execute({{"ti": ti, "task": task}})
lineage = get_hook_lineage_collector().collected_assets
print(json.dumps({{
    "files": ti.xcoms["files"],
    "jobs": ti.xcoms["jobs"],
    "inputs": [info.asset.uri for info in lineage.inputs],
    "outputs": [[info.asset.uri, info.asset.extra] for info in lineage.outputs],
}}))
"""


def executed(task: str, folder: Path, home: Path, connection: str, more: str = "") -> dict[str, Any]:
    """
    Execute a task in a process with a plugin that reads lineage; return what it pushed and what was collected.

    :param more: code that runs afterwards, and prints something else than that.
    """
    plugins = home / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    (plugins / "reader.py").write_text(PLUGIN)
    env = {
        **os.environ,
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "AIRFLOW_CONN_MODELSLAB_DEFAULT": connection,
    }
    code = EXECUTED.format(task=TASKS[task]) + more
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).parents[2],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("task", TASKS)
def test_the_collector_has_each_stored_file_with_its_job_as_the_source(task, tmp_path):
    with Sandbox(duration=0.2) as sandbox:
        told = executed(task, tmp_path / "outputs", tmp_path / "home", sandbox.connection)
        host = sandbox.url.removeprefix("http://")
    sources = {job["id"]: f"modelslab://{host}/v6/images/{job['id']}" for job in told["jobs"]}
    assert len(sources) == len(told["jobs"]) >= 1
    assert sorted(told["inputs"]) == sorted(sources.values())
    expected = [
        [f"file://{file}", {"modelslab_job": sources[job["id"]]}]
        for file, job in zip(told["files"], [job for job in told["jobs"] for _ in job["outputs"]], strict=True)
    ]
    assert len(expected) == len(list((tmp_path / "outputs").glob("*.png"))) >= 1
    assert told["outputs"] == expected
    assert sandbox.key not in str(told)


def test_a_folder_of_any_name_has_each_of_its_files_reported(tmp_path):
    with Sandbox(duration=0.2) as sandbox:
        told = executed("sensor", tmp_path / "Füchse & #1?", tmp_path / "home", sandbox.connection)
    assert [uri for uri, _ in told["outputs"]] == [file_uri(file) for file in told["files"]]
    assert len({unquote(urlsplit(uri).path) for uri, _ in told["outputs"]} & set(told["files"])) == 4


def test_files_that_an_earlier_task_has_stored_keep_their_source(tmp_path):
    arguments = "operator that reuses", tmp_path / "outputs", tmp_path / "home"
    with Sandbox(duration=0.2) as sandbox:
        first, second = (executed(*arguments, sandbox.connection) for _ in range(2))
        assert sandbox.state()["submissions"]["accepted"] == 1
    assert second["outputs"] == first["outputs"] != []
    assert second["inputs"] == first["inputs"]


OPENLINEAGE = """
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.utils.state import TaskInstanceState
from types import SimpleNamespace

told = ExtractorManager().extract_metadata(
    dagrun=SimpleNamespace(run_id="run"), task=task, task_instance_state=TaskInstanceState.SUCCESS, task_instance=ti
)
print(json.dumps({
    "files": ti.xcoms["files"],
    "jobs": ti.xcoms["jobs"],
    "inputs": [[dataset.namespace, dataset.name] for dataset in told.inputs],
    "outputs": [[dataset.namespace, dataset.name] for dataset in told.outputs],
    "query": [told.run_facets["externalQuery"].externalQueryId, told.run_facets["externalQuery"].source],
}))
"""


@pytest.mark.parametrize("task", TASKS)
def test_openlineage_is_told_which_task_made_which_file_from_which_job(task, tmp_path):
    pytest.importorskip("airflow.providers.openlineage", reason="Airflow's OpenLineage provider is not installed")
    with Sandbox(duration=0.2) as sandbox:
        told = executed(task, tmp_path / "outputs", tmp_path / "home", sandbox.connection, OPENLINEAGE)
        host = sandbox.url.removeprefix("http://")
    ids = [job["id"] for job in told["jobs"]]
    assert told["query"] == [",".join(ids), "modelslab"]
    assert told["inputs"] == [[f"modelslab://{host}", f"v6/images/{job_id}"] for job_id in ids]
    assert told["outputs"] == [["file", file] for file in told["files"]]


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("/data/a.png", "file:///data/a.png"),
        ("file:///data/a.png", "file:///data/a.png"),
        ("s3://aws_default@bucket/run/a.png", "s3://bucket/run/a.png"),
        ("gs://bucket/a@b.png", "gs://bucket/a@b.png"),
        ("/runs/manual__2026-11-28T12:00:00+00:00/a.png", "file:///runs/manual__2026-11-28T12:00:00+00:00/a.png"),
        ("/data/50% of #1?/b ä.png", "file:///data/50%25%20of%20%231%3F/b%20%C3%A4.png"),
    ],
)
def test_a_file_is_named_without_the_connection(path, uri):
    assert file_uri(path) == uri


@pytest.mark.parametrize(
    ("job", "base_url", "uri"),
    [
        (Job("147", "v6/video"), None, "modelslab://modelslab.com/v6/video/147"),
        (Job("147", "v3"), None, "modelslab://stablediffusionapi.com/v3/147"),
        (Job("147", "v6/video"), "http://me:secret@127.0.0.1:8787/x", "modelslab://127.0.0.1:8787/v6/video/147"),
    ],
)
def test_a_job_is_named_by_its_host_endpoint_and_id(job, base_url, uri):
    assert job_uri(job, base_url) == uri
