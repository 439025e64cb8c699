"""
What stored outputs are called and what is written beside them: names, extensions, the record of a job.

Pure: no I/O, no Airflow. Ids, endpoints and URLs are foreign input, and whatever they hold, a name that is made here
is one plain segment of a path, is the same whenever it is made, and belongs to one output of one job only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_modelslab.jobs import Job

_LONGEST_PART = 80
"""Characters of an endpoint or an id in a name; file systems take 255 bytes in all."""


def output_stem(job: Job, index: int) -> str:
    """
    Return the name of an output without its extension, for example ``v6.video.147-0``.

    The endpoint is part of it because ids are only unique within their own. The parts are put together in such a way
    that no two outputs, and no output and record, share a name: neither part holds a dot of its own.
    """
    return f"{_job_stem(job)}-{index}"


def record_name(job: Job) -> str:
    """Return the name of the file with the job's record, for example ``v6.video.147.job.json``."""
    return f"{_job_stem(job)}.job.json"


def job_record(job: Job, files: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """
    Return what the file beside a job's outputs says: the job, and the names and sizes of its files.

    :param job: the job; outputs that are data and not URLs are not repeated, they are in the files.
    :param files: name and size in bytes per output, in the order of the outputs.
    """
    return {
        **job.to_dict(),
        "outputs": [output if is_url(output) else _fingerprint(output) for output in job.outputs],
        "files": [name for name, _ in files],
        "sizes": [size for _, size in files],
    }


def recorded_files(job: Job, record: Any) -> list[tuple[str, int]] | None:
    """
    Return name and size of the files that a stored record tells of, or ``None`` where it is not about these outputs.

    :param job: the job whose outputs are wanted.
    :param record: what :func:`job_record` once returned, or whatever else was in the file.
    """
    if not isinstance(record, dict):
        return None
    outputs, names, sizes = (record.get(name) for name in ("outputs", "files", "sizes"))
    if not (isinstance(outputs, list) and isinstance(names, list) and isinstance(sizes, list)):
        return None
    if len(names) != len(sizes) or list(map(_identity, outputs)) != list(map(_identity, job.outputs)):
        return None
    files = [(name, size) for name, size in zip(names, sizes, strict=True) if isinstance(name, str)]
    expected = [output_stem(job, index) for index in range(len(job.outputs))]
    return files if [_EXTENSION_OF_NAME.sub("", name) for name, _ in files] == expected else None


def is_url(output: str) -> bool:
    """Whether an output is the address of a file, and not the file itself."""
    return re.match(r"https?://", output, re.IGNORECASE) is not None


def redact_url(output: str) -> str:
    """Return an output for a person: without the query and the credentials of a URL, and never data."""
    if not is_url(output):
        return f"{output[:10]}… ({len(output)} characters)" if len(output) > 10 else repr(output)
    try:
        parts = urlsplit(output)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "a malformed URL"


# --- parts of names ---------------------------------------------------------------------------------------


def _job_stem(job: Job) -> str:
    job_id = _bounded(_escaped(job.id), job.id) if job.id else _digest("\n".join(job.outputs))
    endpoint = ".".join(_escaped(segment) for segment in job.endpoint.split("/") if segment)
    return ".".join(filter(None, [_bounded(endpoint, job.endpoint), job_id]))


def _escaped(text: str) -> str:
    """Return a text made of letters, digits, ``-``, ``_`` and ``~`` only, a different one for each text."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: "".join(f"~{byte:02x}" for byte in _utf8(match[0])), text)


def _bounded(part: str, original: str) -> str:
    return part if len(part) <= _LONGEST_PART else part[: _LONGEST_PART // 2] + _digest(original)


def _digest(text: str) -> str:
    """Return what stands for a long text; ``~h`` begins no escaped character."""
    return f"~h{hashlib.sha256(_utf8(text)).hexdigest()[:16]}"


def _identity(output: object) -> str:
    """Return what stays the same when an output is named again: signatures in a query do not."""
    text = str(output)
    if is_url(text):
        return text.partition("?")[0]
    return text if text.startswith(_FINGERPRINT) else _fingerprint(text)


_FINGERPRINT = "sha256:"


def _fingerprint(data: str) -> str:
    return _FINGERPRINT + hashlib.sha256(_utf8(data)).hexdigest()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_EXTENSION_OF_NAME = re.compile(r"\.[a-z0-9]{1,8}$")
