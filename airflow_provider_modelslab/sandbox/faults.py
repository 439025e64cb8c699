"""
Faults on demand: what can go wrong between a client and the API, by name, and when it does.

Pure: a fault turns the reply that was due into the one that is sent. Chance or a script decides when a fault strikes.
The random numbers are seeded, so that the same requests meet the same faults.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from airflow_provider_modelslab.endpoints import MODELSLAB
from airflow_provider_modelslab.sandbox import replies, shapes
from airflow_provider_modelslab.sandbox.http import Reply, json_reply

RequestKind = Literal["fetch", "submit"]

QueueReply = Literal["limit", "current_queue"]

_FETCH: tuple[RequestKind, ...] = ("fetch",)
_SUBMIT: tuple[RequestKind, ...] = ("submit",)
_BOTH: tuple[RequestKind, ...] = ("fetch", "submit")

_PROXY_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_TOO_MANY_ATTEMPTS = Reply(status=429, body=b"Too Many Attempts.", content_type="text/plain")
_LANDING_PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body></body></html>"


@dataclass(frozen=True, kw_only=True)
class FaultSettings:
    """
    What faults tell the client.

    :param retry_after: seconds that a rate limit asks for.
    :param slow_seconds: how long a slow reply takes.
    :param queue_reply: what a full queue answers: its ``limit`` with HTTP 429, or ``current_queue`` inside HTTP 200.
    """

    retry_after: int = 30
    slow_seconds: float = 2.0
    queue_reply: QueueReply = "limit"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """
    One thing that can go wrong.

    :param reply: makes the reply that is sent, from the one that was due.
    :param on: the kinds of request that it may strike.
    :param accepted: a submission that it strikes has been accepted nevertheless: the job exists and is paid for.
    :param fails_job: it is the job that fails; the replies tell the truth.
    :param max_age: by chance it strikes only jobs that were accepted less than so many seconds ago.
    """

    reply: Callable[[Reply, FaultSettings], Reply] = lambda due, _: due
    on: tuple[RequestKind, ...] = _BOTH
    accepted: bool = False
    fails_job: bool = False
    max_age: float | None = None


def _instead(reply: Reply) -> Callable[[Reply, FaultSettings], Reply]:
    """Return a function that makes a reply without regard to the one that was due."""
    return lambda due, settings: reply


def _without_output(due: Reply) -> Reply:
    return json_reply({"status": "success", "id": json.loads(due.body).get("id", ""), "output": []})


def _pause_in_minutes(seconds: int) -> str:
    return f"Try again in {max(1, round(seconds / 60))} minutes."


def _as_error(due: Reply) -> Reply:
    body = json.loads(due.body or b"{}")
    return json_reply({**body, "status": "error"}) if body.get("status") == "processing" else due


def _result(shape: Callable[[shapes.Body, list[str]], Mapping[str, Any]]) -> Fault:
    change = shapes.of_result(shape)
    return Fault(reply=lambda due, _: change(due), accepted=True)


def _id(shape: Callable[[shapes.Body], Mapping[str, Any]]) -> Fault:
    change = shapes.of_id(shape)
    return Fault(reply=lambda due, _: change(due), on=_SUBMIT, accepted=True)


FAULTS: Mapping[str, Fault] = {
    # The generation fails: that of the job submitted, or that of the job asked for if it is still running.
    "failed": Fault(fails_job=True, accepted=True),
    # Errors inside HTTP 200, in all spellings.
    "error": Fault(reply=_instead(replies.error("Something went wrong with this request."))),
    "messege": Fault(reply=_instead(json_reply({"status": "error", "messege": "Something went wrong here."}))),
    "dict_message": Fault(reply=_instead(replies.error({"prompt": ["The prompt field is required."]}))),
    "empty_error": Fault(reply=_instead(replies.error(""))),
    "empty_output": Fault(reply=lambda due, _: _without_output(due), accepted=True),
    # The server that is asked has not yet heard of a job that another one has just accepted.
    "not_found": Fault(reply=_instead(replies.not_found()), on=_FETCH, max_age=10.0),
    "rate_limit": Fault(reply=lambda due, settings: replies.rate_limited(5, settings.retry_after)),
    "rate_limit_200": Fault(
        reply=lambda due, settings: replies.error(
            "Rate limit exceeded", tips=f"Please wait for {settings.retry_after} seconds before the next request."
        )
    ),
    # What public clients met besides.
    "pause_in_minutes": Fault(reply=lambda due, settings: replies.error(_pause_in_minutes(settings.retry_after))),
    "current_queue": Fault(reply=_instead(replies.queue_full(16))),
    "too_many_attempts": Fault(reply=_instead(_TOO_MANY_ATTEMPTS)),
    "out_of_credits": Fault(reply=_instead(replies.error("You are out of credits, please fund your wallet"))),
    "server_error_200": Fault(reply=_instead(replies.error("Internal server error. Please try again."))),
    "plain_validation": Fault(reply=_instead(replies.error("The prompt field is required.")), on=_SUBMIT),
    "processing_error": Fault(reply=lambda due, _: _as_error(due), accepted=True),
    # The same results in other shapes.
    "output_in_proxy_links": _result(lambda body, urls: {"output": [], "proxy_links": urls}),
    "output_in_links": _result(lambda body, urls: {"links": urls}),
    "output_url": _result(lambda body, urls: {"output_url": urls[0]}),
    "output_objects": _result(lambda body, urls: {"output": [{"url": url, "seed": 7} for url in urls]}),
    "output_nested": _result(lambda body, urls: {"output": {"output": urls, "status": "success"}}),
    "output_text": _result(lambda body, urls: {"output": shapes.TEXT}),
    "output_transcript": _result(lambda body, urls: {"output": shapes.TRANSCRIPT}),
    "output_in_meta": _result(lambda body, urls: {"meta": {"transcription": shapes.TRANSCRIPT}}),
    # The id of an accepted submission in other shapes.
    "id_as_request_id": _id(lambda body: {"request_id": body["id"]}),
    "id_in_fetch_result": _id(lambda body: {"fetch_result": body["fetch_result"]}),
    "id_elsewhere": _id(lambda body: {"order_id": body["id"]}),
    "official_fetch_result": _id(lambda body: shapes.on_host(body, MODELSLAB)),
    "foreign_fetch_result": _id(lambda body: shapes.on_host(body, "elsewhere.example")),
    # The servers and the proxies before them.
    "http_500": Fault(reply=_instead(replies.error("Internal server error. Please contact support.", 500))),
    "http_502": Fault(reply=_instead(Reply(status=502, body=_PROXY_PAGE, content_type="text/html"))),
    "http_524": Fault(reply=_instead(Reply(status=524, body=_PROXY_PAGE, content_type="text/html")), accepted=True),
    "http_503": Fault(reply=_instead(replies.error("Service temporarily unavailable. Please retry.", 503))),
    "html": Fault(reply=_instead(Reply(body=_LANDING_PAGE, content_type="text/html"))),
    # The network. A submission whose reply is lost has been accepted; only "drop_unaccepted" strikes before that.
    "drop": Fault(reply=lambda due, _: replace(due, sent="nothing"), accepted=True),
    "drop_unaccepted": Fault(reply=lambda due, _: replace(due, sent="nothing"), on=_SUBMIT),
    "drop_midway": Fault(reply=lambda due, _: replace(due, sent="part"), accepted=True),
    "truncated": Fault(reply=lambda due, _: replace(due, body=due.body[: len(due.body) // 2]), accepted=True),
    "slow": Fault(reply=lambda due, settings: replace(due, delay=settings.slow_seconds), accepted=True),
}
"""All faults by name."""


def parse_probabilities(text: str) -> dict[str, float]:
    """
    Return the probabilities of a text such as ``failed=0.1,http_500=0.05``; the names are not checked yet.

    :raises ValueError: it is not of that form.
    """
    pairs = (item.partition("=") for item in text.split(",") if item.strip())
    try:
        return {name.strip(): float(probability) for name, _, probability in pairs}
    except ValueError:
        raise ValueError(f"expected something like failed=0.1,html=0.05, not {text!r}") from None


class RequestLimit:
    """
    So many requests a second, of all clients together; a second's worth of them may come at once.

    :param per_second: how many.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._most = self._left = max(1.0, per_second)
        self._counted = float("-inf")

    def admits(self, now: float) -> bool:
        """Return whether a request that comes now is taken, and count it if it is."""
        self._left = min(self._most, self._left + (now - self._counted) * self._per_second)
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class FaultPlan:
    """
    Decides which reply meets which fault.

    :param seed: makes the draws repeatable.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rng = random.Random(f"{seed}/faults")
        self._probabilities: dict[str, float] = {}
        self._scripts: dict[RequestKind, deque[str | None]] = {kind: deque() for kind in get_args(RequestKind)}

    def set_probabilities(self, probabilities: Mapping[str, float]) -> None:
        """
        Let faults strike by chance: ``failed`` with this probability per job, every other one per reply.

        :raises ValueError: a name is not that of a fault, or a number is not a probability, or those of the
            faults that exclude each other sum up to more than 1.
        """
        for name, probability in probabilities.items():
            _known(name)
            if not 0 <= probability <= 1:
                raise ValueError(f"{name}={probability} is not a probability, between 0 and 1")
        if sum(probability for name, probability in probabilities.items() if not FAULTS[name].fails_job) > 1:
            raise ValueError("the probabilities of the faults sum up to more than 1")
        self._probabilities = dict(probabilities)

    def set_script(self, kind: str, faults: Iterable[str | None]) -> None:
        """
        Say what the next replies of one kind meet, in turn, in place of what is left of an earlier script.

        :param kind: ``fetch`` or ``submit``.
        :param faults: names of faults; ``None`` lets a reply pass.
        :raises ValueError: the kind or a name is unknown, or a fault cannot strike this kind.
        """
        if kind not in self._scripts:
            raise ValueError(f"unknown kind of request {kind!r}: known are {', '.join(self._scripts)}")
        script = deque(faults)
        for name in script:
            if name is not None and kind not in _known(name).on:
                raise ValueError(f"the fault {name!r} cannot strike requests of kind {kind!r}")
        self._scripts[kind] = script

    def draw(self, kind: RequestKind, age: float = 0.0) -> Fault | None:
        """
        Return the fault that the next reply meets.

        :param age: how many seconds ago the job in question was accepted.
        """
        if self._scripts[kind]:
            name = self._scripts[kind].popleft()
            return None if name is None else FAULTS[name]
        roll = self._rng.random()
        for name, probability in self._probabilities.items():
            fault = FAULTS[name]
            if kind not in fault.on or fault.fails_job:
                continue
            if roll < probability:
                return fault if fault.max_age is None or age <= fault.max_age else None
            roll -= probability
        return None

    def fails_job(self, job_id: int) -> bool:
        """Return whether chance lets this job fail."""
        return random.Random(f"{self._seed}/failed/{job_id}").random() < self._probabilities.get("failed", 0.0)


def _known(name: str) -> Fault:
    try:
        return FAULTS[name]
    except (KeyError, TypeError):
        raise ValueError(f"unknown fault {name!r}: known are {', '.join(FAULTS)}") from None
