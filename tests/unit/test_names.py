"""Names of stored outputs: whatever foreign input they are made of, they are safe, stable, and nobody else's."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_modelslab._outputs.media_types import content_type_of, holds_base64, kind_of, not_media
from airflow_provider_modelslab._outputs.names import output_stem, record_name, redact_url
from airflow_provider_modelslab._outputs.records import job_record, recorded_files
from airflow_provider_modelslab._protocol.shortening import shorten
from airflow_provider_modelslab.jobs import Job

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
JOB = Job("147", "v6/video", "success", ["https://cdn/a.mp4?signature=1", "https://cdn/b.mp4"], meta={"prompt": "ü"})
FILES = [("v6.video.147-0.mp4", 5), ("v6.video.147-1.mp4", 6)]


def test_names_are_readable():
    assert output_stem(JOB, 0) == "v6.video.147-0"
    assert record_name(JOB) == "v6.video.147.job.json"
    assert output_stem(Job("9", "v1/enterprise/flux_headshot"), 12) == "v1.enterprise.flux_headshot.9-12"


ids = st.one_of(
    st.text(max_size=200), st.sampled_from(["147", "147-0", "fusion-147", "..", "a/b", "~2e", ".", "0.job"])
)
endpoints = st.one_of(
    st.text(max_size=200), st.sampled_from(["v7/video", "v7/video-fusion", "v7/video/fusion", "", "../..", "v7.video"])
)
jobs = st.builds(Job, id=ids, endpoint=endpoints.map(lambda text: text.strip("/").replace("//", "")))


@given(jobs, st.integers(0, 1000))
@example(Job("../../etc/passwd", "/../.."), 0)
@example(Job("ü" * 128, "x" * 4000 + "/y" * 2000), 0)
@example(Job("\ud800", "\0"), 0)
def test_names_are_one_plain_segment_of_a_path(job, index):
    for name in (f"{output_stem(job, index)}.mp4", record_name(job)):
        assert re.fullmatch(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*", name)
        assert ".." not in name
        assert len(name) < 255


@given(jobs, jobs, st.integers(0, 11), st.integers(0, 11))
@example(Job("fusion-147", "v7/video"), Job("147", "v7/video-fusion"), 0, 0)
@example(Job("147", "v7/video/fusion"), Job("147", "v7/video-fusion"), 0, 0)
@example(Job("147", "v7.video"), Job("147", "v7/video"), 0, 0)
@example(Job("147-1", "v3"), Job("147", "v3"), 0, 1)
@example(Job("147-1", "v3"), Job("147", "v3"), 0, 10)
@example(Job("." * 40, "v3"), Job("." * 41, "v3"), 0, 0)
def test_no_two_outputs_share_a_name(one, other, index, other_index):
    """Nor an output and a record, even when the output's own extension is json."""
    outputs_differ = (one.id, one.endpoint, index) != (other.id, other.endpoint, other_index)
    jobs_differ = (one.id, one.endpoint) != (other.id, other.endpoint)
    if one.id and other.id and all("//" not in job.endpoint for job in (one, other)):
        assert (output_stem(one, index) != output_stem(other, other_index)) is outputs_differ
        assert (record_name(one) != record_name(other)) is jobs_differ
    assert f"{output_stem(one, index)}.json" != record_name(other)


def test_jobs_without_an_id_differ_by_their_outputs():
    first, second = (Job("", "v6/images", "success", [f"https://cdn/download?file={n}"]) for n in (1, 2))
    assert output_stem(first, 0) == output_stem(replace(first), 0) != output_stem(second, 0)


@pytest.mark.parametrize(
    ("url", "head", "content_type", "expected"),
    [
        ("https://cdn/a.MP4?x=.exe", b"", "", "mp4"),
        ("https://cdn/a.png/", PNG, "", "png"),
        ("https://cdn/a%2Ejpeg", b"", "", "jpeg"),
        ("https://cdn/v1.0", PNG, "", "png"),
        ("https://cdn/.png", b"", "", "bin"),
        ("https://cdn/a.p%2Fng", b"", "audio/mpeg", "mp3"),
        ("https://cdn/a.3mf", b"", "", "3mf"),
        ("https://cdn/a.tar~gz", b"", "", "bin"),
        ("https://cdn/a.verylongextension", b"", "", "bin"),
        ("https://cdn/a.php", b"\xff\xd8\xff\xe0", "text/html", "jpg"),
        ("https://cdn/a.base64", b"RIFF\1\2\3\4WEBPVP8 ", "text/plain", "webp"),
        ("https://cdn/a", b"\0\0\0\x18ftypmp42", "", "mp4"),
        ("https://cdn/a", b"\0\0\0\x14ftypqt  ", "", "mov"),
        ("https://cdn/a", b"glTF\2", "", "glb"),
        ("https://cdn/a", b"Hello", "text/plain; charset=utf-8", "txt"),
        ("https://cdn/a", b"Hello", "a/../../b", "bin"),
        ("https://[cdn/a.png", b"", "", "bin"),
        ("data:image/png;base64,xyz.exe", PNG, "", "png"),
        ("https://cdn/a.png", b"\xff\xd8\xff\xe0", "image/png", "jpg"),
        ("https://cdn/a.jpeg", b"\xff\xd8\xff\xe0", "", "jpeg"),
        ("https://cdn/a.m4a", b"\0\0\0\x18ftypisom", "", "m4a"),
        ("https://cdn/a.3mf", b"PK\3\4", "", "3mf"),
        ("https://cdn/a.svg", b"<svg>", "image/svg+xml", "bin"),
        ("https://cdn/a", b"<svg>", "image/svg+xml", "bin"),
        ("https://cdn/a.png", b"\n<?xml version='1.0'?><svg>", "image/png", "bin"),
        ("https://cdn/a.js", b"alert(1)", "text/javascript", "bin"),
        ("https://cdn/a", b"?", "application/octet-stream", "bin"),
        ("https://cdn/a", b"?", "audio/mpeg", "mp3"),
    ],
)
def test_kinds(url, head, content_type, expected):
    assert kind_of(url, head, content_type) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("v6.images.1-0.png", "image/png"), ("a.bin", "application/octet-stream"), ("a.job.json", "application/json")],
)
def test_content_types(name, expected):
    assert content_type_of(name) == expected


@pytest.mark.parametrize(
    ("url", "head", "content_type", "expected"),
    [
        ("https://cdn/a.png", b"", "image/png", "an empty file"),
        ("https://cdn/a.png", b"\n <!DOCTYPE html><html>", "image/png", "an HTML page"),
        ("https://cdn/a", b"\xef\xbb\xbf<HTML>", "", "an HTML page"),
        ("https://cdn/a.txt", b"<p>Please wait</p>", "text/html; charset=utf-8", "an HTML page"),
        ("https://cdn/a.png", b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey', "application/xml", "an XML error"),
        ("https://cdn/a.svg", b"<Error><Code>AccessDenied", "", "an XML error"),
        ("https://cdn/a.png", b"not ready", "text/plain", "text (text/plain)"),
        ("https://cdn/a.mp4", b'{"error": 1}', "application/json", "text (application/json)"),
        ("https://cdn/a.png", PNG, "text/html", None),
        ("https://cdn/a.svg", b'<?xml version="1.0"?><svg>', "text/xml", None),
        ("https://cdn/a.txt", b"A transcript", "text/html", None),
        ("https://cdn/a.json", b"{}", "application/json", None),
        ("https://cdn/a.obj", b"v 0 0 0", "text/plain", None),
        ("https://cdn/a.mp3", b"\0\0\0\0", "application/octet-stream", None),
    ],
)
def test_what_comes_instead_of_a_file(url, head, content_type, expected):
    assert not_media(url, head, content_type) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("https://user:pass@cdn/a.png?X-Signature=secret#part", "https://cdn/a.png"),
        ("HTTP://cdn/a.png", "http://cdn/a.png"),
        ("https://[cdn/a?secret", "a malformed URL"),
        ("data:image/png;base64," + "A" * 100, "data:image… (122 characters)"),
        ("done", "'done'"),
    ],
)
def test_outputs_are_shown_without_secrets(output, expected):
    assert redact_url(output) == expected


def test_a_record_is_found_again():
    record = json.loads(json.dumps(job_record(JOB, FILES)))
    assert record == {
        **JOB.to_dict(),
        "files": [name for name, _ in FILES],
        "sizes": [5, 6],
        "content_types": ["video/mp4", "video/mp4"],
    }
    assert recorded_files(JOB, record) == FILES


def test_a_record_is_found_again_when_the_urls_were_signed_again():
    again = replace(JOB, outputs=["https://cdn/a.mp4?signature=2", "https://cdn/b.mp4?signature=3"])
    assert recorded_files(again, job_record(JOB, FILES)) == FILES


def test_a_record_does_not_repeat_data():
    job = Job("1", "v6/images", "success", ["data:image/png;base64," + "A" * 10_000])
    record = job_record(job, [("v6.images.1-0.png", 7500)])
    assert len(json.dumps(record)) < 1000
    assert recorded_files(job, record) == [("v6.images.1-0.png", 7500)]
    assert recorded_files(replace(job, outputs=[shorten(job.outputs[0])]), record) == [("v6.images.1-0.png", 7500)]
    assert recorded_files(replace(job, outputs=[str(job.outputs[0])[:-4]]), record) is None


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": ["https://cdn/a.mp4"]},
        {"outputs": ["https://cdn/a.mp4", "https://cdn/other.mp4"]},
        {"outputs": None},
        {"files": ["v6.video.147-0.mp4"]},
        {"files": ["v6.video.147-1.mp4", "v6.video.147-0.mp4"]},
        {"files": ["v6.video.147-0.mp4", "../../v6.video.147-1.mp4"]},
        {"files": ["v6.video.147-0.mp4", "v6.video.147-1.mp4/x"]},
        {"files": [None, {}]},
        {"sizes": [5]},
        {"sizes": 5},
    ],
)
def test_a_record_of_something_else_counts_for_nothing(change):
    assert recorded_files(JOB, {**job_record(JOB, FILES), **change}) is None


@pytest.mark.parametrize("record", [None, [], "text", 5, {}])
def test_what_is_no_record_counts_for_nothing(record):
    assert recorded_files(JOB, record) is None


def test_base64_behind_a_url():
    assert holds_base64("https://cdn/a.BASE64?x=1")
    assert not holds_base64("https://cdn/a.png?x=.base64")
    assert not holds_base64("https://[cdn/a.base64")
