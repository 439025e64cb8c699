"""
The record of a job: the file beside its stored outputs that tells what they are.

Pure: no I/O, no Airflow. A record that is read again is foreign input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from airflow_provider_modelslab._outputs.media_types import content_type_of
from airflow_provider_modelslab._outputs.names import is_url, output_stem
from airflow_provider_modelslab._protocol.outputs import as_text
from airflow_provider_modelslab._protocol.shortening import described_digest, digest
from airflow_provider_modelslab.jobs import Job


def job_record(job: Job, files: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """
    Return what the file beside a job's outputs says: the job, and the names, sizes and content types of its files.

    :param job: the job. Of outputs that are no URLs, the record has the digest; the data is in the files.
    :param files: name and size in bytes per output, in the order of the outputs.
    """
    return {
        **job.to_dict(),
        "outputs": [output if is_url(output) else _identity(output) for output in job.outputs],
        "files": [name for name, _ in files],
        "sizes": [size for _, size in files],
        "content_types": [content_type_of(name) for name, _ in files],
    }


def recorded_files(job: Job, record: Any) -> list[tuple[str, int]] | None:
    """
    Return name and size of the files that a stored record tells of, or ``None`` where it is not about these outputs.

    :param job: the job whose outputs are wanted.
    :param record: what :func:`job_record` once returned, or anything else that was in the file.
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
    return files if [_EXTENSION.sub("", name) for name, _ in files] == expected else None


def _identity(output: Any) -> str:
    """Return what stays the same when an output is named again, signed again or shortened."""
    text = as_text(output)
    if is_url(text):
        return text.partition("?")[0]
    return text if _DIGEST.fullmatch(text) else described_digest(text) or digest(text)


_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_EXTENSION = re.compile(r"\.[a-z0-9]{1,11}$")
