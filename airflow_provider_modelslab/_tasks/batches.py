"""
What is to be generated, one thing or many, and the manifest of what became of it.

An item keeps its name, its payload and its digest all the way: no result is identified by its position in something
that Airflow renders again. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_modelslab._ledger.identity import payload_digest
from airflow_provider_modelslab._protocol.formatting import short_name
from airflow_provider_modelslab._protocol.masking import secrets_in
from airflow_provider_modelslab._protocol.shortening import MAX_FIELDS, shorten_fields, shorten_output
from airflow_provider_modelslab._protocol.submissions import parse_parameters, refuse_key
from airflow_provider_modelslab._protocol.templates import parse_literal, refuse_task
from airflow_provider_modelslab._tasks.inputs import InputFile, Reader, take_files
from airflow_provider_modelslab.jobs import Job


@dataclass(frozen=True, slots=True)
class Item:
    """
    One thing to generate.

    :param name: what the user calls it: the key in ``payloads``, or its position.
    :param payload: the parameters of the generation.
    :param digest: tells this payload from all others.
    :param may_travel: whether the payload may stand in Airflow's database: it is not too long, and holds no secret.
    :param files: the files in the payload, which has stand-ins with their digests in their places.
    """

    name: str
    payload: Mapping[str, Any]
    digest: str
    may_travel: bool = True
    files: tuple[InputFile, ...] = ()

    def __str__(self) -> str:
        return short_name(self.name)

    @classmethod
    def of(cls, name: str, payload: Mapping[str, Any], files: Sequence[InputFile] = ()) -> Item:
        """Return the item of a payload that JSON can express."""
        may_travel = len(json.dumps(payload)) <= MAX_FIELDS and not any(secrets_in(payload))
        return cls(name, payload, payload_digest(payload), may_travel, tuple(files))

    def to_record(self, *, whole: bool) -> dict[str, Any]:
        """
        Return the item as it travels with a wait.

        :param whole: whether its payload is still to be submitted; else it is shortened as the manifest shows it.
        """
        payload = dict(self.payload) if whole else shorten_fields(self.payload)
        record = {"name": self.name, "payload": payload, "digest": self.digest}
        return {**record, "files": [file.to_record() for file in self.files]} if whole and self.files else record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Item:
        """Return the item of a record."""
        files = tuple(map(InputFile.from_record, record.get("files", ())))
        return cls(record["name"], record["payload"], record["digest"], files=files)


def items_of(payload: Any, payloads: Any, read: Reader = lambda path, argument: b"") -> list[Item | None]:
    """
    Return what is to be generated; ``None`` for each payload that a skipped upstream left out.

    :param payload: the parameters of one generation, or ``None``.
    :param payloads: a list of them, or a dict of them by name, or ``None``. Both may be JSON texts.
    :param read: reads the files in them; by default none is looked at.
    :raises ValueError: something is no parameters; the message names the argument.
    """
    if payloads is None:
        return [_item("0", payload, "payload", read)]
    refuse_task(payloads, "payloads")
    if isinstance(payloads, str):
        payloads = parse_literal(payloads, "payloads")
    if isinstance(payloads, Mapping):
        if len({type(name) for name in payloads}) > 1:
            raise ValueError("payloads has names of several types: use strings")
        return [_item(str(name), item, f"payloads[{name!r:.200}]", read) for name, item in payloads.items()]
    if isinstance(payloads, Iterator):
        raise ValueError("payloads is an iterator, which can be read only once: pass a list")
    if isinstance(payloads, (str, bytes)) or not isinstance(payloads, Iterable):
        raise ValueError(f"payloads must be a list or a dict, not {type(payloads).__name__}")
    return [_item(str(index), item, f"payloads[{index}]", read) for index, item in enumerate(payloads)]


def refuse_keys(payloads: Any) -> None:
    """Refuse payloads that bring an API key along, as far as they are known; see :func:`refuse_key`."""
    if isinstance(payloads, (list, tuple)):
        payloads = dict(enumerate(payloads))
    if isinstance(payloads, Mapping):
        for name, payload in payloads.items():
            refuse_key(payload, f"payloads[{name!r:.200}]")


def manifest(items: Sequence[Item], jobs: Sequence[Job], files: Sequence[str] | None = None) -> dict[str, Any]:
    """
    Return what became of a batch, or has become of it so far.

    :param items: the items.
    :param jobs: the job of each.
    :param files: where the outputs of all jobs were stored, in their order, if they were.
    :return: ``total``, ``succeeded`` and ``failed``, and ``items``: one record per item with its ``name``, its
        ``payload`` (long texts shortened, secrets masked), its job's ``status``, ``outputs``, ``message`` and
        ``job_id``, and its ``files``, if any were stored.
    """
    succeeded, failed = (sum(job.status == status for job in jobs) for status in ("success", "failed"))
    records: list[dict[str, Any]] = [
        {
            "name": item.name,
            "payload": shorten_fields(item.payload),
            "status": job.status,
            "outputs": [*map(shorten_output, job.outputs)],
            "message": job.message,
            "job_id": job.id,
        }
        for item, job in zip(items, jobs, strict=True)
    ]
    if files is not None:
        remaining = iter(files)
        for record, job in zip(records, jobs, strict=True):
            record["files"] = [next(remaining) for _ in job.outputs]
    return {"total": len(jobs), "succeeded": succeeded, "failed": failed, "items": records}


def _item(name: str, payload: Any, argument: str, read: Reader) -> Item | None:
    """Return an item of what was rendered for an argument, which may be JSON by then."""
    if payload is None:
        return None
    if isinstance(payload, str):
        payload = parse_literal(payload, argument, "a dict of parameters")
    refuse_task(payload, argument)
    payload, files = take_files(payload, argument, read)
    return Item.of(name, parse_parameters(payload, argument), files)
