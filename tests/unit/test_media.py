"""Which stored files the page "Outputs" may show: what lies below a named folder, and nothing that only seems to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_modelslab.ui.media import Refused, disposition, locate, media_type, open_stored, parse_range


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "deep" / "fox.png").write_bytes(b"a picture")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "root"


@pytest.mark.parametrize("spelling", ["{}/deep/fox.png", "file://{}/deep/fox.png", "{}//deep/fox.png"])
@pytest.mark.parametrize("root_spelling", ["{}", "{}/", "file://{}", "file://{}/"])
def test_a_file_below_a_root_is_read(root, spelling, root_spelling):
    file = open_stored(spelling.format(root), [root_spelling.format(root)])
    assert (file.size, b"".join(file.read(range(2, 5)))) == (9, b"pic")
    assert file.signed_url(download=False) is None


@pytest.mark.parametrize(
    "path",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "{root}/../secret.txt",
        "file://{root}/../secret.txt",
        "{root}/deep/../../secret.txt",
        "{root}/./deep/fox.png",
        "{root}",
        "{root}/deep",
        "{root}/missing.png",
        "{root}-beside/fox.png",
        "{root}/link-to-file",
        "{root}/link-to-folder/secret.txt",
        "{root}/pipe",
        "{root}/deep/fox.png\0.png",
        "relative/fox.png",
        "file://host{root}/deep/fox.png",
        "simplecache::file://{root}/deep/fox.png",
        "https://example.com{root}/deep/fox.png",
        "http://127.0.0.1/deep/fox.png",
        "data:text/plain,secret",
        "s3://bucket/deep/fox.png",
        "",
    ],
)
def test_anything_else_is_refused(root, path):
    (root / "link-to-file").symlink_to(root.parent / "secret.txt")
    (root / "link-to-folder").symlink_to(root.parent)
    os.mkfifo(root / "pipe")
    beside = Path(f"{root}-beside")
    beside.mkdir()
    (beside / "fox.png").write_bytes(b"another picture")
    with pytest.raises(Refused):
        open_stored(path.format(root=root), [str(root)])


def test_nothing_is_read_without_a_root(root):
    with pytest.raises(Refused):
        open_stored(f"{root}/deep/fox.png", [])


def test_a_root_may_be_a_link(root, tmp_path):
    (tmp_path / "alias").symlink_to(root)
    assert open_stored(f"{tmp_path}/alias/deep/fox.png", [f"{tmp_path}/alias"]).size == 9
    assert open_stored(f"{root}/deep/fox.png", [f"{tmp_path}/alias"]).size == 9


def test_a_folder_that_becomes_a_link_after_the_check_gives_no_bytes(root):
    file = open_stored(f"{root}/deep/fox.png", [str(root)])
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere" / "fox.png").write_text("secret!!!")
    (root / "deep").rename(root / "was-deep")
    (root / "deep").symlink_to(root.parent / "elsewhere")
    assert b"".join(file.read(range(file.size))) == b""


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("s3://aws@bucket/out/fox.png", "s3://aws@bucket/out", True),
        ("s3://aws@bucket/out/fox.png", "s3://aws@bucket/", True),
        ("S3://aws@bucket/out//fox.png", "s3://aws@bucket/out/", True),
        ("s3://aws@bucket/outside/fox.png", "s3://aws@bucket/out", False),
        ("s3://aws@other/out/fox.png", "s3://aws@bucket/out", False),
        # Another connection may be another store with a bucket of that name.
        ("s3://another@bucket/out/fox.png", "s3://aws@bucket/out", False),
        ("gs://aws@bucket/out/fox.png", "s3://aws@bucket/out", False),
        ("s3://aws@bucket/out", "s3://aws@bucket/out", False),
    ],
)
def test_a_store_is_told_by_scheme_connection_and_bucket(path, root, below):
    assert locate(path).is_below(locate(root)) is below


def test_a_store_is_not_climbed():
    with pytest.raises(Refused):
        locate("s3://aws@bucket/out/../secret.txt")


def test_a_file_of_a_store_is_read_in_parts():
    from fsspec.implementations.memory import MemoryFileSystem

    pytest.importorskip("airflow.sdk.io").attach("memory", fs=MemoryFileSystem())
    MemoryFileSystem().pipe_file("/generated/fox.png", b"a picture")
    stored = open_stored("memory://generated/fox.png", ["memory://generated"])
    assert (stored.size, stored.signed_url(download=False), b"".join(stored.read(range(2, 9)))) == (9, None, b"picture")
    with pytest.raises(Refused):
        open_stored("memory://generated/missing.png", ["memory://generated"])


def test_a_store_without_a_driver_is_refused():
    with pytest.raises(Refused):
        open_stored("unheard-of://bucket/fox.png", ["unheard-of://bucket"])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-3", range(0, 4)),
        ("bytes=4-", range(4, 10)),
        ("bytes=4-400", range(4, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-300", range(0, 10)),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
    ],
)
def test_a_range_is_read(header, expected):
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=4-3", "bytes=-0"])
def test_a_range_without_bytes_is_an_error(header):
    with pytest.raises(ValueError, match="no such bytes"):
        parse_range(header, 10)


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("fox.PNG", "image/png", "inline"),
        ("film.mp4", "video/mp4", "inline"),
        ("reply.json", "application/json", "attachment"),
        ("page.html", "application/octet-stream", "attachment"),
        ("drawing.svg", "application/octet-stream", "attachment"),
        ("gem.glb", "model/gltf-binary", "attachment"),
        ("script.js", "application/octet-stream", "attachment"),
    ],
)
def test_only_what_runs_nothing_is_shown(name, kind, shown):
    assert media_type(f"/a/{name}") == kind
    assert disposition(f"/a/{name}", download=False).startswith(f"{shown}; ")
    assert disposition(f"/a/{name}", download=True).startswith("attachment; ")


def test_a_file_name_cannot_add_a_header():
    assert disposition('/a/x"\r\nSet-Cookie: a=b.png', download=True) == (
        "attachment; filename*=UTF-8''x%22%0D%0ASet-Cookie%3A%20a%3Db.png"
    )
