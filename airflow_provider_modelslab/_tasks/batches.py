"""
What is to be generated, one thing or many, and the manifest of what became of it.

An item keeps its name and its payload all the way: no result is told apart by its position in a list. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_modelslab._protocol.templates import parse_literal
from airflow_provider_modelslab.jobs import Job

_LONG_TEXT = 200


@dataclass(frozen=True, slots=True)
class Item:
    """
    One thing to generate.

    :param name: what the user calls it: the key in ``payloads``, or its position.
    :param payload: the parameters of the generation.
    """

    name: str
    payload: Mapping[str, Any]


def items_of(payload: Any, payloads: Any) -> list[Item]:
    """
    Return what is to be generated.

    :param payload: the parameters of one generation, or ``None``.
    :param payloads: a list of them, or a dict of them by name, or ``None``. Both may be JSON texts.
    :raises ValueError: something is no parameters; the message names the argument.
    """
    if payloads is None:
        return [_item("0", payload, "payload")]
    if isinstance(payloads, str):
        payloads = parse_literal(payloads, "payloads")
    if isinstance(payloads, Mapping):
        return [_item(str(name), item, f"payloads[{name!r}]") for name, item in payloads.items()]
    if isinstance(payloads, (str, bytes)) or not isinstance(payloads, Iterable):
        raise ValueError(f"payloads must be a list or a dict, not {type(payloads).__name__}")
    return [_item(str(index), item, f"payloads[{index}]") for index, item in enumerate(payloads)]


def manifest(items: Sequence[Item], jobs: Sequence[Job], files: Sequence[str] | None = None) -> dict[str, Any]:
    """
    Return what became of a batch.

    :param items: the items.
    :param jobs: the job of each.
    :param files: where the outputs of all jobs were stored, in their order, if they were.
    :return: ``total``, ``succeeded`` and ``failed``, and ``items``: one record per item with its ``name``, its
        ``payload`` (long texts shortened), its job's ``status``, ``outputs``, ``message`` and ``job_id``, and its
        ``files``, if any were stored.
    """
    succeeded = sum(job.status == "success" for job in jobs)
    records: list[dict[str, Any]] = [
        {
            "name": item.name,
            "payload": _shortened(item.payload),
            "status": job.status,
            "outputs": job.outputs,
            "message": job.message,
            "job_id": job.id,
        }
        for item, job in zip(items, jobs, strict=True)
    ]
    if files is not None:
        remaining = iter(files)
        for record, job in zip(records, jobs, strict=True):
            record["files"] = [next(remaining) for _ in job.outputs]
    return {"total": len(jobs), "succeeded": succeeded, "failed": len(jobs) - succeeded, "items": records}


def _shortened(value: Any) -> Any:
    """Return a payload fit for the metadata database: without the pictures that may be embedded in it."""
    if isinstance(value, str):
        return value if len(value) <= _LONG_TEXT else f"{value[:_LONG_TEXT]}…"
    if isinstance(value, Mapping):
        return {str(name): _shortened(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(item) for item in value]
    return value


def _item(name: str, payload: Any, argument: str) -> Item:
    """Return an item of what was rendered for an argument, which may be JSON by then."""
    if isinstance(payload, str):
        payload = parse_literal(payload, argument)
    if not isinstance(payload, Mapping):
        raise ValueError(f"{argument} must be a dict of parameters, not {type(payload).__name__}")
    return Item(name, payload)
