"""
Submit a video and its sound, wait for both with one sensor, and put them together.

The XCom `jobs` has one record per job, in the order given: that tells whose URL is whose.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sensors import ModelsLabJobSensor


@dag(
    description="A video and its sound, behind one sensor.",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "scene": Param(
            "waves breaking on a rocky shore", type="string", title="Scene", description="What to see and to hear."
        )
    },
    tags=["modelslab"],
)
def modelslab_video_with_audio():
    @task(retries=0, multiple_outputs=False)
    def submit_video(params: dict | None = None) -> dict:
        payload = {"model_id": "cogvideox", "prompt": params["scene"], "num_frames": 25, "fps": 8}
        return ModelsLabHook().submit("v6/video/text2video", payload)

    @task(retries=0, multiple_outputs=False)
    def submit_audio(params: dict | None = None) -> dict:
        return ModelsLabHook().submit("v6/voice/sfx", {"prompt": params["scene"], "duration": 10})

    @task
    def put_together(jobs: list[dict]) -> dict[str, list[str]]:
        video, audio = jobs
        print(f"picture: {video['outputs']}, sound: {audio['outputs']}")
        return {"video": video["outputs"], "audio": audio["outputs"]}

    wait = ModelsLabJobSensor(
        task_id="wait",
        jobs=[submit_video(), submit_audio()],
        deferrable=True,
        timeout=timedelta(hours=2),
    )
    put_together(wait.output["jobs"])


modelslab_video_with_audio()
