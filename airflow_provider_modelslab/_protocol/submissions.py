"""A submission: judged before it is sent, built into a request, and read from its reply. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_modelslab._protocol.arguments import parse_generation_endpoint
from airflow_provider_modelslab._protocol.http_request import HttpRequest
from airflow_provider_modelslab._protocol.kinds import start_request
from airflow_provider_modelslab._protocol.masking import secrets_in
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply
from airflow_provider_modelslab._protocol.replies import Reply, read_submission_reply
from airflow_provider_modelslab._protocol.sanitizing import sanitize
from airflow_provider_modelslab._protocol.templates import refuse_task
from airflow_provider_modelslab.jobs import Job


def refuse_key(payload: Any, argument: str = "payload") -> None:
    """
    Refuse parameters that bring an API key along: it would be stored with the task.

    :param payload: the parameters, or anything else, which is not judged here.
    :param argument: what the user calls them.
    :raises ValueError: they hold a key.
    """
    if isinstance(payload, Mapping) and payload.get("key"):
        raise ValueError(f"{argument} must not hold 'key': the API key comes from the connection")


def parse_parameters(value: Any, argument: str = "payload") -> dict[str, Any]:
    """
    Return the parameters of a generation, made of what JSON has.

    :param value: a mapping. Sequences in it may be of any kind, as a mapped upstream's outputs are.
    :param argument: what the user calls them, for the error.
    :raises ValueError: it is no mapping, holds a key, or a part of it has a type that JSON does not have; the message
        says which part.
    """
    refuse_task(value, argument)
    if not isinstance(value, Mapping):
        batch = ": a batch is passed as payloads" if isinstance(value, list) and argument == "payload" else ""
        raise ValueError(f"{argument} must be a dict of parameters, not {type(value).__name__}{batch}")
    refuse_key(value, argument)
    try:
        parameters: dict[str, Any] = _plain(value, argument)
    except RecursionError:
        raise ValueError(f"{argument} is nested too deep") from None
    return parameters


def _plain(value: Any, argument: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{argument} is {value}, which JSON cannot express")
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"{argument} has the name {name!r:.200}: names of parameters are strings")
        return {name: _plain(item, f"{argument}[{name!r}]") for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        # The slice reads a mapped upstream's outputs with one query, instead of one for each.
        return [_plain(item, f"{argument}[{index}]") for index, item in enumerate(value[:])]
    refuse_task(value, argument)
    raise ValueError(f"{argument} is a {type(value).__name__}, which JSON cannot express")


@dataclass(frozen=True, slots=True)
class Submission:
    """
    One generation to be submitted.

    :param path: the path of the generation endpoint, for example ``v6/video/text2video``.
    :param payload: its parameters, without ``key``.
    """

    path: str
    payload: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, path: object, payload: object) -> Submission:
        """
        Return the submission of what a user passes.

        :raises ValueError: the path is none, or the payload is no dict that JSON can express, or it holds a key.
        """
        return cls(parse_generation_endpoint(path, "path"), parse_parameters(payload))

    def request(self, key: str, base_url: str | None = None) -> HttpRequest:
        """Return the request."""
        return start_request(self.path, self.payload, key, base_url)

    def read(self, received: HttpReply | NoReply, key: str, base_url: str | None = None) -> Reply:
        """
        Read the reply; see :func:`~airflow_provider_modelslab._protocol.replies.read_submission_reply`.

        What it echoes of the secrets in the payload is taken out like the key.
        """
        reply = read_submission_reply(received, self.path, base_url, key)
        for secret in secrets_in(self.payload):
            reply.job = Job.from_dict(sanitize(reply.job, secret))
        return reply
