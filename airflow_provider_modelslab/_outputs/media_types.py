"""
What kind of file an output is: by its first bytes, its URL and its declared content type.

Pure: no I/O, no Airflow.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from airflow_provider_modelslab._outputs.names import is_url

HEAD_BYTES = 512
"""How much of the beginning of a file tells what it is."""


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
