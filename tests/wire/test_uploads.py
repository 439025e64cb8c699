"""Files as inputs: uploaded by the hook, and by the operator right before the submission."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabAuthError, ModelsLabRequestError
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.pacing import FAST, set_policy
from tests.support.raw_server import RawServer, reply
from tests.support.tasks import RecordingTaskInstance, StateStore, deferral_of, run

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
MIB = 2**20


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "fox.png"
    path.write_bytes(PNG)
    return path


@pytest.mark.parametrize("named", [str, Path, lambda path: ObjectStoragePath(f"file://{path}"), Path.read_bytes])
def test_a_file_is_uploaded_and_can_be_read_at_its_url(sandbox: Sandbox, picture: Path, named):
    served = requests.get(ModelsLabHook().upload(named(picture)), timeout=120)
    assert (served.content, served.headers["Content-Type"]) == (PNG, "image/png")


def test_a_file_that_cannot_be_uploaded_is_refused_before_a_request(sandbox: Sandbox, tmp_path: Path):
    large = tmp_path / "large.png"
    large.write_bytes(bytes(5 * MIB + 1))
    empty = tmp_path / "empty.png"
    empty.touch()
    for file, words in [
        (large, r"file: the file .*large.png has 5242881 bytes, and ModelsLab takes 5242880 \(5 MB\) at most"),
        (bytes(7 * MIB), "file has 7340032 bytes"),
        (empty, "empty.png is empty"),
        (b"", "file is empty"),
        (tmp_path / "missing.png", r"missing.png cannot be read \(FileNotFoundError\)"),
        (tmp_path, "cannot be read"),
        (5, "file must be a path or the content of a file, not int"),
        ("nosuch://bucket/a.png", "cannot be read"),
    ]:
        with pytest.raises(ModelsLabArgumentError, match=words):
            ModelsLabHook().upload(file)  # type: ignore[arg-type]
    assert not sandbox.requests


def test_a_file_of_exactly_5_mb_is_uploaded(sandbox: Sandbox):
    content = PNG + bytes(5 * MIB - len(PNG))
    assert requests.get(ModelsLabHook().upload(content), timeout=120).content == content


def test_an_upload_that_is_refused_says_why(sandbox: Sandbox, monkeypatch):
    connection = {**json.loads(sandbox.connection), "password": "a-wrong-key-of-enough-length"}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    with pytest.raises(ModelsLabAuthError):
        ModelsLabHook().upload(PNG)


@pytest.mark.parametrize(
    "body",
    [
        {"status": "error", "message": "not an image"},
        {"status": "success"},
        {"status": "success", "output": "image uploaded"},
        {"status": "success", "output": {"text": "image uploaded"}},
        {"status": "processing"},
    ],
)
def test_a_reply_without_a_url_is_an_error(raw_server: RawServer, monkeypatch, body):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply(body))
    with pytest.raises(ModelsLabRequestError, match="upload"):
        ModelsLabHook().upload(PNG)


# --- the operator ---

IMG2IMG = "v6/images/img2img"


def stored(path: Path) -> ObjectStoragePath:
    return ObjectStoragePath(f"file://{path}")


def operator(**arguments: Any) -> ModelsLabGenerateOperator:
    return ModelsLabGenerateOperator(
        **{"task_id": "draw", "endpoint": IMG2IMG, "deferrable": True, "poke_interval": 0.01, **arguments}
    )


def payloads_of(sandbox: Sandbox) -> list[Any]:
    return [job.request.meta for job in sandbox.jobs.values()]


def uploads_to(sandbox: Sandbox) -> int:
    count: int = sandbox.state()["requests"]["upload"]
    return count


@pytest.fixture
def context(monkeypatch) -> dict[str, Any]:
    set_policy(monkeypatch, **FAST)
    return {"ti": RecordingTaskInstance(), "task_state_store": StateStore()}


def test_a_file_in_a_payload_is_uploaded_before_the_submission(sandbox: Sandbox, context, picture: Path):
    payload = {"prompt": "a fox", "init_image": stored(picture), "more": {"images": [stored(picture)]}}
    run(operator(payload=payload), context, lambda deferrals: sandbox.finish_all())
    (meta,) = payloads_of(sandbox)
    assert requests.get(meta["init_image"], timeout=120).content == PNG
    assert meta == {"prompt": "a fox", "init_image": meta["init_image"], "more": {"images": [meta["init_image"]]}}
    kinds = [request.path for request in sandbox.requests if request.method == "POST"]
    assert kinds[:2] == ["/api/v6/base64_to_url", f"/api/{IMG2IMG}"]
    assert uploads_to(sandbox) == 1


def test_a_batch_uploads_each_content_once_however_often_it_resumes(sandbox: Sandbox, context, tmp_path: Path):
    files = [tmp_path / f"{index}.png" for index in range(4)]
    for file, content in zip(files, (PNG, PNG, PNG + b"2", PNG), strict=True):
        file.write_bytes(content)
    payloads = {file.name: {"prompt": "a fox", "init_image": stored(file)} for file in files}
    batch = operator(payloads=payloads, max_in_flight=1)
    urls = run(batch, context, lambda deferrals: sandbox.finish_all(), resumed=operator(payloads=payloads))
    assert len(urls) == len(payloads_of(sandbox)) == 4
    assert uploads_to(sandbox) == 2
    first, second, third, fourth = (meta["init_image"] for meta in payloads_of(sandbox))
    assert first == second == fourth != third
    shown = context["ti"].xcoms["manifest"]["items"][0]["payload"]["init_image"]
    assert shown.startswith("file sha256:")


def test_a_retry_re_attaches_by_the_content_of_the_file(sandbox: Sandbox, context, picture: Path, tmp_path: Path):
    deferral_of(operator(payload={"prompt": "a fox", "init_image": stored(picture)}), context)
    copy = picture.rename(tmp_path / "copy.png")
    again = operator(payload={"prompt": "a fox", "init_image": stored(copy)})
    run(again, context, lambda deferrals: sandbox.finish_all())
    assert (len(sandbox.jobs), uploads_to(sandbox)) == (1, 1)
    copy.write_bytes(PNG + b"another picture")
    run(operator(payload={"prompt": "a fox", "init_image": stored(copy)}), context, lambda _: sandbox.finish_all())
    assert (len(sandbox.jobs), uploads_to(sandbox)) == (2, 2)


def test_a_missing_file_is_refused_before_anything_is_paid_for(sandbox: Sandbox, context, picture: Path):
    missing = stored(picture.with_name("missing.png"))
    payloads = {"there": {"prompt": "x", "init_image": stored(picture)}, "not": {"prompt": "x", "images": [missing]}}
    with pytest.raises(ModelsLabArgumentError, match=r"payloads\['not'\]\['images'\]\[0\]: the file .*missing.png"):
        operator(payloads=payloads).execute(context)
    assert not sandbox.requests


def test_a_file_that_changes_while_the_task_waits_is_not_taken_for_the_first(sandbox, context, picture: Path):
    payloads = {"a": {"prompt": "x"}, "b": {"prompt": "y", "init_image": stored(picture)}}

    def change(deferrals: int) -> None:
        picture.write_bytes(PNG + b"changed")
        sandbox.finish_all()

    with pytest.raises(ModelsLabArgumentError, match="has changed since the task started"):
        run(operator(payloads=payloads, max_in_flight=1), context, change)
    assert len(sandbox.jobs) == 1


def test_a_string_never_names_a_file(sandbox: Sandbox, context, picture: Path):
    """A payload may come from anybody who may trigger the DAG; only its author writes path objects."""
    payload = {"prompt": "x", "init_image": str(picture), "mask_image": f"file://{picture}", "x": "file sha256:0"}
    run(operator(payload=json.dumps(payload)), context, lambda deferrals: sandbox.finish_all())
    assert payloads_of(sandbox) == [payload]
    assert uploads_to(sandbox) == 0
