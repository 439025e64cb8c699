"""
Controls a sandbox over HTTP, under ``/sandbox/``, for tests that run in another process.

``GET /sandbox/state`` returns the sandbox's state. ``POST /sandbox/NAME`` runs the command of that name, with the JSON
body as its arguments; the answer is the state afterwards, or what is wrong with the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_modelslab.sandbox import replies
from airflow_provider_modelslab.sandbox.http import ReceivedRequest, Reply, json_reply

PREFIX = "/sandbox/"


class ControlApi:
    """
    Answers the requests that control a sandbox.

    :param state: returns the sandbox's state.
    :param commands: what a request can do, by name.
    """

    def __init__(self, state: Callable[[], Mapping[str, Any]], **commands: Callable[..., None]) -> None:
        self._state = state
        self._commands = commands

    def respond(self, request: ReceivedRequest) -> Reply:
        """Run the command that a request names, and return the reply to it."""
        path = request.path.partition("?")[0]
        name = path.removeprefix(PREFIX)
        if name not in ("state", *self._commands):
            return replies.no_such_route(path)
        method = "GET" if name == "state" else "POST"
        if request.method != method:
            return replies.wrong_method(request.method, path, method)
        try:
            if name != "state":
                self._run(self._commands[name], request)
        except LookupError as error:
            return replies.error(str(error), 404)
        except (TypeError, ValueError) as error:
            return replies.error(str(error), 400)
        return json_reply(self._state())

    def _run(self, command: Callable[..., None], request: ReceivedRequest) -> None:
        arguments = request.json if request.body else {}
        if not isinstance(arguments, dict):
            raise TypeError("the body must be a JSON object")
        command(**arguments)
