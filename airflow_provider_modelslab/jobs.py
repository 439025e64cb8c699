"""
A generation job and its states: the value that hook, sensor, operator and trigger exchange.

Pure data: no I/O, no Airflow, no knowledge of what ModelsLab answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, TypeAlias, get_args

__all__ = ["Job", "JobStatus", "Output"]

JobStatus = Literal["success", "processing", "failed"]

Output: TypeAlias = "str | dict[str, Any] | list[Any]"
"""
One output: a URL, a text or embedded data (a string), or a structured result such as a transcript with the times of its
words (a JSON object or list).
"""

JOB_STATUSES: tuple[JobStatus, ...] = get_args(JobStatus)


@dataclass(frozen=True, slots=True)
class Job(dict[str, Any]):
    """
    One generation job as far as it is known.

    It is a ``dict`` of its fields, too, because Airflow stores every dataclass in an XCom, but loads only dicts and the
    classes that its configuration allows. What it loads is the plain record, which sensor and hook take like the job.

    :param id: the id, as a string; empty where a submission was done at once and ModelsLab gave none.
    :param endpoint: the family it is fetched under, for example ``v6/video``.
    :param status: ``"success"``, ``"processing"`` or ``"failed"``.
    :param outputs: the URLs of the finished files (base64 text where that was asked for), texts, and structured
        results; empty until then.
    :param eta: ModelsLab's estimate of the seconds left, or ``None`` where it gave none.
    :param message: ModelsLab's words about the job, for example why it failed. Never contains the API key.
    :param proxy_links: further URLs of the outputs. Filled before the files exist: no sign of completion.
    :param nsfw_content_detected: whether an output was blanked as unsafe, for all or per output.
    :param generation_time: seconds that the generation took.
    :param meta: the parameters of the generation, as ModelsLab echoes them.
    :param submitted: when it was submitted, in seconds since the epoch, where that is known: its ``eta`` counts from
        there.
    :param reply_id: the id that replies name, where it differs from the one by which the job is fetched.
    :param host: the official host that its ``fetch_result`` names, or that it was submitted to; empty for the one that
        serves its family. A connection's own host replaces it.
    :param id_in: where its ``fetch_result`` has the id: ``"path"`` or ``"body"``; empty for its family's own form.
    :param ids: further ids that its reply named, by the names of their fields.
    :param future_links: where ModelsLab said that the outputs will be: no sign of completion.
    :param other_links: further URLs of a successful reply, which are neither its outputs nor copies of them.
    """

    id: str
    endpoint: str
    status: JobStatus = "processing"
    outputs: list[Output] = field(default_factory=list)
    eta: float | None = None
    message: str = ""
    proxy_links: list[str] = field(default_factory=list)
    nsfw_content_detected: bool | list[bool] | None = None
    generation_time: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    submitted: float | None = None
    reply_id: str = ""
    host: str = ""
    id_in: Literal["", "path", "body"] = ""
    ids: dict[str, str] = field(default_factory=dict)
    future_links: list[str] = field(default_factory=list)
    other_links: list[str] = field(default_factory=list)

    # Airflow reads this of a return annotation. Without it, "-> Job" would mean an XCom for each field.
    # Airflow 3.0 then fails the task, whose job is paid for, because it cannot store an XCom that is None.
    __origin__: ClassVar[type] = object

    def __post_init__(self) -> None:
        self.update({name: getattr(self, name) for name in _FIELDS})

    def failed(self, reason: str = "") -> Job:
        """Return the job as failed, for a reason that takes the place of ModelsLab's words."""
        return replace(self, status="failed", eta=None, message=reason or self.message)

    def to_dict(self) -> dict[str, Any]:
        """Return the job as a JSON-serialisable record, one key per field: what travels in XComs."""
        return dict(self)

    def to_compact_dict(self) -> dict[str, Any]:
        """Return the record without what is empty: what travels in triggers and events, once per job."""
        record = {name: value for name, value in self.items() if value not in (None, "", [], {})}
        if not self.finished:
            del record["status"]
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Job:
        """Return the job of a record of either kind; fields that it does not know are left out."""
        known = {name: value for name, value in record.items() if name in _FIELDS}
        return cls(**{"id": "", "endpoint": "", **known})

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more: the job has succeeded or failed."""
        return self.status != "processing"

    def __str__(self) -> str:
        return f"{self.endpoint}:{self.id or '(no id)'}"


_FIELDS = tuple(each.name for each in fields(Job))
