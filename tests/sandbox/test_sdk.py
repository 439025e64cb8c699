"""The vendor's own Python SDK, a client that we did not write, against the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.waiting import wait_until

pytest.importorskip("modelslab_py", reason="the SDK is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:modelslab_py")

# The SDK has no types; imported like this, it is Any.
sdk = import_module("modelslab_py.core.client")
apis = {name: import_module(f"modelslab_py.core.apis.{name}") for name in ("community", "video")}
schemas = {name: import_module(f"modelslab_py.schemas.{name}") for name in ("community", "video")}


def finish_what_was_fetched_twice(sandbox: Sandbox) -> None:
    wait_until(lambda: sandbox.state()["requests"]["fetch"] > 1)
    sandbox.finish_all()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox whose jobs are done once a client has asked twice."""
    with Sandbox(duration=float("inf")) as sandbox, ThreadPoolExecutor() as pool:
        finished = pool.submit(finish_what_was_fetched_twice, sandbox)
        yield sandbox
        finished.result()


@pytest.fixture
def client(sandbox: Sandbox) -> Any:
    client = sdk.Client(api_key=sandbox.key, fetch_retry=100_000, fetch_timeout=0.02)
    client.base_url = f"{sandbox.url}/api/"
    return client


def test_an_image(client: Any) -> None:
    community = apis["community"].Community(client=client)
    queued = community.text_to_image(schemas["community"].Text2Image(prompt="a lighthouse at dusk", samples=2))
    assert queued["status"] == "processing"
    done = community.fetch(str(queued["id"]))
    assert (done["status"], done["output"]) == ("success", queued["future_links"])
    assert [requests.get(url, timeout=60).content[:4] for url in done["output"]] == [b"\x89PNG"] * 2


@pytest.mark.parametrize("enterprise", [False, True])
def test_a_video(client: Any, enterprise: bool) -> None:
    video = apis["video"].Video(client=client, enterprise=enterprise)
    queued = video.text_to_video(schemas["video"].Text2Video(model_id="cogvideox", prompt="a lighthouse at dusk"))
    done = video.fetch(str(queued["id"]))
    assert done["status"] == "success"
    assert requests.get(done["output"][0], timeout=60).content[4:8] == b"ftyp"
