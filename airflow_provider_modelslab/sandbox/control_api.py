"""
Steers a sandbox over HTTP, under ``/sandbox/``, for those who run it in another process.

Each path stands for a method of :class:`~airflow_provider_modelslab.sandbox.Sandbox`, and the JSON body for its
arguments; the answer is always the sandbox's state, or what is wrong with the request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_modelslab.sandbox import replies
from airflow_provider_modelslab.sandbox.http import ReceivedRequest, Reply, json_reply
from airflow_provider_modelslab.sandbox.state import FAILED_MESSAGE

if TYPE_CHECKING:
    from airflow_provider_modelslab.sandbox.sandbox import Sandbox

PREFIX = "/sandbox/"


def respond(sandbox: Sandbox, request: ReceivedRequest) -> Reply:
    """Do what a steering request asks for, and return the reply to it."""
    path = request.path.partition("?")[0]
    if path not in _COMMANDS:
        return replies.no_such_route(path)
    method, run = _COMMANDS[path]
    if request.method != method:
        return replies.wrong_method(request.method, path, method)
    arguments = request.json if request.body else {}
    try:
        if not isinstance(arguments, dict):
            raise TypeError("the body must be a JSON object")
        run(sandbox, **arguments)
    except LookupError as error:
        return replies.error(str(error), 404)
    except (TypeError, ValueError) as error:
        return replies.error(str(error), 400)
    return json_reply(sandbox.state())


def _poll(sandbox: Sandbox) -> None:
    """Do nothing: the answer to every command is the state."""


def _set_faults(sandbox: Sandbox, **faults: float) -> None:
    sandbox.set_faults(faults)


def _script(sandbox: Sandbox, kind: str, faults: list[str | None]) -> None:
    sandbox.script(kind, faults)


def _reset(sandbox: Sandbox) -> None:
    sandbox.reset()


def _finish(sandbox: Sandbox, id: int | None = None) -> None:
    if id is None:
        sandbox.finish_all()
    else:
        sandbox.finish(id)


def _fail(sandbox: Sandbox, id: int, message: str = FAILED_MESSAGE) -> None:
    sandbox.fail(id, message)


_COMMANDS: dict[str, tuple[str, Callable[..., Any]]] = {
    "/sandbox/state": ("GET", _poll),
    "/sandbox/faults": ("POST", _set_faults),
    "/sandbox/script": ("POST", _script),
    "/sandbox/reset": ("POST", _reset),
    "/sandbox/finish": ("POST", _finish),
    "/sandbox/fail": ("POST", _fail),
}
