from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox

Post = Callable[..., requests.Response]
Poster = Callable[[Sandbox], Post]

PROMPT = {"prompt": "a lighthouse at dusk"}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox without a queue limit, whose jobs run until the test ends them."""
    with Sandbox(duration=float("inf"), queue_limit=None) as sandbox:
        yield sandbox


@pytest.fixture
def poster() -> Poster:
    """Returns what posts to a path of a sandbox's API, with the right key unless another one is given."""

    def poster(sandbox: Sandbox) -> Post:
        def post(path: str, **body: Any) -> requests.Response:
            return requests.post(f"{sandbox.url}/api/{path}", json={"key": sandbox.key, **body}, timeout=60)

        return post

    return poster


@pytest.fixture
def post(sandbox: Sandbox, poster: Poster) -> Post:
    """Posts to the sandbox of the test."""
    return poster(sandbox)
