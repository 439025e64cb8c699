"""Every example DAG runs to its end against the sandbox, unchanged."""

from __future__ import annotations

import ast
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.dag_runs import EXAMPLE_DAGS, Run, load_dags

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture(autouse=True)
def quick_sandbox(monkeypatch) -> Iterator[Sandbox]:
    with Sandbox(duration=1.0) as quick:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", quick.connection)
        yield quick


def run(name: str, conf: dict | None = None) -> Run:
    (dag,) = load_dags(EXAMPLE_DAGS / f"{name}.py").values()
    assert dag.dag_id == name
    return Run(dag, conf)


def test_images(tmp_path: Path, quick_sandbox: Sandbox):
    finished = run("modelslab_images", {"folder": str(tmp_path), "size": 768})
    assert finished.state == "success", finished.states
    assert set(finished.states) == {("draw", -1), ("show", 0), ("show", 1), ("show", 2)}
    files = [Path(finished.xcom("show", map_index=index)) for index in range(3)]
    assert all(file.is_relative_to(tmp_path) for file in files)
    assert {struct.unpack_from(">II", file.read_bytes(), 16) for file in files} == {(768, 768)}
    assert [item["name"] for item in finished.xcom("draw", "manifest")["items"]] == ["lighthouse", "fox", "harbour"]
    assert quick_sandbox.state()["submissions"]["accepted"] == 3


def test_params_reach_modelslab_as_they_were_given(tmp_path: Path, quick_sandbox: Sandbox):
    finished = run("modelslab_images", {"folder": str(tmp_path), "model_id": "42", "size": 256})
    assert finished.state == "success", finished.states
    for job in quick_sandbox.jobs.values():
        assert (job.request.meta["model_id"], job.request.meta["width"]) == ("42", 256)


def test_every_example_says_what_it_is_and_what_its_params_are():
    for file in EXAMPLE_DAGS.glob("*.py"):
        for dag in load_dags(file).values():
            assert dag.description, dag.dag_id
            assert dag.doc_md, dag.dag_id
            for name in dag.params:
                param = dag.params.get_param(name)
                assert param.schema.get("title"), (dag.dag_id, name)
                assert param.description, (dag.dag_id, name)


def test_task_per_url(tmp_path: Path, quick_sandbox: Sandbox):
    finished = run("modelslab_task_per_url", {"folder": str(tmp_path)})
    assert finished.state == "success", finished.states
    assert set(finished.states) == {(task, index) for task in ("submit", "download") for index in range(3)} | {
        ("wait", -1)
    }
    files = [Path(finished.xcom("download", map_index=index)) for index in range(3)]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert quick_sandbox.state()["submissions"]["accepted"] == 3


def test_task_per_url_that_fail(tmp_path: Path, quick_sandbox: Sandbox):
    quick_sandbox.set_faults({"failed": 1.0})
    finished = run("modelslab_task_per_url", {"folder": str(tmp_path)})
    assert finished.state == "failed"
    assert finished.states["wait", -1] == "failed"
    assert not list(tmp_path.iterdir())


def test_video_with_audio():
    finished = run("modelslab_video_with_audio")
    assert finished.state == "success", finished.states
    both = finished.xcom("put_together")
    assert requests.get(both["video"][0], timeout=120).content[4:8] == b"ftyp"
    assert requests.get(both["audio"][0], timeout=120).content.startswith(b"RIFF")


def test_ids_from_outside(quick_sandbox: Sandbox):
    finished = run("modelslab_ids_from_outside")
    assert finished.state == "success", finished.states
    assert len(finished.xcom("collect")) == 5
    own = quick_sandbox.submit("v3/text2img", {"prompt": "a fox", "samples": 2})["id"]
    others = dict.fromkeys(["enterprise_images", "enterprise_video", "v4_dreambooth", "enterprise_flux_headshot"], "")
    finished = run("modelslab_ids_from_outside", {**others, "v3_images": f"[{own}]"})
    assert finished.state == "success", finished.states
    assert len(finished.xcom("collect")) == 2


def test_plain_python():
    finished = run("modelslab_plain_python")
    assert finished.state == "success", finished.states
    (url,) = finished.xcom("wait")
    assert requests.get(url, timeout=120).ok


def test_picture_to_video(quick_sandbox: Sandbox):
    finished = run("modelslab_picture_to_video")
    assert finished.state == "success", finished.states
    _, video = quick_sandbox.jobs.values()
    assert video.request.meta["init_image"] == finished.xcom("draw")[0]
    assert requests.get(finished.xcom("animate")[0], timeout=120).content[4:8] == b"ftyp"


def test_stored_picture(tmp_path: Path, quick_sandbox: Sandbox):
    finished = run("modelslab_stored_picture", {"folder": f"file://{tmp_path}"})
    assert finished.state == "success", finished.states
    _, video = quick_sandbox.jobs.values()
    (file,) = finished.xcom("draw")
    uploaded = requests.get(video.request.meta["init_image"], timeout=120)
    assert uploaded.content == Path(file.removeprefix("file://")).read_bytes()
    assert requests.get(finished.xcom("animate")[0], timeout=120).content[4:8] == b"ftyp"


def test_batch(quick_sandbox: Sandbox):
    finished = run("modelslab_batch", {"animals": ["fox", "owl"]})
    assert finished.state == "success", finished.states
    assert finished.xcom("report") == {"fox": "success", "owl": "success"}
    assert len(quick_sandbox.jobs) == 4


def test_gallery():
    dags = load_dags(EXAMPLE_DAGS / "modelslab_gallery.py")
    drawn = Run(dags["modelslab_gallery"])
    assert drawn.state == "success", drawn.states
    # That the event reaches the visitor is shown on a real scheduler.
    assert len(drawn.xcom("draw")) == 2


def test_approval():
    dags = load_dags(EXAMPLE_DAGS / "modelslab_approval.py")
    if not AIRFLOW_V_3_1_PLUS:
        assert not dags
        return
    # dag.test() has nobody to ask: that the run goes on after an answer is shown on a real scheduler.
    (dag,) = dags.values()
    assert [task.task_id for task in dag.topological_sort()] == ["draw", "pick", "publish"]
    draw: Any = dag.task_dict["draw"]
    for prompt in ("42", "None", "[1, 2]", 'it\'s "a" | fox 🦊\n{{ 7 }} <b>'):
        rendered = draw.render_template(draw.payload, {"params": {"prompt": prompt, "samples": 3}})
        assert ast.literal_eval(rendered) == {"model_id": "flux", "prompt": prompt, "samples": 3}


def test_all_that_import_statements_name_is_there():
    """The dag-processor of Airflow 3.0 imports it all before it parses a file, and ends when that fails."""
    statements = [node for file in EXAMPLE_DAGS.glob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    for name in {node.module for node in statements if isinstance(node, ast.ImportFrom) and node.module}:
        import_module(name)


def test_every_example_is_tested():
    names = {file.stem.removeprefix("modelslab_") for file in EXAMPLE_DAGS.glob("*.py")}
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert names <= tested
