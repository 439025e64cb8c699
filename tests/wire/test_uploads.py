"""Files as inputs: uploaded by the hook, and by the operator right before the submission."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabAuthError, ModelsLabRequestError
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.raw_server import RawServer, reply

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
MIB = 2**20


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "fox.png"
    path.write_bytes(PNG)
    return path


@pytest.mark.parametrize("named", [str, Path, lambda path: ObjectStoragePath(f"file://{path}"), Path.read_bytes])
def test_a_file_is_uploaded_and_can_be_read_at_its_url(sandbox: Sandbox, picture: Path, named):
    served = requests.get(ModelsLabHook().upload(named(picture)), timeout=10)
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


def test_an_upload_that_is_refused_says_why(sandbox: Sandbox, monkeypatch):
    connection = {**json.loads(sandbox.connection), "password": "a-wrong-key-of-enough-length"}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    with pytest.raises(ModelsLabAuthError):
        ModelsLabHook().upload(PNG)


@pytest.mark.parametrize(
    "body", [{"status": "error", "message": "not an image"}, {"status": "success"}, {"status": "processing"}]
)
def test_a_reply_without_a_url_is_an_error(raw_server: RawServer, monkeypatch, body):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply(body))
    with pytest.raises(ModelsLabRequestError, match="upload"):
        ModelsLabHook().upload(PNG)
