"""The files in the package are real ones, and each job gets its own."""

from __future__ import annotations

import io
import json
import struct
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox, media
from airflow_provider_modelslab.sandbox.media import CONTENT_TYPES, kind_of, make
from tests.sandbox.conftest import Post

MEDIA = Path(media.__file__).parent

SIGNATURES = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpg": b"\xff\xd8\xff\xe0",
    "gif": b"GIF89a",
    "mp4": b"\0\0\0\x20ftypisom",
    "wav": b"RIFF",
    "glb": b"glTF\2\0\0\0",
    "txt": b"The lighthouse",
}


@pytest.mark.parametrize("kind", CONTENT_TYPES)
def test_a_file_is_of_its_kind_and_small(kind: str) -> None:
    content = make(kind, "a")
    assert content.startswith(SIGNATURES[kind])
    assert len(content) <= 10_000


@pytest.mark.parametrize("kind", CONTENT_TYPES)
def test_a_file_follows_from_its_seed(kind: str) -> None:
    assert make(kind, "a") == make(kind, "a") != make(kind, "b")


def test_pictures_of_several_jobs_look_different() -> None:
    assert len({make("png", str(seed))[:200] for seed in range(20)}) == 3


@pytest.mark.parametrize("name", ["fox", "harbour", "lighthouse"])
def test_a_picture_shows_what_its_prompt_names(sandbox: Sandbox, name: str) -> None:
    jobs = [sandbox.submit("v6/images/text2img", {"prompt": f"A {name.title()} in the snow"}) for _ in range(5)]
    sandbox.finish_all()
    pictures = {requests.get(job["future_links"][0], timeout=60).content[:200] for job in jobs}
    assert pictures == {(MEDIA / f"{name}.png").read_bytes()[:200]}


def test_a_prompt_names_by_whole_words() -> None:
    def shown(prompt: str) -> set[bytes]:
        return {make("png", str(seed), prompt=prompt)[:200] for seed in range(20)}

    fox = {(MEDIA / "fox.png").read_bytes()[:200]}
    assert shown("Foxes, running") == shown("fox") == shown("a FOX-like animal") == fox
    assert len(shown("the logo of Firefox")) == len(shown("")) == 3
    assert len(shown("a fox and two lighthouses")) == 2


def test_another_request_has_files_of_another_name_also_after_a_reset(sandbox: Sandbox) -> None:
    """A browser keeps a file for a minute, and would show it for the new job."""

    def link(prompt: str) -> str:
        sandbox.reset()
        url: str = sandbox.submit("v6/images/text2img", {"prompt": prompt})["future_links"][0]
        return url

    assert link("a fox") == link("a fox") != link("a harbour")


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of the boxes of an MP4."""
    while data:
        length, name = struct.unpack_from(">I4s", data)
        assert 8 <= length <= len(data)
        yield name, data[8:length]
        data = data[length:]


def test_a_video_plays_while_it_loads() -> None:
    content = list(boxes(make("mp4", "a")))
    assert [name for name, _ in content] == [b"ftyp", b"moov", b"free", b"mdat", b"free"]
    assert content[-1][1] == b"a"
    # H.264, Constrained Baseline, which every browser decodes.
    _, _, profile = dict(content)[b"moov"].partition(b"avcC")
    assert profile[:3] == b"\x01\x42\xc0"


def test_a_sound_can_be_decoded() -> None:
    with wave.open(io.BytesIO(make("wav", "a"))) as sound:
        assert sound.getnframes() / sound.getframerate() == 1
        assert len(set(sound.readframes(sound.getnframes()))) > 100


def test_a_model_can_be_decoded() -> None:
    content = make("glb", "a")
    length, name = struct.unpack_from("<I4s", content, 12)
    assert name == b"JSON"
    assert struct.unpack_from("<I", content, 8) == (len(content),)
    assert json.loads(content[20 : 20 + length])["meshes"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("v6/images/text2img", "png"),
        ("v4/dreambooth", "png"),
        ("v1/enterprise/flux_headshot/make_gen", "png"),
        ("v6/video/text2video", "mp4"),
        ("v7/video-fusion/lip-sync", "mp4"),
        ("v6/faceswap/single_video_swap", "mp4"),
        ("v1/enterprise/ultra_video/text2video", "mp4"),
        ("v6/voice/text_to_speech", "wav"),
        ("v7/voice/text-to-speech", "wav"),
        ("v6/voice/song_generator", "wav"),
        ("v6/voice/speech_to_text", "txt"),
        ("v7/voice/speech-to-text", "txt"),
        ("v6/3d/text_to_3d", "glb"),
        ("v1/enterprise/3d/image_to_3d", "glb"),
    ],
)
def test_the_path_decides_the_kind(path: str, kind: str) -> None:
    assert kind_of(path) == kind


@pytest.mark.parametrize(
    ("output_type", "kind"), [("gif", "gif"), ("mp4", "mp4"), ("exe", "mp4"), (["gif"], "mp4"), (None, "mp4")]
)
def test_a_client_may_choose_the_kind(output_type: object, kind: str) -> None:
    assert kind_of("v6/video/text2video", output_type) == kind


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        ({"width": 512, "height": 768}, (512, 768)),
        ({"width": "1024", "height": "64"}, (1024, 64)),
        ({"width": "300.0", "height": 200.0}, (300, 200)),
        ({"width": 512}, (512, 256)),
        ({"width": -1, "height": 10}, (256, 10)),
        ({"width": 0, "height": "0"}, (256, 256)),
        ({"width": True, "height": "nan"}, (256, 256)),
        ({"width": 10**9, "height": "1e999"}, (2048, 256)),
        ({"width": "wide", "height": []}, (256, 256)),
    ],
)
def test_pictures_have_the_size_that_was_asked_for(
    sandbox: Sandbox, post: Post, wish: dict[str, object], size: tuple[int, int]
) -> None:
    job = post("v6/images/text2img", prompt="a fox", **wish).json()
    sandbox.finish(job["id"])
    picture = requests.get(job["future_links"][0], timeout=60).content
    assert picture.startswith(b"\x89PNG")
    assert struct.unpack_from(">II", picture, 16) == size
