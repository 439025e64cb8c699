"""A submission: judged before it is sent, built into a request, and read from its reply. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply
from airflow_provider_modelslab._protocol.replies import Reply, read_submission_reply
from airflow_provider_modelslab.endpoints import parse_submission_path, submission_url


def refuse_key(payload: Any, argument: str = "payload") -> None:
    """
    Refuse parameters that bring an API key along: it would be stored with the task.

    :param payload: the parameters, or anything else, which is not judged here.
    :param argument: what the user calls them.
    :raises ValueError: they hold a key.
    """
    if isinstance(payload, Mapping) and payload.get("key"):
        raise ValueError(f"{argument} must not hold 'key': the API key comes from the connection")


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
        parsed = parse_submission_path(path)
        if not isinstance(payload, Mapping):
            raise ValueError(f"payload must be a dict of parameters, not {type(payload).__name__}")
        refuse_key(payload)
        try:
            json.dumps(payload, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"payload cannot be sent as JSON: {error}") from None
        return cls(parsed, dict(payload))

    def request(self, key: str, base_url: str | None = None) -> tuple[str, dict[str, Any]]:
        """Return the URL and the JSON body of the request."""
        return submission_url(self.path, base_url), {**self.payload, "key": key}

    def read(self, received: HttpReply | NoReply, key: str, base_url: str | None = None) -> Reply:
        """Read the reply; see :func:`~airflow_provider_modelslab._protocol.replies.read_submission_reply`."""
        return read_submission_reply(received, self.path, base_url, key)
