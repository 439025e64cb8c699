"""
The account's list of outputs: which jobs have finished, by their ids, without saying when. Pure.

Source: the public documentation: ``POST assets_generated`` with ``type``, ``per_page`` (30 at the most) and ``page``
returns ``data: [{id, output}]``. No client is known that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_modelslab._protocol.http_request import HttpRequest
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply
from airflow_provider_modelslab._protocol.outputs import find_outputs
from airflow_provider_modelslab._protocol.sanitizing import parse_json
from airflow_provider_modelslab.endpoints import api_url
from airflow_provider_modelslab.jobs import Output

PER_PAGE = 30

_TYPES = (("video", "video"), ("voice", "voice"), ("speech", "voice"), ("audio", "voice"), ("3d", "3d"))
"""Words in the path of a generation endpoint, and the ``type`` of what it makes; all else are images."""


@dataclass(frozen=True, slots=True)
class Asset:
    """
    One entry of the list.

    :param job_id: the id of the job.
    :param outputs: its outputs.
    """

    job_id: str
    outputs: tuple[Output, ...]


def assets_request(path: str, key: str, base_url: str | None) -> HttpRequest:
    """
    Return the request for the newest outputs of the kind that an endpoint makes.

    :param path: the path of the generation endpoint.
    :param key: the API key.
    :param base_url: the connection's own base URL, where it has one.
    """
    kind = next((kind for word, kind in _TYPES if word in path), "image")
    body = {"key": key, "type": kind, "per_page": PER_PAGE, "page": 1}
    return HttpRequest(api_url("assets_generated", base_url=base_url), body)


def read_assets_reply(received: HttpReply | NoReply, key: str) -> list[Asset] | None:
    """
    Read the reply; ``None`` where ModelsLab does not tell.

    :param received: what came over the wire.
    :param key: the API key, which is taken out of everything that is kept.
    """
    document = None if isinstance(received, NoReply) or received.status != 200 else parse_json(received.body, key)
    data = (document or {}).get("data")
    if not isinstance(data, list):
        return None
    return [_asset(entry) for entry in data[:PER_PAGE] if isinstance(entry, Mapping) and _is_id(entry.get("id"))]


def _asset(entry: Mapping[str, Any]) -> Asset:
    return Asset(str(entry["id"]), tuple(find_outputs(entry)))


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool) and 0 < len(str(value)) < 100
