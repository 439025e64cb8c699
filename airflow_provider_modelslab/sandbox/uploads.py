"""The files that clients have uploaded as base64, which the sandbox serves again. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field

MAX_BYTES = 5 * 2**20
"""What the API takes: "max 5MB"."""

_DATA = re.compile(r"data:(?P<type>[\w.+/-]+);base64,\s*(?P<text>.*)", re.DOTALL)


@dataclass(frozen=True)
class Upload:
    """
    An uploaded file.

    :param body: its content.
    :param content_type: what the client says it is.
    """

    body: bytes = field(repr=False)
    content_type: str


class Uploads:
    """All uploaded files, by the path under which they are served."""

    def __init__(self) -> None:
        self._files: dict[str, Upload] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how many uploads there were."""
        return self._count

    def add(self, upload: Upload) -> str:
        """Keep a file, and return its path."""
        self._count += 1
        digest = hashlib.sha256(upload.body).hexdigest()[:24]
        name = f"uploads/{digest}-{self._count}.{upload.content_type.rpartition('/')[2]}"
        self._files[name] = upload
        return name

    def find(self, name: str) -> Upload | None:
        """Return the file that has a path."""
        return self._files.get(name)


def decode(text: object) -> Upload | None:
    """Return the file of a ``data:`` URL, or of plain base64; ``None`` where it is neither."""
    if not isinstance(text, str) or not text:
        return None
    match = _DATA.fullmatch(text)
    try:
        body = base64.b64decode(match["text"] if match else text, validate=True)
    except ValueError:
        return None
    return Upload(body, match["type"] if match else "application/octet-stream")
