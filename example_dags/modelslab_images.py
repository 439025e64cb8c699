"""
Three pictures, generated and stored by one task; the next tasks get a file each.

The operator submits the jobs, waits for them without holding a worker, and stores the pictures below *Folder*. If a
generation fails, the others are finished first. It needs the connection `modelslab_default`: your API key as the
password, or a sandbox, whose connection `python -m airflow_provider_modelslab.sandbox` prints.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pendulum
from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

PROMPTS = {
    "lighthouse": "a lighthouse at dusk",
    "fox": "a fox in the snow",
    "harbour": "a harbour in the rain",
}

# One template for a whole payload: its numbers stay numbers, and its texts texts.
PAYLOAD = "{{ {'model_id': params.model_id, 'prompt': %r, 'width': params.size, 'height': params.size} }}"


@dag(
    description="Three pictures, generated and stored by one task.",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "model_id": Param(
            "flux", type="string", minLength=1, title="Model", description="As ModelsLab's list of models names it."
        ),
        "size": Param(512, type="integer", enum=[256, 512, 768, 1024], title="Width and height", description="Pixels."),
        "folder": Param(
            str(Path(tempfile.gettempdir()) / "modelslab"),
            type="string",
            minLength=1,
            title="Folder",
            description="Where to store the pictures: a path on the worker's machine, or a URL such as "
            "s3://aws_default@bucket/pictures.",
        ),
    },
    tags=["modelslab"],
)
def modelslab_images():
    draw = ModelsLabGenerateOperator(
        task_id="draw",
        endpoint="v6/images/text2img",
        payloads={name: PAYLOAD % prompt for name, prompt in PROMPTS.items()},
        output_path="{{ params.folder }}/{{ run_id }}",
        return_files=True,
        deferrable=True,
        timeout=1800,
    )

    @task
    def show(file: str) -> str:
        print("Stored:", file)
        return file

    show.expand(file=draw.output)


modelslab_images()
