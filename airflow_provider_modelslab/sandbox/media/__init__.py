"""
The files that finished jobs point to: the small real ones in this folder, each marked with the job it was made for.

Pure but for reading the folder once. The same seed, size and prompt always give the same file.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Iterator
from functools import cache, lru_cache
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


def make(kind: str, seed: str, size: tuple[int, int] | None = None, prompt: str = "") -> bytes:
    """
    Return a file of a kind.

    :param kind: one of :data:`CONTENT_TYPES`.
    :param seed: chooses among the files of the kind, and marks the one returned.
    :param size: width and height of a PNG in pixels; other kinds have the size that they have.
    :param prompt: what is asked for: where a word of it names what a file of the kind shows, it gets that file.
    """
    files = _files(kind)
    words = set(re.findall(r"\w+", prompt.lower()))
    named = [content for name, content in files.items() if words & {name, f"{name}s", f"{name}es"}]
    content, mark = random.Random(seed).choice(named or list(files.values())), seed.encode()
    if kind == "png" and size is not None:
        content = _resized(content, *size)
    if kind == "txt":
        return content + mark + b"\n"
    if kind == "glb":  # a chunk of a type that readers skip; the header has the length of the whole
        mark += b" " * (-len(mark) % 4)
        content += struct.pack("<I4s", len(mark), b"MARK") + mark
        return content[:8] + struct.pack("<I", len(content)) + content[12:]
    # MP4 has such boxes for what players are to skip; readers of the other formats stop at the end of their data.
    return content + struct.pack(">I4s", 8 + len(mark), b"free") + mark


@lru_cache(maxsize=64)
def _resized(png: bytes, width: int, height: int) -> bytes:
    """Return one of our PNGs, all of which have 16 colours and unfiltered rows, in another size."""
    chunks = dict(_chunks(png))
    own_width, own_height = struct.unpack_from(">II", chunks[b"IHDR"])
    length = own_width // 2  # two pixels in a byte, behind a byte that says "unfiltered"
    packed = zlib.decompress(chunks[b"IDAT"])
    columns = [divmod(x * own_width // width, 2) for x in range(width)]
    rows = []
    for start in range(1, len(packed), length + 1):
        row = packed[start : start + length]
        rows.append(b"\0" + bytes(row[index] & 15 if odd else row[index] >> 4 for index, odd in columns))
    pixels = b"".join(rows[y * own_height // height] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    content = {**chunks, b"IHDR": header, b"IDAT": zlib.compress(pixels)}
    return png[:8] + b"".join(_chunk(name, data) for name, data in content.items())


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(png):
        length, name = struct.unpack_from(">I4s", png, position)
        yield name, png[position + 8 : position + 8 + length]
        position += 12 + length


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))


@cache
def _files(kind: str) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted(Path(__file__).parent.glob(f"*.{kind}"))}
