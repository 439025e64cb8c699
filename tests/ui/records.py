"""XComs as tasks push them, for the pages of the tests, with media that the sandbox serves."""

from __future__ import annotations

import time
from typing import Any

import requests
from airflow_instance import PATIENCE

from airflow_provider_modelslab.sandbox import Sandbox

PATHS = {
    "image": "v6/images/text2img",
    "video": "v6/video/text2video",
    "audio": "v6/voice/text_to_audio",
    "3d": "v6/3d/text_to_3d",
}


def job(job_id: str, **fields: Any) -> dict[str, Any]:
    """Return the record of a job, a picture that is done unless told otherwise."""
    prompt = fields.pop("prompt", f"picture {job_id}")
    return {
        "id": job_id,
        "endpoint": "v6/images",
        "status": "success",
        "outputs": [],
        "eta": None,
        "message": "",
        "proxy_links": [],
        "nsfw_content_detected": None,
        "generation_time": 3.25,
        "meta": {"prompt": prompt},
        "submitted": time.time() - 7200,
        **fields,
    }


def generated(sandbox: Sandbox, kind: str, prompt: str, **fields: Any) -> dict[str, Any]:
    """Let the sandbox generate something; return its record."""
    path = PATHS[kind]
    family = path.rpartition("/")[0]
    job_id = sandbox.submit(path, {"prompt": prompt})["id"]
    sandbox.finish(job_id)
    reply = requests.post(
        f"{sandbox.url}/api/{family}/fetch/{job_id}", json={"key": sandbox.key}, timeout=PATIENCE
    ).json()
    return job(str(job_id), endpoint=family, outputs=reply["output"], prompt=prompt, **fields)


def waiting(job_id: str, prompt: str, *, eta: float | None, since: float) -> dict[str, Any]:
    """Return the record of a job that was submitted some seconds ago."""
    return job(
        job_id,
        prompt=prompt,
        status="processing",
        eta=eta,
        submitted=time.time() - since,
        generation_time=None,
    )


def failed(job_id: str, prompt: str, message: str) -> dict[str, Any]:
    """Return the record of a job that came to nothing."""
    return job(job_id, prompt=prompt, status="failed", message=message, generation_time=None)
