"""
How stored outputs are called: names without extensions, made of ids, endpoints and URLs.

Pure: no I/O, no Airflow. Ids, endpoints and URLs are foreign input. Each name that is made of them
is one plain segment of a path, is the same each time, and belongs to one output of one job only.
"""

from __future__ import annotations

import hashlib
import re
from typing import TypeGuard
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_modelslab._protocol.formatting import one_line
from airflow_provider_modelslab._protocol.outputs import as_text
from airflow_provider_modelslab.jobs import Job, Output

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


def is_url(output: Output) -> TypeGuard[str]:
    """Whether an output is the address of a file, and not the file itself; no address has blanks in it."""
    if not isinstance(output, str):
        return False
    return output.isprintable() and re.fullmatch(r"https?://\S+", output, re.IGNORECASE) is not None


def redact_url(output: Output) -> str:
    """Return an output for a person: without the query and the credentials of a URL, and never data."""
    if not is_url(output):
        text = as_text(output)
        return f"{one_line(text[:10])}… ({len(text)} characters)" if len(text) > 10 else repr(text)
    try:
        parts = urlsplit(output)
        return one_line(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))
    except ValueError:
        return "a malformed URL"


# --- parts of names ---------------------------------------------------------------------------------------


def _job_stem(job: Job) -> str:
    endpoint = ".".join(_escaped(segment) for segment in job.endpoint.split("/") if segment)
    job_id = _escaped(job.id) or _digest("\n".join(map(as_text, job.outputs)))
    return ".".join(
        part if len(part) <= _LONGEST_PART else part[: _LONGEST_PART // 2] + _digest(original)
        for part, original in ((endpoint, job.endpoint), (job_id, job.id))
        if part
    )


def _escaped(text: str) -> str:
    """Return a text made of letters, digits, ``-``, ``_`` and ``~`` only, a different one for each text."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: "".join(f"~{byte:02x}" for byte in _utf8(match[0])), text)


def _digest(text: str) -> str:
    """Return what stands for a long text; ``~h`` begins no escaped character."""
    return f"~h{hashlib.sha256(_utf8(text)).hexdigest()[:16]}"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
