"""
Submit pictures in tasks of your own, wait for all of them with one sensor, and hand each URL to a task of its own.

The submissions have no retries: a second submission is a second job, and is billed again.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pendulum
import requests
from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

PROMPTS = ["a lighthouse at dusk", "a fox in the snow", "a harbour in the rain"]


@dag(
    description="Submit in tasks of your own, wait with one sensor, and handle each picture in its own task.",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "model_id": Param("flux", type="string", title="Model", description="As ModelsLab's list of models names it."),
        "folder": Param(
            str(Path(tempfile.gettempdir()) / "modelslab"),
            type="string",
            minLength=1,
            title="Folder",
            description="Where the tasks write the pictures, on the worker's machine.",
        ),
    },
    tags=["modelslab"],
)
def modelslab_task_per_url():
    @task(retries=0, multiple_outputs=False, map_index_template="{{ prompt }}")
    def submit(prompt: str, params: dict | None = None) -> dict:
        payload = {"model_id": params["model_id"], "prompt": prompt, "width": 512, "height": 512, "samples": 1}
        return ModelsLabHook().submit("v6/images/text2img", payload)

    # A finished file may take some seconds to appear on the CDN: retries cost nothing here.
    @task(retries=3, retry_delay=timedelta(seconds=10))
    def download(url: str, params: dict | None = None) -> str:
        folder = Path(params["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / Path(urlsplit(url).path).name  # a signed URL has a long query
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


modelslab_task_per_url()
