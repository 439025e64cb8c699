"""
The other shapes in which the API gives the same results and ids.

Pure: the body of the reply that was due goes in, and its other shape comes out; a reply that is not of its kind stays
as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_modelslab.sandbox.http import Reply

Body = dict[str, Any]

TEXT = "A walk in the rain."
TRANSCRIPT = {
    "text": TEXT,
    "timestamps": [{"word": word, "start": n * 0.4, "end": n * 0.4 + 0.3} for n, word in enumerate(TEXT.split())],
}


def of_result(shape: Callable[[Body, list[str]], Mapping[str, Any]]) -> Callable[[Reply], Reply]:
    """
    Return a function that gives the results of a finished job another shape.

    :param shape: returns the fields in which they stand; takes the other fields and the URLs.
    """

    def change(due: Reply) -> Reply:
        body = json.loads(due.body or b"{}")
        if body.get("status") != "success" or not body.get("output"):
            return due
        urls = body.pop("output")
        body.pop("proxy_links", None)
        return _with(due, {**body, **shape(body, urls)})

    return change


def of_id(shape: Callable[[Body], Mapping[str, Any]]) -> Callable[[Reply], Reply]:
    """
    Return a function that gives the id of an accepted submission another shape.

    :param shape: returns the fields in which it stands, in place of ``id`` and ``fetch_result``.
    """

    def change(due: Reply) -> Reply:
        body = json.loads(due.body or b"{}")
        if not body.get("fetch_result"):
            return due
        others = {name: value for name, value in body.items() if name not in ("id", "fetch_result")}
        return _with(due, {**others, **shape(body)})

    return change


def on_host(body: Body, host: str) -> Mapping[str, Any]:
    """Return the id of a submission whose ``fetch_result`` names another host."""
    return {"id": body["id"], "fetch_result": f"https://{host}{urlsplit(body['fetch_result']).path}"}


def _with(due: Reply, body: Mapping[str, Any]) -> Reply:
    return replace(due, body=json.dumps(body).encode())
