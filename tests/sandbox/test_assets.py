"""What the sandbox lists as generated."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_modelslab.sandbox import Sandbox
from tests.sandbox.conftest import PROMPT, Post


@pytest.fixture
def sandbox() -> Any:
    with Sandbox(duration=float("inf")) as sandbox:
        yield sandbox


@pytest.mark.parametrize("path", ["assets_generated", "v6/assets_generated"])
def test_what_was_generated_is_listed_by_kind_and_newest_first(sandbox: Sandbox, post: Post, path: str) -> None:
    pictures = [sandbox.submit("v6/images/text2img", PROMPT)["id"] for _ in range(3)]
    (video, running) = (sandbox.submit("v6/video/text2video", PROMPT)["id"] for _ in range(2))
    for job_id in (*pictures, video):
        sandbox.finish(job_id)
    listed = post(path, type="image", per_page=2, page=1).json()
    assert [each["id"] for each in listed["data"]] == pictures[:0:-1]
    assert [each["id"] for each in post(path, type="image", per_page=2, page=2).json()["data"]] == pictures[:1]
    assert [each["id"] for each in post(path, type="video").json()["data"]] == [video]
    assert listed["data"][0]["output"][0].startswith(f"{sandbox.url}/files/")
    assert running in sandbox.jobs


@pytest.mark.parametrize(
    "wrong", [{"type": "fox"}, {}, {"type": "image", "per_page": 31}, {"type": "image", "page": 0}]
)
def test_wrong_parameters_are_refused(post: Post, wrong: dict[str, Any]) -> None:
    assert post("assets_generated", **wrong).json()["status"] == "error"
