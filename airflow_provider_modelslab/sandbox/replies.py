"""
The bodies of all replies, spelled as the API spells them.

Pure: a job or the parts of an answer go in, a reply comes out. Which reply is due is decided in ``api`` and ``faults``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_modelslab.endpoints import route_of
from airflow_provider_modelslab.sandbox.http import Reply, json_reply
from airflow_provider_modelslab.sandbox.state import Account, Job

_TIP = "Your request is being processed in the background, you can get its output with the fetch API."
_TRY_AGAIN = "try again later."


def error(message: str | Mapping[str, Any], status: int = 200, **more: Any) -> Reply:
    """
    Return a reply with ``"status": "error"``, which the API sends with many HTTP codes, 200 included.

    :param message: the text, or a dict of lists by parameter where the parameters are wrong.
    :param more: further fields of the body.
    """
    return json_reply({"status": "error", "message": message, **more}, status)


def output_urls(job: Job, base_url: str, folder: str = "generations") -> list[str]:
    """Return where the files of a job are, or will be."""
    extension = "base64" if job.request.base64 else job.request.kind
    return [f"{base_url}/files/{folder}/{job.token}-{index}.{extension}" for index in range(job.request.samples)]


def queued(job: Job, base_url: str) -> Reply:
    """Return the reply to an accepted submission, which is also what most families say while the job runs."""
    estimate = {} if job.eta is None else {"eta": job.eta}
    return json_reply(
        {
            "status": "processing",
            "tip": _TIP,
            **estimate,
            "message": "Try to fetch request after seconds estimated",
            "fetch_result": _fetch_result(job, base_url),
            "id": job.id,
            "output": [],
            "meta": job.request.meta,
            "future_links": output_urls(job, base_url),
            "proxy_links": output_urls(job, base_url, "proxy"),
            "webhook_status": "",
        }
    )


def _fetch_result(job: Job, base_url: str) -> str:
    url = f"{base_url}/api/{job.request.fetch_endpoint}/fetch"
    return url if route_of(job.request.fetch_endpoint).id_in == "body" else f"{url}/{job.id}"


def still_processing(message_field: str) -> Reply:
    """
    Return what the terse families say while a job runs: neither id nor estimate.

    :param message_field: ``message``, or ``messege`` where the family spells it so.
    """
    return json_reply({"status": "processing", message_field: _TRY_AGAIN, "output": "", "tip": _TIP})


def success(job: Job, base_url: str, full: bool) -> Reply:
    """
    Return what a finished job answers.

    :param full: with all that the API may add to the id and the output.
    """
    body: dict[str, Any] = {"status": "success", "id": job.id, "output": output_urls(job, base_url)}
    if full:
        body |= {
            "generationTime": round(job.generation_time, 3),
            "proxy_links": output_urls(job, base_url, "proxy"),
            "nsfw_content_detected": False,
            "meta": job.request.meta,
        }
    return json_reply(body)


def failed(message: str) -> Reply:
    """Return what a failed job answers: HTTP 200, and an empty id."""
    return json_reply({"status": "failed", "id": "", "message": message, "output": ""})


def not_found() -> Reply:
    """Return the answer to an id that the family does not know."""
    return json_reply({"status": "failed", "id": "", "message": "Request not found", "output": "", "tip": _TIP})


def rate_limited(limit: int, retry_after: int) -> Reply:
    """
    Return the answer to a submission for which the account's queue has no room.

    :param limit: how many jobs it holds.
    :param retry_after: seconds to wait, named in the body; the API sends no such header.
    """
    message = f"Rate limit exceeded. Maximum {limit} queued requests allowed."
    return error(message, 429, retry_after=retry_after)


def too_many_requests(retry_after: int) -> Reply:
    """
    Return the answer to a request that is one too many for its second.

    :param retry_after: seconds to wait.
    """
    return error("Too Many Attempts.", 429, retry_after=retry_after)


def queue_full(in_queue: int) -> Reply:
    """
    Return the other answer to a submission for which the account's queue has no room: inside HTTP 200.

    :param in_queue: how many jobs it holds.
    """
    return error("Rate limit exceeded", current_queue=in_queue, tips="You are sending too many requests.")


def insufficient_credits() -> Reply:
    """Return the answer to a submission that the account cannot pay for."""
    return error("Insufficient credits. Please top up your wallet.", 402)


def foreign() -> Reply:
    """Return the answer to a request that a web page may have sent: it names another host, or has an origin."""
    message = "This sandbox serves only this machine, and no web page. Start it with --host to serve others."
    return error(message, 403)


def invalid_request() -> Reply:
    """Return the answer to a body that is not a JSON object."""
    return error("Invalid API Request", 400, tip="Send a JSON object with your API key in the field 'key'.")


def invalid_key(given: bool) -> Reply:
    """Return the answer to a request with a wrong key, or without one."""
    return error("Invalid API key" if given else "API key required", 401)


def no_such_route(path: str, hint: str = "") -> Reply:
    """
    Return the answer to a path that the API does not have.

    :param hint: which endpoint is meant; the API itself does not say so.
    """
    return error(f"The route {path} could not be found{hint}.", 404)


def wrong_method(method: str, path: str, allowed: str) -> Reply:
    """Return the answer to a method that the path does not take."""
    return error(f"The {method} method is not supported for route {path}. Supported methods: {allowed}.", 405)


def wallet_balance(account: Account) -> Reply:
    """Return what is left on an account."""
    return json_reply({"status": "success", "data": {"balance": account.balance, "currency": "USD"}})


def request_count(account: Account) -> Reply:
    """Return how many requests of an account are in flight."""
    message = "Current processing request count retrieved successfully"
    return json_reply({"status": "success", "processing_count": account.in_flight, "message": message})


def assets_generated(jobs: Iterable[Job], base_url: str) -> Reply:
    """Return a page of the outputs of an account."""
    data = [{"id": job.id, "output": output_urls(job, base_url)} for job in jobs]
    return json_reply({"status": "success", "data": data})


def webhook_body(job: Job) -> dict[str, Any]:
    """Return what the sandbox sends to the webhook of a job that has ended."""
    request = job.request
    if job.status == "failed":
        return {"status": "failed", "id": job.id, "message": job.failure, "track_id": request.track_id}
    return {
        "status": "success",
        "id": job.id,
        "output": output_urls(job, request.base_url),
        "generationTime": round(job.generation_time, 3),
        "track_id": request.track_id,
        "meta": request.meta,
    }
