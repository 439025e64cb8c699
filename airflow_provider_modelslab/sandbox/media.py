"""
Makes the files that finished jobs point to: real pictures, animations, sounds, 3D models and transcripts.

Pure: a kind and a seed go in, bytes come out, and the same seed always gives the same file. Standard library
only. What a file looks like follows from its seed, so that the outputs of different jobs can be told apart by eye.
"""

from __future__ import annotations

import colorsys
import io
import json
import math
import random
import re
import struct
import wave
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

_CELLS = 8
"""Pictures are a pattern of 8 by 8 cells, mirrored left to right, in four colours."""

Pattern = list[list[int]]


def kind_of(path: str) -> str:
    """
    Return the kind of file that a generation endpoint makes, as the extension of its files.

    :param path: the path of the generation endpoint, for example ``v6/video/text2video``.
    """
    return next((kind for pattern, kind in _KIND_BY_PATH if pattern.search(path)), "png")


def content_type(kind: str) -> str:
    """Return the content type of a kind."""
    return _MAKERS[kind].content_type


@lru_cache(maxsize=128)
def make(kind: str, seed: str) -> bytes:
    """
    Return a file.

    :param kind: ``png``, ``gif``, ``wav``, ``glb`` or ``txt``.
    :param seed: decides what it shows.
    """
    return _MAKERS[kind].make(random.Random(seed))


def _png(rng: random.Random) -> bytes:
    side = _CELLS * 32
    rows = b"".join(b"\0" + row for row in _pixel_rows(_pattern(rng), scale=32))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 3, 0, 0, 0)),  # 8 bits a pixel, palette
            _png_chunk(b"PLTE", _palette(rng)),
            _png_chunk(b"IDAT", zlib.compress(rows)),
            _png_chunk(b"IEND", b""),
        )
    )


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _gif(rng: random.Random) -> bytes:
    side = _CELLS * 12
    pattern = _pattern(rng)
    palette = _palette(rng).ljust(3 * 128, b"\0")
    screen = struct.pack("<HHBBB", side, side, 0x80 | 6, 0, 0)  # a global palette of 2 ** (6 + 1) colours
    forever = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    frames = (_gif_frame([row[shift:] + row[:shift] for row in pattern]) for shift in range(_CELLS))
    return b"GIF89a" + screen + palette + forever + b"".join(frames) + b"\x3b"


def _gif_frame(pattern: Pattern) -> bytes:
    """
    Return one frame, shown for 0.12 s.

    The LZW stream is not compressed: a clear code (0x80) every 120 pixels keeps the decoder's table below 256
    entries, hence every code exactly one byte wide, hence every pixel its own code.
    """
    side = _CELLS * 12
    control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 0, 12, 0, 0)
    descriptor = struct.pack("<BHHHHB", 0x2C, 0, 0, side, side, 0)
    pixels = b"".join(_pixel_rows(pattern, scale=12))
    codes = b"".join(b"\x80" + pixels[at : at + 120] for at in range(0, len(pixels), 120)) + b"\x81"
    blocks = (codes[at : at + 255] for at in range(0, len(codes), 255))
    return control + descriptor + b"\x07" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def _pattern(rng: random.Random) -> Pattern:
    halves = [[rng.randrange(4) for _ in range(_CELLS // 2)] for _ in range(_CELLS)]
    return [half + half[::-1] for half in halves]


def _pixel_rows(pattern: Pattern, scale: int) -> list[bytes]:
    return [b"".join(bytes([colour]) * scale for colour in row) for row in pattern for _ in range(scale)]


def _palette(rng: random.Random) -> bytes:
    hue = rng.random()
    return b"".join(bytes(_rgb(hue + step / 9, brightness=1 - step / 5)) for step in range(4))


def _rgb(hue: float, brightness: float) -> list[int]:
    return [round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, 0.65, brightness)]


def _wav(rng: random.Random) -> bytes:
    """Return four notes of a quarter of a second each."""
    rate = 8000
    notes = [220 * 2 ** (rng.randrange(25) / 12) for _ in range(4)]
    samples = (
        int(12000 * math.sin(2 * math.pi * note * tick / rate) * (1 - tick / (rate // 4)))
        for note in notes
        for tick in range(rate // 4)
    )
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(struct.pack(f"<{rate}h", *samples))
    return buffer.getvalue()


def _glb(rng: random.Random) -> bytes:
    """Return a gem: two pyramids, base to base, over a polygon of 3 to 8 corners."""
    corners = rng.randrange(3, 9)
    ring = [(math.cos(turn), 0.0, math.sin(turn)) for turn in (2 * math.pi * n / corners for n in range(corners))]
    points = [(0.0, 1 + rng.random(), 0.0), (0.0, -1 - rng.random(), 0.0), *ring]
    faces = [
        face
        for here, there in ((2 + n, 2 + (n + 1) % corners) for n in range(corners))
        for face in ((0, there, here), (1, here, there))
    ]
    vertices = struct.pack(f"<{3 * len(points)}f", *chain.from_iterable(points))
    indices = struct.pack(f"<{3 * len(faces)}H", *chain.from_iterable(faces))
    colour = [part / 255 for part in _rgb(rng.random(), brightness=0.9)]
    scene = {
        "asset": {"version": "2.0", "generator": "ModelsLab sandbox"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [*colour, 1.0]}}],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": 5126,  # float
                "count": len(points),
                "type": "VEC3",
                "min": [min(axis) for axis in zip(*_as_floats(vertices), strict=True)],
                "max": [max(axis) for axis in zip(*_as_floats(vertices), strict=True)],
            },
            {"bufferView": 1, "componentType": 5123, "count": 3 * len(faces), "type": "SCALAR"},  # unsigned short
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": len(vertices), "target": 34962},
            {"buffer": 0, "byteOffset": len(vertices), "byteLength": len(indices), "target": 34963},
        ],
        "buffers": [{"byteLength": len(vertices) + len(indices)}],
    }
    chunks = _glb_chunk(b"JSON", json.dumps(scene).encode(), b" ") + _glb_chunk(b"BIN\0", vertices + indices, b"\0")
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _glb_chunk(name: bytes, data: bytes, padding: bytes) -> bytes:
    padded = data + padding * (-len(data) % 4)
    return struct.pack("<I4s", len(padded), name) + padded


def _as_floats(vertices: bytes) -> list[tuple[float, float, float]]:
    """Return the points as a reader of the file sees them: the bounds must be exact in single precision."""
    return list(struct.iter_unpack("<fff", vertices))


def _txt(rng: random.Random) -> bytes:
    sentences = (f"{rng.choice(_WHO)} {rng.choice(_DOES)} {rng.choice(_WHAT)}." for _ in range(4))
    return (" ".join(sentences) + "\n").encode()


_WHO = ("The scheduler", "A quiet worker", "The triggerer", "Somebody on call", "The last task", "Every sensor")
_DOES = ("waits for", "remembers", "paints", "sings about", "forgets", "measures")
_WHAT = ("the morning run", "a red balloon", "three small files", "the end of the queue", "an empty slot", "the sea")


@dataclass(frozen=True)
class _Maker:
    content_type: str
    make: Callable[[random.Random], bytes]


_MAKERS = {
    "png": _Maker("image/png", _png),
    "gif": _Maker("image/gif", _gif),
    "wav": _Maker("audio/wav", _wav),
    "glb": _Maker("model/gltf-binary", _glb),
    "txt": _Maker("text/plain", _txt),
}

# The first pattern found in the path decides: speech to text is text, though it lives among the voices.
_KIND_BY_PATH = [
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"speech[_-]to[_-]text|whisper|lyrics|caption", "txt"),
        (r"3d", "glb"),
        (r"video|lip-sync", "gif"),
        (r"voice|speech|audio|music|song|sound|sfx", "wav"),
    )
]
