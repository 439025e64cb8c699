"""
A stored picture becomes a video: a file of your own storage is the input of a generation.

The `ObjectStoragePath` in the payload is read when the task starts, and uploaded right before the submission. Here the
picture is one that an earlier task has stored; its URL may have died, and the file is still there.
"""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator


@dag(
    description="Store a picture, and make a video from the file.",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "folder": Param(
            "file:///tmp/modelslab",
            type="string",
            minLength=1,
            title="Folder",
            description="Where the picture is stored: for example s3://aws_default@bucket/pictures.",
        )
    },
    tags=["modelslab"],
)
def modelslab_stored_picture():
    draw = ModelsLabGenerateOperator(
        task_id="draw",
        endpoint="v6/images/text2img",
        payload={"model_id": "flux", "prompt": "a fox in the snow", "width": 512, "height": 512},
        output_path="{{ params.folder }}/{{ run_id }}",
        return_files=True,
        deferrable=True,
        timeout=1800,
    )

    @task.modelslab(endpoint="v6/video/img2video", deferrable=True, timeout=3600)
    def animate(files: list[str]) -> dict:
        return {"model_id": "svd", "init_image": ObjectStoragePath(files[0]), "num_frames": 25}

    @task
    def show(urls: list[str]) -> None:
        print("The video is at", urls[0])

    show(animate(draw.output))


modelslab_stored_picture()
