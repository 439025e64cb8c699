"""
What kind of file an output is: by its first bytes, its URL and its declared content type.

Pure: no I/O, no Airflow. A kind is an extension of :data:`CONTENT_TYPES`. Browsers run or render nothing of these as a
page: what is none of them, such as SVG, HTML, XML and scripts, is ``bin``.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from airflow_provider_modelslab._outputs.names import is_url
from airflow_provider_modelslab._protocol.shortening import described_digest
from airflow_provider_modelslab.jobs import Output

HEAD_BYTES = 512
"""How much of the beginning of a file tells what it is."""

_UNKNOWN = "bin"

CONTENT_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "heic": "image/heic",
    "tiff": "image/tiff",
    "tif": "image/tiff",
    "bmp": "image/bmp",
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "avi": "video/x-msvideo",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "obj": "model/obj",
    "stl": "model/stl",
    "3mf": "model/3mf",
    "usdz": "model/vnd.usdz+zip",
    "fbx": "application/octet-stream",
    "ply": "application/octet-stream",
    "safetensors": "application/octet-stream",
    "zip": "application/zip",
    "pdf": "application/pdf",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    _UNKNOWN: "application/octet-stream",
}
"""Every kind with the content type that it is stored with."""


def kind_of(output: Output, head: bytes, content_type: str = "") -> str:
    """
    Return the kind of an output: by its bytes where they tell, else by its URL, else by its declared content type.

    :param output: the URL, or the data itself.
    :param head: the first :data:`HEAD_BYTES` of the file.
    :param content_type: as the server declares it, which is often wrong.
    """
    if not isinstance(output, str):
        return "json"
    if is_text(output):
        return "txt"
    by_url = kind_of_url(output)
    if by_bytes := kind_of_bytes(head):
        return by_url if by_url in _SPECIAL_KINDS.get(by_bytes, ()) else by_bytes
    if _start_of(head).startswith(b"<"):
        return _UNKNOWN
    return by_url or _BY_CONTENT_TYPE.get(_bare(content_type), _UNKNOWN)


def content_type_of(name: str) -> str:
    """Return the content type that a file is stored with, by the extension of its name."""
    return CONTENT_TYPES.get(name.rpartition(".")[2], CONTENT_TYPES[_UNKNOWN])


def is_text(output: str) -> bool:
    """Whether an output is a text itself: no address, no ``data:`` URL, no base64, and not the rest of a long one."""
    return not (_ADDRESS.match(output) or _BASE64.fullmatch(output) or described_digest(output))


def kind_of_url(output: str) -> str | None:
    """Return the kind that a URL's path ends in, or ``None``."""
    extension = _path(output).rpartition("/")[2].rpartition(".")
    return extension[2] if extension[0] and extension[2] in CONTENT_TYPES else None


def holds_base64(output: str) -> bool:
    """Whether the file behind a URL is base64 text of the real file."""
    return _path(output).endswith(".base64")


def not_media(output: str, head: bytes, content_type: str) -> str | None:
    """
    Return what the body is that came instead of a file, in words, or ``None`` where it may be the file.

    CDNs and proxies answer 200 with pages, and declare pictures as text: the first bytes count most.
    """
    if not head:
        return "an empty file"
    if kind_of_bytes(head):
        return None
    start = _start_of(head)
    declared = _bare(content_type)
    if start.startswith(_HTML) or (start.startswith(b"<") and "html" in declared):
        return "an HTML page"
    if start.startswith(b"<error") or (start.startswith(b"<?xml") and b"<error" in start):
        return "an XML error"
    textual = declared.startswith("text/") or declared.endswith(("json", "xml"))
    if textual and kind_of_url(output) in _KINDS_WITH_SIGNATURE:
        return f"text ({declared})"
    return None


_ADDRESS = re.compile(r"data:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\r\n-]{64,}=*\s*")

_HTML = (b"<!doctype html", b"<html", b"<head", b"<body")

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

# Kinds that begin like another one: here the URL tells more than the bytes.
_SPECIAL_KINDS = {
    "jpg": ("jpeg",),
    "tiff": ("tif",),
    "mp4": ("m4v", "m4a", "mov"),
    "webm": ("mkv",),
    "ogg": ("opus",),
    "zip": ("3mf", "usdz"),
}

_BY_CONTENT_TYPE = {
    **{content_type.partition(";")[0]: kind for kind, content_type in reversed(CONTENT_TYPES.items())},
    CONTENT_TYPES[_UNKNOWN]: _UNKNOWN,
    "image/jpg": "jpg",
    "audio/mp3": "mp3",
    "audio/x-wav": "wav",
}


def kind_of_bytes(head: bytes) -> str | None:
    """Return the kind that the first bytes of a file tell, or ``None``."""
    return next((kind for signature, kind in _SIGNATURES if signature.match(head)), None)


def _start_of(head: bytes) -> bytes:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()


def _path(output: str) -> str:
    try:
        return unquote(urlsplit(output).path).lower() if is_url(output) else ""
    except ValueError:
        return ""


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
