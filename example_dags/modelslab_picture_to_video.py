"""
A picture, and a video made from it: the URL of the one is the input of the other.

Each task submits, waits without holding a worker, and returns the URLs of its outputs.
"""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator


@dag(
    description="Draw a picture, and make a video from it.",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "scene": Param(
            "a lighthouse at dusk, waves on a rocky shore",
            type="string",
            title="Scene",
            description="What the picture, and so the video, shows.",
        )
    },
    tags=["modelslab"],
)
def modelslab_picture_to_video():
    draw = ModelsLabGenerateOperator(
        task_id="draw",
        endpoint="v6/images/text2img",
        payload={"model_id": "flux", "prompt": "{{ params.scene }}", "width": 512, "height": 512},
        deferrable=True,
        timeout=1800,
    )
    animate = ModelsLabGenerateOperator(
        task_id="animate",
        endpoint="v6/video/img2video",
        payload={
            "model_id": "svd",
            "init_image": "{{ ti.xcom_pull(task_ids='draw')[0] }}",
            "num_frames": 25,
        },
        deferrable=True,
        timeout=3600,
    )

    @task
    def show(urls: list[str]) -> None:
        print("The video is at", urls[0])

    draw >> animate
    show(animate.output)


modelslab_picture_to_video()
