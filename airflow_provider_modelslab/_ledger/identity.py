"""
What a paid job is known by, and how its receipts are called. Pure.

A job is known by the account that pays, the generation endpoint and the payload, within one task instance by the item's
name, too. Names are made for people. No two jobs share a name, however similar those of DAGs, runs and items are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from airflow_provider_modelslab._protocol.masking import mask_secrets

WITHOUT_EFFECT = frozenset({"key", "webhook", "track_id"})
"""Parameters that do not change what is generated."""

SHARED_FOLDER = "_shared"
"""The folder of receipts that belong to no task: every DAG that generates the same uses them."""

_LONGEST_PART = 80
"""Characters of a name in a path."""


@dataclass(frozen=True, slots=True)
class TaskTry:
    """
    One try of a task instance.

    :param try_number: which try, counted from the first one of the run.
    :param max_tries: the same for all tries between two clears: a clear changes it, a retry does not.
    """

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0

    @property
    def run_folder(self) -> str:
        """The folder of the receipts of the whole run, relative to the ledger."""
        return f"{_part(self.dag_id)}/{_part(self.run_id)}"

    @property
    def folder(self) -> str:
        """The folder of the task instance's receipts, relative to the ledger."""
        mapped = f"+{self.map_index}" if self.map_index >= 0 else ""
        return f"{self.run_folder}/{_part(self.task_id)}{mapped}"

    def is_retry_of(self, earlier: TaskTry) -> bool:
        """
        Whether this is a later try of the same task instance, without a clear in between.

        The same try once more is none: so a run looks that was removed and made again, as ``dag.test()`` does.
        """
        is_same_series = (self.folder, self.max_tries) == (earlier.folder, earlier.max_tries)
        return is_same_series and self.try_number > earlier.try_number

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> TaskTry:
        """Return the try of any record: a field that is missing or wrong gets its default."""
        known: dict[str, Any] = {
            each.name: record.get(each.name) for each in fields(cls) if _is_like(record.get(each.name), each.default)
        }
        return cls(**known)


def _is_like(value: Any, default: Any) -> bool:
    return isinstance(value, type(default)) and not isinstance(value, bool)


def payload_digest(payload: Mapping[str, Any]) -> str:
    """
    Return what tells a payload from all others that generate something else.

    The order of its names does not count, nor do secrets: a token that is rotated changes nothing.
    """
    canonical = mask_secrets({name: value for name, value in payload.items() if name not in WITHOUT_EFFECT})
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:32]


def has_seed(payload: Mapping[str, Any]) -> bool:
    """Whether a payload fixes the seed, so that it generates the same each time."""
    return payload.get("seed") not in (None, "")


def job_digest(account: str, endpoint: str, digest: str) -> str:
    """
    Return what a paid job is known by, wherever it is paid for.

    :param account: the host and the account that pays.
    :param endpoint: the path of the generation endpoint.
    :param digest: the payload's.
    """
    return hashlib.sha256(json.dumps([account, endpoint, digest]).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ReceiptName:
    """
    How a receipt is called: its path relative to the ledger.

    :param stem: what all generations of the same item have in common.
    :param number: which generation, counted from 1.
    """

    stem: str
    number: int = 1

    @classmethod
    def of_item(cls, task: TaskTry, item: str, digest: str) -> ReceiptName:
        """Return the name of an item's first receipt, for example ``my_dag/run_1/draw/owl.1f0c….1.json``."""
        return cls(f"{task.folder}/{_part(item)}.{digest[:16]}")

    @classmethod
    def shared(cls, digest: str) -> ReceiptName:
        """Return the name of the first receipt of a job that belongs to no task."""
        return cls(f"{SHARED_FOLDER}/{digest[:2]}/{digest}")

    @classmethod
    def parse(cls, text: str) -> ReceiptName | None:
        """Return the name in a path relative to the ledger, or ``None`` where it is none."""
        match = re.fullmatch(r"(.+)\.(\d{1,9})\.json", text)
        return cls(match[1], int(match[2])) if match else None

    @property
    def digest(self) -> str:
        """The part that tells the job."""
        return self.stem.rpartition("/")[2].rpartition(".")[2]

    def next(self) -> ReceiptName:
        """Return the name of the next generation of the same item."""
        return ReceiptName(self.stem, self.number + 1)

    def __str__(self) -> str:
        return f"{self.stem}.{self.number}.json"


def _part(text: str) -> str:
    """Return a text as one plain part of a path: ``~`` and a digest follow where it is not what it was."""
    plain = re.sub(r"[^A-Za-z0-9_.+=-]", "-", text)[:_LONGEST_PART]
    if not plain.strip("."):
        plain = plain.replace(".", "-")
    if plain == text and text:
        return text
    return f"{plain}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
