"""The pytest fixture ``modelslab_sandbox``. pytest loads this module in every run, so it imports next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_modelslab.sandbox import Sandbox


@pytest.fixture
def modelslab_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    r"""
    Run a fresh sandbox for one test, and make it the connection ``modelslab_default``.

    ::

        def test_pictures_are_stored(modelslab_sandbox):
            modelslab_sandbox.set_faults({"http_502": 0.2})
            job = modelslab_sandbox.submit("v6/images/text2img", {"prompt": "a lighthouse"})
            modelslab_sandbox.finish(job["id"])
            urls = ModelsLabHook().fetch(job["id"], "v6/images").outputs
            assert requests.get(urls[0]).content.startswith(b"\x89PNG")
    """
    from airflow_provider_modelslab.sandbox import Sandbox

    with Sandbox() as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", sandbox.connection)
        yield sandbox
