"""Stored outputs: whole or not there, whatever CDNs, stores and signals do."""

from __future__ import annotations

import base64
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import ClassVar

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from fsspec.implementations.memory import MemoryFileSystem

try:
    from airflow.sdk.io import attach
except ImportError:  # Airflow 2
    from airflow.io.store import attach  # type: ignore[import-not-found, no-redef]

from airflow_provider_modelslab._outputs.downloads import RetryPolicy
from airflow_provider_modelslab._outputs.names import record_name
from airflow_provider_modelslab._outputs.saving import STALLED_TURNS
from airflow_provider_modelslab._outputs.stores import ABANDONED_SECONDS
from airflow_provider_modelslab._protocol.shortening import shorten, shorten_output
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabOutputExists, ModelsLabSaveError
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job, Output
from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.raw_server import RESET, RawServer, Stream, by_path, dripping, path_of, reply, stalling
from tests.support.storing import ENCODED, PATIENT, PNG, RESIGNED, job, picture, run_python, save_outputs, saving
from tests.support.waiting import wait_until

HURRIED = RetryPolicy(absent=60, faults=60, pause=0.001, longest_pause=0.01)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pictures(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(folder).items() if not name.endswith(".job.json")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


# --- what is stored ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "file://{}/"])
def test_outputs_of_the_sandbox(sandbox: Sandbox, folder: Path, form: str):
    """In the order of jobs and outputs, under names that say what they are, byte for byte."""
    submitted = [
        sandbox.submit("v6/images/text2img", {"prompt": "a", "samples": 3}),
        sandbox.submit("v6/video/text2video", {"prompt": "b"}),
        sandbox.submit("v6/voice/text_to_speech", {"prompt": "c"}),
        sandbox.submit("v6/3d/text_to_3d", {"prompt": "d"}),
    ]
    sandbox.finish_all()
    families = ["v6/images", "v6/video", "v6/voice", "v6/3d"]
    jobs = [ModelsLabHook().fetch(r["id"], family) for r, family in zip(submitted, families, strict=True)]
    stored = save_outputs(jobs, form.format(folder))
    prefix = form.format(folder).rstrip("/")
    a, b, c, d = (r["id"] for r in submitted)
    assert stored == [
        f"{prefix}/v6.images.{a}-0.png",
        f"{prefix}/v6.images.{a}-1.png",
        f"{prefix}/v6.images.{a}-2.png",
        f"{prefix}/v6.video.{b}-0.mp4",
        f"{prefix}/v6.voice.{c}-0.wav",
        f"{prefix}/v6.3d.{d}-0.glb",
    ]
    import requests

    urls = [url for job in jobs for url in job.outputs]
    assert [Path(path.removeprefix("file://")).read_bytes() for path in stored] == [
        requests.get(str(url)).content for url in urls
    ]
    assert len(list(folder.iterdir())) == 6 + 4


def test_a_path_that_is_returned_can_be_opened(raw_server: RawServer, folder: Path):
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    raw_server.answer(picture())
    (stored,) = save_outputs([job(raw_server.url)], f"file://{folder}/")
    with ObjectStoragePath(stored).open("rb") as file:
        assert file.read() == PNG


def test_the_record_beside_the_files(sandbox: Sandbox, folder: Path):
    reply = sandbox.submit("v6/images/text2img", {"prompt": "ä", "samples": 2, "negative_prompt": sandbox.key})
    sandbox.finish_all()
    done = ModelsLabHook().fetch(reply["id"], "v6/images")
    stored = save_outputs([done], str(folder))
    content = (folder / f"v6.images.{done.id}.job.json").read_text()
    assert sandbox.key not in content
    sizes = [len(Path(path).read_bytes()) for path in stored]
    assert json.loads(content) == {
        **done.to_dict(),
        "files": [Path(path).name for path in stored],
        "sizes": sizes,
        "content_types": ["image/png", "image/png"],
    }


def test_only_what_succeeded_is_stored(raw_server: RawServer, folder: Path):
    raw_server.answer(picture())
    others = [
        Job("1", "v6/images", "failed", [f"{raw_server.url}/1.png"]),
        Job("2", "v6/images", "processing", [f"{raw_server.url}/2.png"]),
    ]
    assert len(save_outputs([*others, job(f"{raw_server.url}/3.png")], str(folder))) == 1
    assert len(raw_server.requests) == 1
    assert save_outputs(others, "s3://not-even-looked-at/") == []
    assert save_outputs([], str(folder)) == []


def test_the_same_id_under_two_endpoints(raw_server: RawServer, folder: Path):
    raw_server.answer(picture(PNG + b"1"), picture(PNG + b"2"))
    jobs = [Job("147", endpoint, "success", [raw_server.url]) for endpoint in ("v6/images", "v3")]
    assert len(set(save_outputs(jobs, str(folder)))) == 2
    assert set(pictures(folder).values()) == {PNG + b"1", PNG + b"2"}


def test_a_job_that_is_given_twice_is_stored_once(raw_server: RawServer, folder: Path):
    raw_server.answer(picture())
    once = job(raw_server.url)
    first, second = save_outputs([once, once], str(folder))
    assert first == second
    assert len(raw_server.requests) == 1
    with pytest.raises(ModelsLabArgumentError, match="given twice"):
        save_outputs([once, job(raw_server.url, raw_server.url)], str(folder))


def test_hostile_ids_stay_in_the_folder(raw_server: RawServer, folder: Path):
    raw_server.answer(picture())
    hostile = Job("../../../up", "../..", "success", [f"{raw_server.url}/x.png/..%2F..%2Fup.png"])
    (stored,) = save_outputs([hostile], str(folder))
    assert Path(stored).resolve().parent == folder
    assert not list(folder.parent.glob("*up*"))


@pytest.mark.parametrize(
    "output",
    [
        ENCODED,
        f"data:image/png;base64,{ENCODED}",
        f"DATA:;charset=x;BASE64,{ENCODED}",
        ENCODED.rstrip("="),
        "\n".join(ENCODED[at : at + 76] for at in range(0, len(ENCODED), 76)) + "\n",
        base64.urlsafe_b64encode(PNG).decode(),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
    ],
)
def test_data_becomes_files(folder: Path, output: str):
    (stored,) = save_outputs([job(output)], str(folder))
    assert stored == f"{folder}/v6.images.147-0.png"
    assert Path(stored).read_bytes() == PNG
    assert save_outputs([job(output)], str(folder)) == [stored]


def test_data_that_was_shortened_is_found_where_it_was_stored(folder: Path):
    """An XCom has its digest only, and the record has the same."""
    stored = save_outputs([job(ENCODED)], str(folder))
    assert save_outputs([job(shorten(ENCODED))], str(folder)) == stored
    with pytest.raises(ModelsLabSaveError, match="only the digest is left: generate it again"):
        save_outputs([job(shorten(ENCODED), job_id="2")], str(folder))


def test_long_data_becomes_a_file(folder: Path):
    content = PNG + os.urandom(3 * 10**6 + 1)
    (stored,) = save_outputs([job(base64.b64encode(content).decode())], str(folder))
    assert Path(stored).read_bytes() == content


@pytest.mark.parametrize(
    "output",
    ["ftp://127.0.0.1/a.png", "file:///etc/passwd", "https://a b/c.png", "data:;base64,", "data:,", "data:a;base64,~"],
)
def test_what_is_neither_url_nor_data_is_refused(folder: Path, output: str):
    with pytest.raises(ModelsLabSaveError, match=r"base64 data|an empty file"):
        save_outputs([job(output)], str(folder))
    assert files(folder) == {}


TRANSCRIPT = {"text": "Gute Nächte", "timestamps": [{"word": "Gute", "start": 0.2, "end": 0.4}]}


@pytest.mark.parametrize(
    ("output", "extension", "content"),
    [
        ("Gute Nächte.", "txt", "Gute Nächte."),
        ("<b>no page</b> " * 9, "txt", "<b>no page</b> " * 9),
        ("/etc/passwd", "txt", "/etc/passwd"),
        ("a long sentence of plain words without any point " * 200, "txt", "a long sentence of plain words without any point " * 200),
        (TRANSCRIPT, "json", json.dumps(TRANSCRIPT, ensure_ascii=False, indent=2)),
        ([{"word": "Gute"}, {"word": "Nächte"}], "json", json.dumps([{"word": "Gute"}, {"word": "Nächte"}], ensure_ascii=False, indent=2)),
    ],
)  # fmt: skip
def test_texts_and_structured_results_are_stored_as_they_are(
    folder: Path, output: Output, extension: str, content: str
):
    done = job(output)
    (stored,) = save_outputs([done], str(folder))
    assert (Path(stored).suffix, Path(stored).read_text("utf-8")) == (f".{extension}", content)
    record = json.loads((folder / record_name(done)).read_text())
    assert record["content_types"] == [{"txt": "text/plain; charset=utf-8", "json": "application/json"}[extension]]
    assert record["sizes"] == [len(content.encode())]
    before = Path(stored).stat().st_mtime_ns
    shortened = replace(done, outputs=[*map(shorten_output, done.outputs)])
    assert save_outputs([shortened], str(folder)) == [stored]  # the same outputs, as they travelled: nothing is written
    assert Path(stored).stat().st_mtime_ns == before


KINDS = {
    "/jpeg.png": (b"\xff\xd8\xff\xe0" + bytes(500), "jpg", "image/jpeg"),
    "/webp.png": (b"RIFF\xf4\1\0\0WEBPVP8 " + bytes(500), "webp", "image/webp"),
    "/mp3.wav": (b"ID3" + bytes(500), "mp3", "audio/mpeg"),
    "/unknown.mp3": (b"\1" * 500, "mp3", "audio/mpeg"),
    "/drawing.svg": (b"<svg onload='alert(1)'>", "bin", "application/octet-stream"),
    "/script.js": (b"alert(1)", "bin", "application/octet-stream"),
    "/drawing.png": (b"<svg onload='alert(1)'>", "bin", "application/octet-stream"),
}


def test_bytes_decide_the_kind_before_the_url_does(raw_server: RawServer, folder: Path):
    """And nothing is stored that a browser runs."""
    raw_server.answer_to = by_path({path: reply(content) for path, (content, _, _) in KINDS.items()})
    stored = save_outputs([job(*(raw_server.url + path for path in KINDS))], str(folder), retry_policy=RESIGNED)
    assert [path.rpartition(".")[2] for path in stored] == [kind for _, kind, _ in KINDS.values()]
    record = json.loads((folder / "v6.images.147.job.json").read_text())
    assert record["content_types"] == [content_type for _, _, content_type in KINDS.values()]


def test_base64_behind_a_url(sandbox: Sandbox, folder: Path):
    """The file is what it encodes, and has its extension."""
    reply = sandbox.submit("v6/images/text2img", {"prompt": "a", "base64": True})
    sandbox.finish_all()
    done = ModelsLabHook().fetch(reply["id"], "v6/images")
    assert str(done.outputs[0]).endswith(".base64")
    (stored,) = save_outputs([done], str(folder))
    assert stored.endswith("-0.png")
    assert Path(stored).read_bytes().startswith(b"\x89PNG")


# --- CDNs -------------------------------------------------------------------------------------------------

TRUNCATED = picture()[:-10]
HALF = picture(PNG + bytes(200_000))[:-100_000]
TRUNCATED_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (2000, PNG[:2000])
PAGE = reply(b"<!doctype html><html>Just a moment</html>", headers={"Content-Type": "text/html"})

ABSENT = {
    "404": reply(b"", 404),
    "403": reply(b"<Error><Code>AccessDenied</Code></Error>", 403),
    "202": reply(b"", 202),
    "empty": picture(b""),
    "page": PAGE,
    "xml": reply(b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>"),
}
FAULTS = {
    "500": reply(b"", 500),
    "503": PAGE.replace(b"200 X", b"503 X"),
    "429": reply(b"", 429, {"Retry-After": "0"}),
    "408": reply(b"", 408),
    "reset": RESET,
    "nothing": b"",
    "truncated": TRUNCATED,
    "truncated chunks": TRUNCATED_CHUNKED,
    "no HTTP": b"what?\r\n\r\n",
    "compressed": picture(gzip.compress(PNG), Content_Encoding="gzip"),
    "compressed in an unknown way": picture(Content_Encoding="br"),
}
NEVER = {
    "410": reply(b"", 410),
    "400": reply(b"", 400),
    "redirect to a file": reply(b"", 302, {"Location": "file:///etc/hostname"}),
    "redirect to nowhere": reply(b"", 302, {"Location": "http://[bad"}),
    "redirect to what is no text": b"HTTP/1.1 302 X\r\nContent-Length: 0\r\nLocation: /\xff.png\r\n\r\n",
    "endless redirects": reply(b"", 302, {"Location": "/again"}),
}


@pytest.mark.parametrize("fault", [*ABSENT, *FAULTS])
def test_what_may_pass_is_waited_for(raw_server: RawServer, folder: Path, fault: str):
    answer = {**ABSENT, **FAULTS}[fault]
    raw_server.answer(answer, answer, answer, picture())
    (stored,) = save_outputs([job(f"{raw_server.url}/a.png")], str(folder), retry_policy=HURRIED)
    assert Path(stored).read_bytes() == PNG
    assert len(raw_server.requests) == 4


@pytest.mark.parametrize("fault", [*ABSENT, *FAULTS, *NEVER])
def test_what_does_not_pass_leaves_nothing(raw_server: RawServer, folder: Path, fault: str):
    raw_server.answer({**ABSENT, **FAULTS, **NEVER}[fault])
    with pytest.raises(ModelsLabSaveError) as caught:
        save_outputs([job(f"{raw_server.url}/a.png?signature=secret")], str(folder), retry_policy=RESIGNED)
    assert files(folder) == {}
    message = str(caught.value)
    assert "output 0 of job v6/images:147" in message
    assert f"{raw_server.url}/a.png" in message
    assert "secret" not in message
    assert "may expire" in message
    assert isinstance(caught.value, AirflowException)
    assert not isinstance(caught.value, AirflowFailException)  # a retry is what mends it


@pytest.mark.parametrize("fault", NEVER)
def test_what_cannot_pass_is_not_waited_for(raw_server: RawServer, folder: Path, fault: str):
    raw_server.answer(NEVER[fault])
    with pytest.raises(ModelsLabSaveError):
        save_outputs([job(f"{raw_server.url}/a.png")], str(folder), retry_policy=RetryPolicy(absent=1e6, faults=1e6))


def test_the_time_that_a_server_names_is_kept(raw_server: RawServer, folder: Path):
    """A longer one than the policy allows is not waited for at all."""
    raw_server.answer(reply(b"", 429, {"Retry-After": "1"}), picture())
    started = time.monotonic()
    save_outputs([job(f"{raw_server.url}/a.png")], str(folder), retry_policy=HURRIED)
    assert time.monotonic() - started >= 1
    raw_server.answer(reply(b"", 503, {"Retry-After": "61"}), picture())
    with pytest.raises(ModelsLabSaveError, match="HTTP 503"):
        save_outputs([job(f"{raw_server.url}/a.png", job_id="2")], str(folder), retry_policy=HURRIED)


def test_the_proxy_has_it(raw_server: RawServer, folder: Path):
    raw_server.answer_to = by_path({f"/proxy/{n}.png": picture(PNG + b"%d" % n) for n in range(2)})
    links = [f"{raw_server.url}/proxy/{index}.png" for index in range(2)]
    outputs = [f"{raw_server.url}/{index}.png" for index in range(2)]
    save_outputs([job(*outputs, proxy_links=links)], str(folder), retry_policy=RESIGNED)
    assert pictures(folder) == {"v6.images.147-0.png": PNG + b"0", "v6.images.147-1.png": PNG + b"1"}
    with pytest.raises(ModelsLabSaveError):  # one link for two outputs: of which one is not said
        save_outputs([job(*outputs, proxy_links=links[:1], job_id="2")], str(folder), retry_policy=RESIGNED)


@pytest.mark.parametrize(
    "start",
    [
        TRUNCATED.replace(b"Content-Length: ", b"Content-Length: 9"),
        b"HTTP/1.1 200 OK\r\nX-Filler: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["body", "head", "chunk size"],
)
def test_a_trickle_ends_with_the_time_for_storing(raw_server: RawServer, folder: Path, start: bytes):
    raw_server.answer(dripping(start))
    with pytest.raises(ModelsLabSaveError, match="the 1 s for storing are over"):
        save_outputs([job(f"{raw_server.url}/a.png")], str(folder), timeout=1)
    assert files(folder) == {}


DRIP = dripping(HALF[:100])


@pytest.mark.parametrize(
    ("answer", "policy"),
    [
        (DRIP, PATIENT),
        (stalling(HALF[:100]), replace(PATIENT, silence=2.0)),
        (stalling(), replace(PATIENT, silence=2.0)),
    ],
    ids=["drip", "stop", "silence"],
)
def test_outputs_that_trickle_do_not_hold_up_the_others(
    raw_server: RawServer, folder: Path, answer: Stream, policy: RetryPolicy
):
    """They come to their turn again when all others are stored, and are named in the error in the end."""
    raw_server.answer_to = lambda request: answer if b"/slow" in request else picture()
    outputs = [f"{raw_server.url}/{'slow' if number < 3 else 'quick'}-{number}.png" for number in range(40)]
    with pytest.raises(ModelsLabSaveError, match="3 of 40 outputs could not be stored") as caught:
        save_outputs([job(*outputs)], str(folder), retry_policy=policy, timeout=600)
    assert len(pictures(folder)) == 37
    assert all(f"/slow-{number}.png" in str(caught.value) for number in range(3))
    assert not caught.value.without_files
    asked = list(map(path_of, raw_server.requests))
    turns = [index for index, path in enumerate(asked) if "slow" in path]
    assert len(turns) == 3 * STALLED_TURNS
    # A busy machine may be silent for two seconds by itself: then a quick one comes to its turn again, too.
    assert max(asked.index(f"/quick-{number}.png") for number in range(3, 40)) < turns[3]


def test_outputs_that_trickle_come_from_the_proxy(raw_server: RawServer, folder: Path):
    raw_server.answer_to = lambda request: DRIP if b"/slow" in request else picture()
    outputs = [f"{raw_server.url}/{'slow' if number < 3 else 'quick'}-{number}.png" for number in range(40)]
    links = [f"{raw_server.url}/copy-{number}.png" for number in range(40)]
    stored = save_outputs([job(*outputs, proxy_links=links)], str(folder), retry_policy=PATIENT, timeout=600)
    assert len(stored) == 40
    asked = list(map(path_of, raw_server.requests))
    assert [sum(kind in path for path in asked) for kind in ("slow", "copy", "quick")] == [3, 3, 37]


def test_a_slow_store_is_no_slow_source(raw_server: RawServer):
    class SlowStore(MemoryFileSystem):  # type: ignore[misc]
        protocol = "hdfs"
        store: ClassVar[dict] = {}

        def _open(self, path, mode="rb", block_size=None, **options):
            if ".png" in path:
                time.sleep(4)  # longer than it takes to judge a source
            return super()._open(path, mode, block_size)

    attach(protocol="hdfs", fs=SlowStore())
    raw_server.answer(picture(PNG + bytes(15_000)))
    policy = replace(RESIGNED, slow_after=3, least_speed=6_000)
    assert save_outputs([job(f"{raw_server.url}/a.png")], "hdfs://bucket/slow", retry_policy=policy, timeout=600)


def test_a_redirect_with_a_packed_body_is_followed_without_reading_it(raw_server: RawServer, folder: Path):
    """200 MiB in 200 kB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join([*(packer.compress(bytes(2**20)) for _ in range(200)), packer.flush()])
    redirect = reply(packed, 302, {"Location": "/b.png", "Content-Encoding": "gzip"})
    raw_server.answer_to = by_path({"/a.png": redirect, "/b.png": picture()})
    tracemalloc.start()
    try:
        (stored,) = save_outputs([job(f"{raw_server.url}/a.png")], str(folder), retry_policy=RESIGNED)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    assert Path(stored).read_bytes() == PNG


def test_a_redirect_with_a_body_without_end_is_followed(raw_server: RawServer, folder: Path):
    endless = Stream(lambda: chain([b"HTTP/1.1 302 X\r\nLocation: /b.png\r\n\r\n"], repeat(bytes(2**16))))
    raw_server.answer_to = by_path({"/a.png": endless, "/b.png": picture()})
    (stored,) = save_outputs([job(f"{raw_server.url}/a.png")], str(folder), retry_policy=RESIGNED)
    assert Path(stored).read_bytes() == PNG


@pytest.mark.parametrize("declared", [True, False])
def test_a_file_without_an_end_is_refused(raw_server: RawServer, folder: Path, declared: bool):
    raw_server.answer(picture() if declared else TRUNCATED_CHUNKED)
    with pytest.raises(ModelsLabSaveError, match="which is no generated file"):
        save_outputs([job(f"{raw_server.url}/a.png")], str(folder), retry_policy=replace(RESIGNED, max_bytes=100))
    assert files(folder) == {}


def test_requests_for_outputs_do_not_identify_the_client(
    raw_server: RawServer, folder: Path, tmp_path: Path, monkeypatch
):
    """Neither at first nor after a redirect, whatever ~/.netrc and the URL hold."""
    netrc = tmp_path / "netrc"
    netrc.write_text(
        "machine 127.0.0.1 login me password netrc-secret\nmachine localhost login me password netrc-secret"
    )
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    elsewhere = raw_server.url.replace("127.0.0.1", "localhost")
    raw_server.answer(reply(b"", 302, {"Location": f"{elsewhere}/b.png"}), picture())
    save_outputs([job(raw_server.url.replace("://", "://me:url-secret@") + "/a.png")], str(folder))
    assert len(raw_server.requests) == 2
    assert b"authorization" not in b"".join(raw_server.requests).lower()
    assert b"cookie" not in b"".join(raw_server.requests).lower()


# --- again ------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_fetched_again(raw_server: RawServer, folder: Path):
    raw_server.answer(picture())
    jobs = [job(f"{raw_server.url}/{n}.png", job_id=str(n)) for n in range(5)]
    stored = save_outputs(jobs, str(folder))
    asked = len(raw_server.requests)
    assert save_outputs(jobs, str(folder), if_exists="skip") == stored
    assert len(raw_server.requests) == asked


def test_what_is_not_whole_is_fetched_again(raw_server: RawServer, folder: Path):
    raw_server.answer_to = by_path({f"/{n}.png": picture(PNG + b"%d" % n) for n in range(3)})
    three = job(*(f"{raw_server.url}/{n}.png" for n in range(3)))
    stored = save_outputs([three], str(folder))
    before = pictures(folder)
    raw_server.requests.clear()
    Path(stored[0]).write_bytes(PNG[:10])
    Path(stored[2]).unlink()
    assert save_outputs([three], str(folder), if_exists="skip") == stored
    assert sorted(map(path_of, raw_server.requests)) == ["/0.png", "/2.png"]
    assert pictures(folder) == before


@pytest.mark.parametrize("record", [None, "{", "[]", '{"files": 1}', "[" * 100_000])
def test_without_a_record_the_size_tells(raw_server: RawServer, folder: Path, record: str | None):
    """A file of the right size is kept as it is, another one is replaced, and the record is written."""
    folder.mkdir()
    right, wrong = folder / "v6.images.1-0.png", folder / "v6.images.2-0.png"
    right.write_bytes(b"x" * len(PNG))
    wrong.write_bytes(b"x")
    if record:
        (folder / "v6.images.1.job.json").write_text(record)
    raw_server.answer(picture())
    save_outputs([job(f"{raw_server.url}/a.png", job_id=n) for n in "12"], str(folder), if_exists="skip")
    assert right.read_bytes() == b"x" * len(PNG)
    assert wrong.read_bytes() == PNG
    assert json.loads((folder / "v6.images.1.job.json").read_text())["files"] == [right.name]


def test_overwrite_replaces(raw_server: RawServer, folder: Path):
    raw_server.answer(picture(PNG), picture(PNG[::-1][:7] + PNG))
    one = [job(f"{raw_server.url}/a.png")]
    save_outputs(one, str(folder), if_exists="overwrite")
    (stored,) = save_outputs(one, str(folder), if_exists="overwrite")
    assert Path(stored).read_bytes() == PNG[::-1][:7] + PNG


def test_a_file_stays_when_its_replacement_fails(raw_server: RawServer, folder: Path):
    raw_server.answer(picture(), TRUNCATED)
    one = [job(f"{raw_server.url}/a.png")]
    (stored,) = save_outputs(one, str(folder), if_exists="overwrite")
    with pytest.raises(ModelsLabSaveError):
        save_outputs(one, str(folder), if_exists="overwrite", retry_policy=RESIGNED)
    assert Path(stored).read_bytes() == PNG
    assert len(files(folder)) == 2


def test_error_replaces_nothing(raw_server: RawServer, folder: Path):
    raw_server.answer(picture(), picture(PNG + b"other"))
    one = [job(f"{raw_server.url}/a.png")]
    (stored,) = save_outputs(one, str(folder), if_exists="error")
    with pytest.raises(ModelsLabOutputExists, match="stored already") as caught:
        save_outputs(one, str(folder), if_exists="error")
    assert isinstance(caught.value, AirflowFailException)
    (folder / "v6.images.147.job.json").unlink()
    with pytest.raises(ModelsLabOutputExists, match="not what would be stored"):
        save_outputs(one, str(folder), if_exists="error")
    assert Path(stored).read_bytes() == PNG


def test_error_does_not_stand_in_the_way_of_a_retry(raw_server: RawServer, folder: Path):
    """What a first try left is no reason to fail: it wrote no record."""
    answers = {"/1.png": picture()}
    raw_server.answer_to = by_path(answers)
    jobs = [job(f"{raw_server.url}/{n}.png", job_id=str(n)) for n in (1, 2)]
    with pytest.raises(ModelsLabSaveError):
        save_outputs(jobs, str(folder), if_exists="error", retry_policy=RESIGNED)
    answers["/2.png"] = picture()
    assert len(save_outputs(jobs, str(folder), if_exists="error")) == 2


def test_one_failure_does_not_keep_others_from_being_stored(raw_server: RawServer, folder: Path):
    answers = {f"/{n}.png": picture() for n in range(10) if n != 3}
    raw_server.answer_to = by_path(answers)
    jobs = [job(f"{raw_server.url}/{n}.png", job_id=str(n)) for n in range(10)]
    with pytest.raises(ModelsLabSaveError, match="1 of 10 outputs could not be stored: output 0 of job v6/images:3"):
        save_outputs(jobs, str(folder), retry_policy=RESIGNED)
    assert len(pictures(folder)) == 9
    assert len(files(folder)) == 18
    raw_server.requests.clear()
    answers["/3.png"] = picture()
    assert len(save_outputs(jobs, str(folder))) == 10
    assert list(map(path_of, raw_server.requests)) == ["/3.png"]


def test_several_at_a_time(raw_server: RawServer, folder: Path):
    """And not more than that."""
    raw_server.answer(picture())
    raw_server.together = 3
    save_outputs([job(*(f"{raw_server.url}/{n}.png" for n in range(3)))], str(folder))
    assert raw_server.connections == 3


# --- stores -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["out", "", "~/out", "./out", None, "s4://bucket/"])
def test_a_path_that_cannot_be(path):
    with pytest.raises(ModelsLabArgumentError, match="output_path"):
        save_outputs([job("https://never-asked.invalid/a.png")], path)


def test_if_exists_must_be_known(folder: Path):
    with pytest.raises(ModelsLabArgumentError, match="if_exists"):
        save_outputs([job(ENCODED)], str(folder), if_exists="replace")


def test_a_store_that_refuses_ends_all(folder: Path):
    folder.write_text("a file, not a folder")
    with pytest.raises(ModelsLabSaveError, match="FileExistsError"):
        save_outputs([job(ENCODED)], str(folder))


def test_a_store_that_is_full(folder: Path):
    limit = """
import resource, signal, sys
sys.dont_write_bytecode = True  # compiled modules would be cut off, too, and stay so for every later process
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""
    process = run_python(limit + saving(ENCODED, str(folder)), stderr=subprocess.PIPE)
    assert b"ModelsLabSaveError" in process.communicate()[1]
    assert files(folder) == {}


def test_a_worker_killed_leaves_nothing_under_the_name(raw_server: RawServer, folder: Path):
    raw_server.answer(stalling(HALF), picture())
    process = run_python(saving(f"{raw_server.url}/a.png", str(folder)))
    wait_until(lambda: any(folder.glob(".*.part")))
    process.kill()
    process.wait()
    (rest,) = files(folder)
    assert rest.startswith(".v6.images.147-0.png.")
    (stored,) = save_outputs([job(f"{raw_server.url}/a.png")], str(folder))
    assert Path(stored).read_bytes() == PNG
    os.utime(folder / rest, (time.time() - ABANDONED_SECONDS - 60,) * 2)
    save_outputs([job(f"{raw_server.url}/a.png")], str(folder))
    assert rest not in files(folder)


def test_a_task_that_is_ended_ends_its_downloads(folder: Path):
    """Airflow ends tasks by raising in the main thread; downloads that wait for a byte do not hold it up, and clean up."""

    class Ended(BaseException):
        pass

    def end(*_: object) -> None:
        raise Ended

    previous = signal.signal(signal.SIGUSR1, end)
    main = threading.main_thread().ident
    assert main

    def are_downloading() -> bool:
        return any(thread.name.startswith("modelslab-output") for thread in threading.enumerate())

    def end_when_partial() -> None:
        wait_until(lambda: folder.exists() and len(list(filter(None, files(folder).values()))) == 2)
        signal.pthread_kill(main, signal.SIGUSR1)

    try:
        with RawServer() as server:
            server.answer(stalling(HALF))
            threading.Thread(target=end_when_partial).start()
            with pytest.raises(Ended):
                save_outputs(
                    [job(f"{server.url}/a.png", f"{server.url}/b.png")],
                    str(folder),
                    retry_policy=RetryPolicy(silence=600),
                )
            assert are_downloading()  # it has not waited for them
    finally:
        signal.signal(signal.SIGUSR1, previous)
    # The server is gone, and with it the silence of their connections: none tries again.
    wait_until(lambda: not are_downloading())
    assert files(folder) == {}


CONTENT_TYPE_OPTIONS: dict[str, dict[str, object]] = {
    "gs": {"content_type": "image/png"},
    "abfs": {"content_settings": {"content_type": "image/png"}},
}


@pytest.mark.parametrize("kind", CONTENT_TYPE_OPTIONS)
def test_object_stores_are_told_the_content_type(raw_server: RawServer, kind: str):
    """S3's is tested with S3; of the others, that the option of their file system is used."""
    opened = {}

    class ObjectStore(MemoryFileSystem):  # type: ignore[misc]
        protocol = kind
        store: ClassVar[dict] = {}

        def _open(self, path, mode="rb", block_size=None, **options):
            opened[path] = options
            return super()._open(path, mode, block_size)

    attach(protocol=kind, fs=ObjectStore())
    raw_server.answer(picture())
    save_outputs([job(f"{raw_server.url}/a.png")], f"{kind}://bucket/day")
    (options,) = (options for path, options in opened.items() if path.endswith(".png"))
    assert options.items() >= CONTENT_TYPE_OPTIONS[kind].items()


def test_a_store_of_another_kind(raw_server: RawServer):
    """One that knows neither atomic uploads nor local files: a temporary name, then a renaming."""
    memory = MemoryFileSystem()
    attach(protocol="memory", fs=memory)
    raw_server.answer(picture())
    assert save_outputs([job(f"{raw_server.url}/a.png")], "memory://bucket/day") == [
        "memory://bucket/day/v6.images.147-0.png"
    ]
    assert memory.cat("/bucket/day/v6.images.147-0.png") == PNG
    raw_server.answer(TRUNCATED)
    with pytest.raises(ModelsLabSaveError):
        save_outputs([job(f"{raw_server.url}/a.png", job_id="2")], "memory://bucket/day", retry_policy=RESIGNED)
    assert len(memory.ls("/bucket/day")) == 2


# --- memory -----------------------------------------------------------------------------------------------

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "save_outputs.py"


@pytest.mark.skipif(not BENCHMARK.exists() or sys.platform != "linux", reason="needs the repository, and Linux")
@pytest.mark.parametrize("store", ["local", "s3"])
def test_memory_is_bounded(store: str):
    """Six files of 50 MB, three at a time: the whole gigabyte is the benchmark's."""
    if store == "s3":
        pytest.importorskip("s3fs")
        pytest.importorskip("moto.server")
    command = [sys.executable, str(BENCHMARK), "--megabytes=300", "--file-megabytes=50", f"--stores={store}", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    (figures,) = json.loads(result.stdout.splitlines()[-1])
    assert figures["warm"]["files"] == 6
    assert figures["warm"]["memory"] < 100
