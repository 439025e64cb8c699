"""
A receipt: what the ledger knows of one paid job. Pure.

It is written before the request leaves (``intended``), after the reply (``submitted``) and at the end. It never holds
the key or a payload's text. One that is read may be older, newer, or not ours: reading it raises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from typing import Any, Literal, get_args

from airflow_provider_modelslab._ledger.identity import TaskTry
from airflow_provider_modelslab._protocol.formatting import one_line
from airflow_provider_modelslab._protocol.numbers import is_number
from airflow_provider_modelslab._protocol.sanitizing import sanitize
from airflow_provider_modelslab._protocol.shortening import MAX_DATA, shorten, shorten_output
from airflow_provider_modelslab.jobs import Job, Output

SCHEMA_VERSION = 1
"""Of what :meth:`Receipt.to_dict` returns. Fields may be added; none changes its meaning."""

State = Literal["intended", "submitted", "succeeded", "failed", "in_doubt"]
"""
``intended``: about to be submitted, or the worker died meanwhile. ``submitted``: paid for, and not finished yet as far
as is known. ``in_doubt``: it may have been billed, and the user was told so.
"""

STATES: tuple[State, ...] = get_args(State)

_JOB_FIELDS = frozenset(each.name for each in fields(Job)) - {
    "status",
    "outputs",
    "message",
    "proxy_links",
    "nsfw_content_detected",
    "generation_time",
    "meta",
    "future_links",
    "other_links",
}
"""What a job is fetched by."""

_YEAR_5000 = 95_617_584_000.0

_LARGEST = 1e12
"""Seconds beyond which a number is a mistake."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """
    A stored output.

    :param path: where it is, as the XCom ``files`` names it.
    :param size: bytes; ``None`` where that is not known.
    """

    path: str
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """
    What is known of one paid job.

    :param state: one of :data:`STATES`.
    :param endpoint: the path of the generation endpoint.
    :param account: the host and a few bits of a slow hash of the key.
    :param payload_digest: see :func:`~airflow_provider_modelslab._ledger.identity.payload_digest`.
    :param has_seed: whether the payload fixes the seed.
    :param item: the item's name.
    :param task: the try that submitted it.
    :param settled_by: the try that took its result last, or that told the user what is in doubt.
    :param nonce: distinguishes the receipt from one that another try or task writes under the same name.
    :param submitted_at: when the request was about to leave, in seconds since the epoch.
    :param ended_at: when that was.
    :param job: what the job is fetched by; ``None`` while no reply has named it.
    :param outputs: of a job that has succeeded. Data is shortened, but for a job without an id that has not ended:
        it could not be fetched again.
    :param files: the stored outputs, in the order of the outputs; empty where none were stored.
    :param generation_time: seconds that ModelsLab took.
    :param message: why it failed, or what is in doubt: one line.
    """

    state: State = "intended"
    endpoint: str = ""
    account: str = ""
    payload_digest: str = ""
    has_seed: bool = False
    item: str = ""
    task: TaskTry = field(default_factory=TaskTry)
    nonce: str = ""
    submitted_at: float | None = None
    ended_at: float | None = None
    settled_by: TaskTry | None = None
    job: Job | None = None
    outputs: tuple[Output, ...] = ()
    files: tuple[StoredFile, ...] = ()
    generation_time: float | None = None
    message: str = ""

    # --- its life -----------------------------------------------------------------------------------------

    def accepted(self, job: Job) -> Receipt:
        """Return the receipt of a job that a reply has named."""
        outputs = () if job.id else tuple(job.outputs)
        return replace(self, state="submitted", job=_fetchable(job), outputs=outputs)

    def named(self, job: Job) -> Receipt:
        """Return the receipt with the ids that an unusable reply has named."""
        return replace(self, job=_fetchable(job))

    def doubted(self, message: str, task: TaskTry, now: float) -> Receipt:
        """
        Return the receipt of a submission that may have been billed, as the user is told.

        :param message: what happened.
        :param task: the try that tells it.
        :param now: the time, in seconds since the epoch.
        """
        return replace(self, state="in_doubt", settled_by=task, ended_at=now, message=_line(message))

    def ended(self, job: Job, task: TaskTry, now: float, files: Sequence[StoredFile] = ()) -> Receipt:
        """
        Return the receipt of a finished job.

        :param task: the try that takes its result.
        :param now: the time, in seconds since the epoch.
        :param files: its stored outputs.
        """
        return replace(
            self,
            state="succeeded" if job.status == "success" else "failed",
            settled_by=task,
            ended_at=now,
            job=_fetchable(job),
            outputs=tuple(map(shorten_output, job.outputs)),
            files=tuple(files),
            generation_time=job.generation_time,
            message=_line(job.message),
        )

    def handed_over(self, task: TaskTry, now: float) -> Receipt:
        """Return the receipt of a job that the task does not wait for, once the task has returned it."""
        return replace(self, settled_by=task, ended_at=now)

    def is_retried_by(self, task: TaskTry) -> bool:
        """Whether a try goes on with this, and the user has not cleared the task in between."""
        return task.is_retry_of(self.settled_by or self.task)

    def known_job(self) -> Job | None:
        """Return the job as far as the receipt knows it: finished, where its result was taken."""
        if self.job is None or (self.state in ("intended", "in_doubt") and not self.job.id):
            return None
        if self.state == "failed":
            return self.job.failed(self.message)
        if self.state == "succeeded" or (self.outputs and not self.job.id):
            return replace(
                self.job, status="success", eta=None, outputs=list(self.outputs), generation_time=self.generation_time
            )
        return self.job

    # --- JSON ---------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as it is stored: JSON, with times in ISO 8601."""
        return {
            "version": SCHEMA_VERSION,
            "state": self.state,
            "endpoint": self.endpoint,
            "account": self.account,
            "payload_digest": self.payload_digest,
            "has_seed": self.has_seed,
            "item": self.item,
            **asdict(self.task),
            "submitted_at": _iso(self.submitted_at),
            "ended_at": _iso(self.ended_at),
            "settled_by": None if self.settled_by is None else asdict(self.settled_by),
            "job": None if self.job is None else _job_record(self.job),
            "outputs": list(self.outputs),
            "files": [asdict(file) for file in self.files],
            "generation_time": self.generation_time,
            "message": self.message,
            "nonce": self.nonce,
        }

    @classmethod
    def from_dict(cls, record: Any) -> Receipt:
        """
        Return the receipt of a stored record.

        What is missing or wrong counts as not known; a record that is no receipt at all is an intent: something was
        about to be paid for.
        """
        if not isinstance(record, Mapping):
            return cls()
        state = record.get("state")
        outputs, files, settled_by = record.get("outputs"), record.get("files"), record.get("settled_by")
        return cls(
            state=state if state in STATES else "intended",
            endpoint=_text(record.get("endpoint")),
            account=_text(record.get("account")),
            payload_digest=_text(record.get("payload_digest")),
            has_seed=record.get("has_seed") is True,
            item=_text(record.get("item")),
            task=TaskTry.read(record),
            nonce=_text(record.get("nonce")),
            submitted_at=_moment(record.get("submitted_at")),
            ended_at=_moment(record.get("ended_at")),
            settled_by=TaskTry.read(settled_by) if isinstance(settled_by, Mapping) else None,
            job=_job(record.get("job")),
            outputs=tuple(filter(_is_output, sanitize(outputs, ""))) if isinstance(outputs, list) else (),
            files=tuple(map(_stored_file, files)) if isinstance(files, list) else (),
            generation_time=_number(record.get("generation_time")),
            message=_text(record.get("message")),
        )


def progress_of(record: Any) -> tuple[bool, int]:
    """Return how far a stored record has come, to be compared."""
    receipt = Receipt.from_dict(record)
    return receipt.job is not None, STATES.index(receipt.state)


def _fetchable(job: Job) -> Job:
    """Return a job reduced to what it is fetched by."""
    return Job.from_dict(_job_record(job))


def _job_record(job: Job) -> dict[str, Any]:
    return {name: value for name, value in job.to_compact_dict().items() if name in _JOB_FIELDS}


def _job(record: Any) -> Job | None:
    if not isinstance(record, Mapping):
        return None
    texts = {name: value for name, value in record.items() if name in _JOB_FIELDS and isinstance(value, str)}
    numbers = {name: _number(record.get(name)) for name in ("eta", "submitted")}
    ids = record.get("ids")
    ids = {name: text for name, text in ids.items() if isinstance(text, str)} if isinstance(ids, Mapping) else {}
    return Job.from_dict({**texts, **numbers, "ids": ids}) if texts.get("endpoint") else None


def _is_output(value: Any) -> bool:
    return isinstance(value, (str, dict, list))


def _stored_file(record: Any) -> StoredFile:
    fields_ = record if isinstance(record, Mapping) else {}
    size = fields_.get("size")
    return StoredFile(_text(fields_.get("path")), size if isinstance(size, int) and size >= 0 else None)


def _line(text: str) -> str:
    return one_line(str(shorten(text)))[:MAX_DATA]


def _iso(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")


def _moment(value: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(value).timestamp() if isinstance(value, str) else -1.0
    except (ValueError, OverflowError):
        return None
    return moment if 0 <= moment < _YEAR_5000 else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) and abs(value) < _LARGEST else None
