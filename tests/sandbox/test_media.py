"""The files are read back by decoders of their own, written from the specifications of the formats."""

from __future__ import annotations

import io
import json
import struct
import wave
import zlib
from collections.abc import Iterator

import pytest

from airflow_provider_modelslab.sandbox.media import content_type, kind_of, make

KINDS = {
    "png": "image/png",
    "gif": "image/gif",
    "wav": "audio/wav",
    "glb": "model/gltf-binary",
    "txt": "text/plain",
}


def png_pixels(data: bytes) -> bytes:
    """Return the unpacked rows of a PNG, after checking its signature, its chunks and their sums."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(name + body),)
        chunks[name] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, depth, colour_type = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colour_type) == (8, 3)
    pixels = zlib.decompress(chunks[b"IDAT"])
    assert len(pixels) == height * (1 + width)
    assert max(pixels) < len(chunks[b"PLTE"]) // 3
    return pixels


def gif_frames(data: bytes) -> Iterator[bytes]:
    """Yield the pixels of every frame of a GIF, unpacked by the letter of the LZW rules."""
    assert data.startswith(b"GIF89a")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + 3 * 2 ** ((flags & 7) + 1)
    while data[at] != 0x3B:
        if data[at] == 0x21:
            at += 2
        else:
            assert data[at] == 0x2C
            assert struct.unpack_from("<HHHH", data, at + 1) == (0, 0, width, height)
            at += 10
        code_size = data[at] if data[at - 10] == 0x2C else None
        at += code_size is not None
        blocks = []
        while data[at]:
            blocks.append(data[at + 1 : at + 1 + data[at]])
            at += 1 + data[at]
        at += 1
        if code_size is not None:
            pixels = b"".join(lzw(b"".join(blocks), code_size))
            assert len(pixels) == width * height
            yield pixels
    assert at == len(data) - 1


def lzw(data: bytes, code_size: int) -> Iterator[bytes]:
    clear, end = 2**code_size, 2**code_size + 1
    bits, width, at = int.from_bytes(data, "little"), code_size + 1, 0
    table: list[bytes] = []
    before = b""
    while True:
        code = bits >> at & (1 << width) - 1
        at += width
        if code == end:
            return
        if code == clear:
            table = [bytes([n]) for n in range(clear)] + [b"", b""]
            width, before = code_size + 1, b""
            continue
        entry = table[code] if code < len(table) else before + before[:1]
        yield entry
        if before:
            table.append(before + entry[:1])
            if len(table) == 1 << width and width < 12:
                width += 1
        before = entry


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_png_can_be_decoded(seed: str) -> None:
    assert len(set(png_pixels(make("png", seed)))) > 1


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_gif_can_be_decoded_and_moves(seed: str) -> None:
    frames = list(gif_frames(make("gif", seed)))
    assert len(frames) > 1
    assert len(set(frames)) == len(frames)


def test_wav_can_be_decoded_and_is_not_silent() -> None:
    with wave.open(io.BytesIO(make("wav", "a"))) as sound:
        assert sound.getnframes() / sound.getframerate() == 1
        assert len(set(sound.readframes(sound.getnframes()))) > 100


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_glb_can_be_decoded(seed: str) -> None:
    data = make("glb", seed)
    assert struct.unpack_from("<4sII", data) == (b"glTF", 2, len(data))
    length, name = struct.unpack_from("<I4s", data, 12)
    assert (name, length % 4) == (b"JSON", 0)
    scene = json.loads(data[20 : 20 + length])
    binary = data[20 + length + 8 :]
    assert struct.unpack_from("<I4s", data, 20 + length) == (len(binary), b"BIN\0")
    assert len(binary) - scene["buffers"][0]["byteLength"] in range(4)
    positions, indices = scene["accessors"]
    view = scene["bufferViews"][1]
    assert view["byteOffset"] % 2 == 0
    corners = struct.unpack_from(f"<{indices['count']}H", binary, view["byteOffset"])
    assert set(corners) == set(range(positions["count"]))
    triangles = list(zip(corners[::3], corners[1::3], corners[2::3], strict=True))
    edges = {edge for a, b, c in triangles for edge in ((a, b), (b, c), (c, a))}
    assert len(edges) == 3 * len(triangles)
    assert edges == {(b, a) for a, b in edges}, "the surface is closed"
    points = list(struct.iter_unpack("<fff", binary[: scene["bufferViews"][0]["byteLength"]]))
    assert [min(axis) for axis in zip(*points, strict=True)] == positions["min"]
    assert [max(axis) for axis in zip(*points, strict=True)] == positions["max"]


def test_txt_is_text() -> None:
    assert make("txt", "a").decode().count(".") == 4


@pytest.mark.parametrize(("kind", "expected"), KINDS.items())
def test_a_file_follows_from_its_seed(kind: str, expected: str) -> None:
    first = make(kind, "a")
    make.cache_clear()
    assert make(kind, "a") == first != make(kind, "b")
    assert content_type(kind) == expected


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("v6/images/text2img", "png"),
        ("v4/dreambooth", "png"),
        ("v1/enterprise/flux_headshot/make_gen", "png"),
        ("v6/video/text2video", "gif"),
        ("v7/video-fusion/lip-sync", "gif"),
        ("v6/faceswap/single_video_swap", "gif"),
        ("v1/enterprise/ultra_video/text2video", "gif"),
        ("v6/voice/text_to_speech", "wav"),
        ("v7/voice/text-to-speech", "wav"),
        ("v6/voice/song_generator", "wav"),
        ("v6/voice/speech_to_text", "txt"),
        ("v7/voice/speech-to-text", "txt"),
        ("v6/3d/text_to_3d", "glb"),
        ("v1/enterprise/3d/image_to_3d", "glb"),
    ],
)
def test_the_path_tells_the_kind(path: str, kind: str) -> None:
    assert kind_of(path) == kind
