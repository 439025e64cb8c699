"""
The kinds of work that are no generation: trainings and runs of workflows.

One table says how each is started, asked for and cancelled, and one function for each reads its replies. The ``status``
of such a reply is always ``success``; the true state stands deeper, or in another field. So each function returns the
reply that a generation in the same state would give, and :mod:`airflow_provider_modelslab._protocol.replies` stays
the only place that says what a reply means. A word that is not known means that the work goes on. Pure.

Sources: the pages "Training Status", "Stop Training", "Get Training Status", "Run Workflow", "Get Execution Status" and
"Cancel Execution" of the vendor's documentation; the further names of a training's id are from public clients.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeGuard
from urllib.parse import quote

from airflow_provider_modelslab._protocol.http_request import HttpRequest
from airflow_provider_modelslab._protocol.masking import mask_secrets
from airflow_provider_modelslab._protocol.outputs import find_copies, find_outputs
from airflow_provider_modelslab.endpoints import api_url, fetch_request, submission_url
from airflow_provider_modelslab.jobs import Job

KEY_HEADER = "key"
"""The header in which the workflows' API takes the key."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """
    A request about one piece of work.

    :param path: its path below ``/api/``, with ``{endpoint}`` and, mostly, ``{id}``.
    :param method: the HTTP method.
    :param id_field: the field of the body that holds the id, where the path does not.
    """

    path: str
    method: Literal["GET", "POST"] = "POST"
    id_field: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """
    A kind of work.

    :param name: what people call it.
    :param endpoint: what stands for a family in :class:`~airflow_provider_modelslab.jobs.Job`; a pattern.
    :param start: the path that starts one, with ``{endpoint}``.
    :param ask: the request for its state.
    :param cancel: the request that cancels it, or ``None``.
    :param read: returns what a generation in the same state would answer; takes the reply and the id.
    :param ids: the fields of the reply to the start that may hold the id.
    :param key_in: where the key travels.
    :param has_files: whether its outputs are files.
    :param costs: what it costs while it goes on, for a sentence in a log.
    """

    name: str
    endpoint: str
    start: str
    ask: Call
    cancel: Call | None
    read: Callable[[Document, str], Document]
    ids: tuple[str, ...]
    key_in: Literal["body", "header"] = "body"
    has_files: bool = False
    costs: str = "is paid for"


def endpoint_of_address(path: str) -> str | None:
    """Return the endpoint of the work that an address is about, such as ``v6/trainer/status``; ``None`` for others."""
    parents = (path.rsplit("/", cut)[0] for cut in range(1, path.count("/") + 1))
    return next((parent for parent in parents if kind_of(parent)), None)


@lru_cache(maxsize=256)
def kind_of(endpoint: str) -> Kind | None:
    """Return the kind of work that has this endpoint; ``None`` for a family of generations."""
    return next((kind for kind in KINDS if re.fullmatch(kind.endpoint, endpoint)), None)


def kind_started_by(path: str) -> Kind | None:
    """Return the kind of work that a path starts; ``None`` for a generation endpoint."""
    endpoint = path if kind_of(path) else path.rpartition("/")[0]
    kind = kind_of(endpoint)
    return kind if kind and kind.start.format(endpoint=endpoint) == path else None


def is_cancelled(job: Job) -> bool:
    """Whether a job is the run of a workflow that somebody has cancelled."""
    execution = job.meta.get("execution") if kind_of(job.endpoint) else None
    return isinstance(execution, dict) and _word(execution.get("status")) == "cancelled"


def ask_request(job: Job, key: str, base_url: str | None = None) -> HttpRequest:
    """
    Return the request that asks for a job of any kind.

    :param job: the job.
    :param key: the API key.
    :param base_url: replaces the scheme and the host of the official address.
    """
    kind = kind_of(job.endpoint)
    if kind is None:
        return HttpRequest(*fetch_request(job.endpoint, job.id, key, base_url, host=job.host, id_in=job.id_in))
    return _request(kind, kind.ask, job, key, base_url)


def start_request(path: str, payload: Mapping[str, Any], key: str, base_url: str | None = None) -> HttpRequest:
    """
    Return the request that submits a generation, or starts work of another kind.

    :param path: the path of the generation endpoint, or the one that starts the work.
    :param payload: its parameters, without the key.
    :param key: the API key.
    :param base_url: replaces the scheme and the host of the official address.
    """
    kind, url = kind_started_by(path), submission_url(path, base_url)
    if kind is None or kind.key_in == "body":
        return HttpRequest(url, {**payload, "key": key})
    return HttpRequest(url, payload, headers={KEY_HEADER: key})


def cancel_request(job: Job, key: str, base_url: str | None = None) -> HttpRequest:
    """
    Return the request that cancels a job.

    :raises ValueError: ModelsLab has none for this kind of work.
    """
    kind = kind_of(job.endpoint)
    if kind is None or kind.cancel is None:
        what = "a generation" if kind is None else f"a {kind.name} of {job.endpoint}"
        raise ValueError(f"job {job} cannot be cancelled: ModelsLab has no request that cancels {what}")
    return _request(kind, kind.cancel, job, key, base_url)


def read_started(path: str, reply: Document) -> Document:
    """
    Return the reply to a start as a generation's queue would have answered.

    :param path: the path that was called; the reply of a generation comes back as it is.
    :param reply: the reply's JSON object.
    """
    kind = kind_started_by(path)
    return reply if kind is None else _started(kind, reply)


def read_state(endpoint: str, job_id: str, reply: Document) -> Document:
    """
    Return the reply to a poll as a generation in the same state would have answered.

    :param endpoint: the endpoint that was asked; the reply of a generation comes back as it is.
    :param job_id: the id that was asked for.
    :param reply: the reply's JSON object.
    """
    kind = kind_of(endpoint)
    if kind is None:
        return reply
    if not kind.has_files:
        reply = mask_secrets(reply)
    return reply if _is_error(reply) else kind.read(reply, job_id)


def read_by_others(reply: Mapping[str, Any], endpoint: str | None) -> tuple[Document, str | None]:
    """
    Return the reply to a start that another client received, as a generation's, and its endpoint.

    :param reply: the reply.
    :param endpoint: the endpoint that the user names, if any; the ``status_url`` of a workflow's run tells it, too.
    """
    run = _run_of(reply)
    endpoint = run["endpoint"] if run else endpoint
    kind = None if endpoint is None else kind_of(endpoint)
    return (dict(reply), endpoint) if kind is None else (_started(kind, dict(reply)), endpoint)


# --- reading --------------------------------------------------------------------------------------------


def _started(kind: Kind, reply: Document) -> Document:
    if _is_error(reply):
        return reply
    places = list(filter(_is_object, (reply.get("execution"), reply, reply.get("data"))))
    # What a kind calls its ids first says more than where it stands.
    named = next((place[name] for name in kind.ids for place in places if place.get(name)), None)
    if named is None and (run := _run_of(reply)) and kind_of(run["endpoint"]) is kind:
        named = run["id"]  # of the address, no more than the id is used
    started = {name: value for name, value in reply.items() if name not in ("id", "fetch_result")}
    return {**started, "status": "processing"} | ({} if named is None else {"id": named})


def _run_of(reply: Mapping[str, Any]) -> re.Match[str] | None:
    """Return the run of a workflow that the ``status_url`` of a reply names."""
    return _RUN_URL.search(str(reply.get("status_url") or ""))


def _is_object(value: Any) -> TypeGuard[Document]:
    return isinstance(value, dict)


def _is_error(reply: Mapping[str, Any]) -> bool:
    return _word(reply.get("status")) in ("error", "failed")


def _read_training(reply: Document, job_id: str) -> Document:
    """Read a training of the trainer: ``{"status": "success", "message": …, "data": {"status": …, …}}``."""
    data = reply.get("data")
    data = data if isinstance(data, dict) else {}
    state = _word(data.get("status")) or _word(reply.get("message")) or _word(reply.get("messege"))
    if state == "training_cancelled":
        return {"status": "failed", "message": data.get("response_dump") or "The training failed", "meta": data}
    if state != "training_completed":
        return {"status": "processing", "message": state, "meta": data}
    inference = data.get("inference")
    if isinstance(inference, dict) and _word(inference.get("status")) == "ready":
        return {"status": "success", "output": [_model_id(inference) or job_id], "meta": data}
    # A success without an output means "not yet": how long that counts is decided where the waits are.
    return {"status": "success", "message": "completed, but not ready for inference", "meta": data}


def _model_id(inference: Mapping[str, Any]) -> str:
    names = ("lora_model", "lora_model_id", "model_id")  # Beside "lora_model", "model_id" would be the base model.
    return next((str(inference[name]) for name in names if inference.get(name)), "")


def _read_fine_tuning(reply: Document, job_id: str) -> Document:
    """Read a training of v3: the state stands in ``messege``. No state of failure is documented."""
    state = _word(reply.get("messege")) or _word(reply.get("message"))
    told = {"message": state, "meta": {"data": reply["data"]} if reply.get("data") else {}}
    if state != "model_ready":
        return {"status": "processing", **told}
    return {"status": "success", "output": [job_id], **told}


def _read_run(reply: Document, job_id: str) -> Document:
    """Read a run of a workflow: ``{"status": "success", "execution": {"status": …}, "output": …, "steps": […]}``."""
    execution = reply.get("execution")
    execution = execution if isinstance(execution, dict) else {}
    state = _word(execution.get("status"))
    told = {
        "message": state,
        "meta": {name: reply[name] for name in ("execution", "steps") if reply.get(name)},
        "generationTime": execution.get("execution_time"),
    }
    if state in ("failed", "cancelled"):
        reason = reply.get("error") or execution.get("error") or f"The run is {state}"
        return {**told, "status": "failed", "message": reason}
    if state != "completed":
        return {**told, "status": "processing"}
    return {**told, "status": "success", "output": find_outputs(reply), "proxy_links": find_copies(reply)}


def _word(value: Any) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


# --- the table ------------------------------------------------------------------------------------------

_TRAINING_IDS = ("training_id", "id", "request_id")

KINDS = (
    Kind(
        name="training",
        endpoint=r"v6/trainer",
        start="{endpoint}/train",
        ask=Call("{endpoint}/status/{id}"),
        cancel=Call("{endpoint}/stop", id_field="training_id"),
        read=_read_training,
        ids=_TRAINING_IDS,
        costs="is billed by the hour",
    ),
    Kind(
        name="training",
        endpoint=r"v3/lora_fine_tune",
        start="{endpoint}",
        ask=Call("v3/fine_tune_status/{id}"),
        cancel=None,  # The vendor's pages name a path for it twice, spelled in two ways.
        read=_read_fine_tuning,
        ids=_TRAINING_IDS,
    ),
    Kind(
        name="workflow run",
        endpoint=r"v1/workflows/[^/]+",
        start="{endpoint}/run",
        ask=Call("{endpoint}/runs/{id}", method="GET"),
        cancel=Call("{endpoint}/runs/{id}/cancel"),
        read=_read_run,
        ids=("execution_id", "id"),
        key_in="header",
        has_files=True,
    ),
)

_RUN_URL = re.compile(r"/api/(?P<endpoint>v1/workflows/[A-Za-z0-9_-][A-Za-z0-9_.-]*)/runs/(?P<id>[^/?#]+)/?(?:[?#]|$)")


def _request(kind: Kind, call: Call, job: Job, key: str, base_url: str | None) -> HttpRequest:
    url = api_url(call.path.format(endpoint=job.endpoint, id=quote(job.id, safe="")), base_url=base_url)
    fields = {call.id_field: job.id} if call.id_field else {}
    if kind.key_in == "body":
        return HttpRequest(url, {"key": key, **fields}, call.method)
    return HttpRequest(url, fields or None, call.method, {KEY_HEADER: key})
