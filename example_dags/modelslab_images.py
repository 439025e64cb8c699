"""
Submit images, wait for them without holding a worker, and hand each URL to a task of its own.

Needs the connection ``modelslab_default``: your API key as the password, or a sandbox
(``python -m airflow_provider_modelslab.sandbox`` prints its connection).
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import pendulum
import requests
from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

PROMPTS = ["a lighthouse at dusk", "a fox in the snow", "a harbour in the rain"]


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"model_id": "flux", "folder": str(Path(tempfile.gettempdir()) / "modelslab")},
    tags=["modelslab"],
)
def modelslab_images():
    # No retries: a second submission is a second job, and is billed again.
    @task(retries=0, multiple_outputs=False, map_index_template="{{ prompt }}")
    def submit(prompt: str, params: dict | None = None) -> dict:
        payload = {"model_id": params["model_id"], "prompt": prompt, "width": 512, "height": 512, "samples": 1}
        return ModelsLabHook().submit("v6/images/text2img", payload)

    # A finished file may take some seconds to appear on the CDN: retries cost nothing here.
    @task(retries=3, retry_delay=timedelta(seconds=10))
    def download(url: str, params: dict | None = None) -> str:
        folder = Path(params["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / url.rpartition("/")[2]
        response = requests.get(url, timeout=60)
        response.raise_for_status()
        file.write_bytes(response.content)
        print(f"{url} is in {file}")
        return str(file)

    wait = ModelsLabJobSensor(
        task_id="wait",
        jobs=submit.expand(prompt=PROMPTS),
        deferrable=True,
        timeout=timedelta(minutes=30),
    )
    download.expand(url=wait.output)


modelslab_images()
