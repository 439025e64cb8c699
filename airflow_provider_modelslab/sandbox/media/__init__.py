"""
The files that finished jobs point to: the small real ones in this folder, each marked with the job it was made for.

Pure but for reading the folder once. The same seed always gives the same file.
"""

from __future__ import annotations

import random
import re
import struct
from functools import cache
from pathlib import Path
from typing import Any

CONTENT_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "gif": "image/gif",
    "mp4": "video/mp4",
    "wav": "audio/wav",
    "glb": "model/gltf-binary",
    "txt": "text/plain",
}
"""The content type of each kind of file; a kind is named by the extension of its files."""

# The first pattern found in the path decides: speech to text is text, though it lives among the voices.
_KIND_BY_PATH = {
    r"speech[_-]to[_-]text|whisper|lyrics|caption": "txt",
    r"3d": "glb",
    r"video|lip-sync": "mp4",
    r"voice|speech|audio|music|song|sound|sfx": "wav",
}


def kind_of(path: str, output_type: Any = None) -> str:
    """
    Return the kind of file that a generation endpoint makes.

    :param path: the path of the generation endpoint, for example ``v6/video/text2video``.
    :param output_type: the parameter of that name, by which a client chooses ``gif``, for example.
    """
    if isinstance(output_type, str) and output_type in CONTENT_TYPES:
        return output_type
    return next((kind for pattern, kind in _KIND_BY_PATH.items() if re.search(pattern, path)), "png")


def make(kind: str, seed: str) -> bytes:
    """
    Return a file of a kind.

    :param kind: one of :data:`CONTENT_TYPES`.
    :param seed: chooses among the files of the kind, and marks the one returned.
    """
    content, mark = random.Random(seed).choice(_files(kind)), seed.encode()
    if kind == "txt":
        return content + mark + b"\n"
    if kind == "glb":  # a chunk of a type that readers skip; the header has the length of the whole
        mark += b" " * (-len(mark) % 4)
        content += struct.pack("<I4s", len(mark), b"MARK") + mark
        return content[:8] + struct.pack("<I", len(content)) + content[12:]
    # MP4 has such boxes for what players are to skip; readers of the other formats stop at the end of their data.
    return content + struct.pack(">I4s", 8 + len(mark), b"free") + mark


@cache
def _files(kind: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(__file__).parent.glob(f"*.{kind}"))]
