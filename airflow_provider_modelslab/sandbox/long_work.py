"""
Trainings and workflow runs: how the API names them, and what it says of them while they go on.

Pure: a job goes in, a reply comes out. All of these wrap the true state under an outer ``"status": "success"``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_modelslab.sandbox import replies
from airflow_provider_modelslab.sandbox.http import Reply, json_reply
from airflow_provider_modelslab.sandbox.state import Job

_FINE_TUNING_STATES = (
    "deploying_gpu",
    "training_started",
    "training_success",
    "trained_model_compressing",
    "trained_model_uploading",
    "trained_model_uploaded",
    "deploying_model",
)
"""What a training of v3 goes through before it is ``model_ready``."""

_TRAINED = 0.8
"""The share of its duration after which a training is completed; in the rest, its model gets ready for inference."""

EXPORTED_BY = "hf_repo"
"""The parameter of a training whose model goes elsewhere: it never gets ready for inference."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """
    A kind of work.

    :param start: the path below ``/api/`` that starts one.
    :param id_form: what its ids look like.
    :param key_in: where its requests have the key.
    :param started: the reply to the start.
    :param state: the reply that tells how it stands, from the job and the share of its duration that has passed.
    """

    start: str
    id_form: Literal["number", "uuid", "short"]
    key_in: Literal["body", "header"]
    started: Callable[[Job, str], Reply]
    state: Callable[[Job, float, str], Reply]


def work_of(endpoint: str) -> Work | None:
    """Return the work that goes by an endpoint, for example ``v6/trainer``; ``None`` for generations."""
    return next((work for pattern, work in _WORKS.items() if re.fullmatch(pattern, endpoint)), None)


def endpoint_of_start(path: str) -> str | None:
    """Return the endpoint of the work that a path starts; ``None`` for a generation endpoint."""
    for endpoint in (path, path.rpartition("/")[0]):
        work = work_of(endpoint)
        if work is not None and work.start.format(endpoint=endpoint) == path:
            return endpoint
    return None


def stopped(message: str) -> Reply:
    """Return the reply to a request that has stopped something."""
    return json_reply({"status": "success", "message": message})


def not_found(what: str) -> Reply:
    """Return the reply to a request about something that is not there, such as a training."""
    return replies.error(f"{what} not found.", 404)


def _training_started(job: Job, base_url: str) -> Reply:
    return json_reply({"status": "success", "message": "training_started", "id": job.public_id})


def _training_state(job: Job, share: float, base_url: str) -> Reply:
    data: dict[str, Any] = {
        "id": job.public_id,
        "status": "training_started",
        "config": job.request.meta,
        "inference": None,
        "response_dump": None,
    }
    if job.stopped:
        data |= {"status": "training_completed"}
    elif job.status == "failed":
        data |= {"status": "training_cancelled", "response_dump": job.failure}
    elif job.status == "success" or share >= _TRAINED:
        data |= {"status": "training_completed", "inference": _inference(job)}
    return json_reply({"status": "success", "message": data["status"], "data": data})


def _inference(job: Job) -> Mapping[str, Any] | None:
    if job.request.meta.get(EXPORTED_BY):
        return None
    if job.status != "success":
        return {"status": "deploying"}
    model = f"lora-{job.token[:8]}"
    body = {"model_id": "flux", "lora_model": model, "prompt": "…"}
    return {"status": "ready", "model_id": model, "request": {"endpoint": "v6/images/text2img", "body": body}}


def _fine_tuning_started(job: Job, base_url: str) -> Reply:
    more = {"data": "it will take upto 30 minutes.", "training_id": job.public_id}
    return json_reply({"status": "success", "messege": _FINE_TUNING_STATES[0], **more})


def _fine_tuning_state(job: Job, share: float, base_url: str) -> Reply:
    if job.status == "failed":  # No state of failure is documented.
        return json_reply({"status": "failed", "messege": job.failure})
    done = job.status == "success"
    step = len(_FINE_TUNING_STATES) if done else int(min(share, 0.99) * len(_FINE_TUNING_STATES))
    state = "model_ready" if done else _FINE_TUNING_STATES[step]
    told = f"Step:{step + 1} {state}, {len(_FINE_TUNING_STATES) - step} Steps to go"
    return json_reply({"status": "success", "messege": state, "data": told})


def _run_started(job: Job, base_url: str) -> Reply:
    endpoint = job.request.endpoint
    body = {
        "status": "success",
        "message": "Workflow execution started.",
        "execution_id": job.id,
        "workflow_id": endpoint.rpartition("/")[2],
        "status_url": f"{base_url}/api/{endpoint}/runs/{job.id}",
        "webhook_url": job.request.webhook,
    }
    return json_reply(body, 202)


def _run_state(job: Job, share: float, base_url: str) -> Reply:
    if job.stopped:
        state = "cancelled"
    elif job.status == "processing":
        state = "running" if share >= 1 - _TRAINED else "pending"
    else:
        state = {"success": "completed", "failed": "failed"}[job.status]
    body: dict[str, Any] = {
        "status": "success",
        "execution": {
            "id": job.id,
            "workflow_id": job.request.endpoint.rpartition("/")[2],
            "status": state,
            "execution_time": None if job.finished is None else round(job.generation_time, 3),
        },
        "steps": [{"name": "Text to Image", "status": state}],
    }
    if state == "completed":
        files = replies.output_urls(job, base_url)
        copies = replies.output_urls(job, base_url, "proxy")
        body["output"] = {"output": files, "proxy_links": copies, "status": "success"}
    if state == "failed":
        body["error"] = job.failure
    return json_reply(body)


_WORKS: Mapping[str, Work] = {
    r"v6/trainer": Work(
        start="{endpoint}/train",
        id_form="uuid",
        key_in="body",
        started=_training_started,
        state=_training_state,
    ),
    r"v3/lora_fine_tune": Work(
        start="{endpoint}",
        id_form="short",
        key_in="body",
        started=_fine_tuning_started,
        state=_fine_tuning_state,
    ),
    r"v1/workflows/[^/]+": Work(
        start="{endpoint}/run",
        id_form="number",
        key_in="header",
        started=_run_started,
        state=_run_state,
    ),
}
