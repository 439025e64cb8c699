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
from urllib.parse import unquote, urlsplit, urlunsplit

from airflow_provider_modelslab.jobs import Job

HEAD_BYTES = 512
"""How much of the beginning of a file tells what it is."""

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


def shown(output: str) -> str:
    """Return an output for a person: without the query and the credentials of a URL, and never data."""
    if not is_url(output):
        return f"{output[:10]}… ({len(output)} characters)" if len(output) > 10 else repr(output)
    try:
        parts = urlsplit(output)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "a malformed URL"


# --- kinds of files ---------------------------------------------------------------------------------------


def extension(output: str, head: bytes, content_type: str = "") -> str:
    """
    Return the extension of an output: the URL's own, or else what the file or its content type says, or ``bin``.

    :param output: the URL.
    :param head: the first :data:`HEAD_BYTES` of the file.
    :param content_type: as the server declares it, which is often wrong.
    """
    return extension_of_url(output) or _extension_of_bytes(head) or _BY_TYPE.get(_bare(content_type), "bin")


def extension_of_url(output: str) -> str | None:
    """Return the extension in a URL's path, if it is that of a file and not of a program or of an encoding."""
    if not is_url(output):
        return None
    try:
        path = unquote(urlsplit(output).path)
    except ValueError:
        return None
    match = re.search(r"[^/]\.((?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,8})$", path)
    if match is None or match[1].lower() in _NO_KINDS:
        return None
    return match[1].lower()


def holds_base64(output: str) -> bool:
    """Whether the file behind a URL is base64 text of the real file."""
    try:
        return is_url(output) and urlsplit(output).path.lower().endswith(".base64")
    except ValueError:
        return False


def not_media(output: str, head: bytes, content_type: str) -> str | None:
    """
    Return what the body is that came instead of a file, in words, or ``None`` where it may be the file.

    CDNs and proxies answer 200 with pages, and declare pictures as text: the first bytes count most.
    """
    if not head:
        return "an empty file"
    if _extension_of_bytes(head):
        return None
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    declared = _bare(content_type)
    if start.startswith(_HTML) or (start.startswith(b"<") and "html" in declared):
        return "an HTML page"
    if start.startswith(b"<error") or (start.startswith(b"<?xml") and b"<error" in start):
        return "an XML error"
    textual = declared.startswith("text/") or declared.endswith(("json", "xml"))
    if textual and extension_of_url(output) in _KINDS_WITH_SIGNATURE:
        return f"text ({declared})"
    return None


_HTML = (b"<!doctype html", b"<html", b"<head", b"<body")

_EXTENSION_OF_NAME = re.compile(r"\.[a-z0-9]{1,8}$")

# What URLs end in that says nothing about the file: programs, pages, and the encoding of the real file.
_NO_KINDS = frozenset(["php", "asp", "aspx", "jsp", "cgi", "html", "htm", "base64", "b64"])

_SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"\x89PNG\r\n\x1a\n", "png"),
        (rb"\xff\xd8\xff", "jpg"),
        (rb"GIF8[79]a", "gif"),
        (rb"RIFF....WEBP", "webp"),
        (rb"RIFF....WAVE", "wav"),
        (rb"RIFF....AVI ", "avi"),
        (rb"....ftypqt  ", "mov"),
        (rb"....ftypM4A ", "m4a"),
        (rb"....ftypavi[fs]", "avif"),
        (rb"....ftyp(hei|mif)", "heic"),
        (rb"....ftyp", "mp4"),
        (rb"\x1aE\xdf\xa3", "webm"),
        (rb"ID3|\xff[\xfb\xf3\xf2]", "mp3"),
        (rb"\xff[\xf1\xf9]", "aac"),
        (rb"OggS", "ogg"),
        (rb"fLaC", "flac"),
        (rb"glTF", "glb"),
        (rb"Kaydara FBX Binary", "fbx"),
        (rb"II\*\0|MM\0\*", "tiff"),
        (rb"%PDF-", "pdf"),
        (rb"PK\x03\x04", "zip"),
    )
)

_KINDS_WITH_SIGNATURE = frozenset(kind for _, kind in _SIGNATURES) | {"jpeg"}

_BY_TYPE = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/svg+xml": "svg",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/quicktime": "mov",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "model/gltf-binary": "glb",
    "model/gltf+json": "gltf",
    "model/obj": "obj",
    "text/plain": "txt",
    "application/json": "json",
}


def _extension_of_bytes(head: bytes) -> str | None:
    return next((kind for signature, kind in _SIGNATURES if signature.match(head)), None)


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


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
