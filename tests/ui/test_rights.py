"""Who gets what from the plugin: real users of a real Airflow ask for the page and for stored files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import requests
from airflow_instance import PATIENCE

PICTURE = b"\x89PNG\r\n\x1a\n and so on"


def test_the_plugin_is_there(airflow):
    assert "ModelsLab outputs" in airflow.cli("plugins", "--output", "json")


@pytest.mark.parametrize(("user", "status"), [(None, 401), ("stranger", 403), ("viewer", 200), ("admin", 200)])
def test_the_page_opens_to_those_who_may_read_xcoms(visit, user, status):
    reply = visit("outputs", user, dag_id="private_told", run_id="any")
    assert reply.status_code == status
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in reply.headers["Content-Security-Policy"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert ("Log in" in reply.text, "may not read" in reply.text) == (status == 401, status == 403)


def test_a_stranger_gets_the_page_of_other_dags(visit):
    assert visit("outputs", "stranger", dag_id="told", run_id="any").status_code == 200


@pytest.mark.parametrize(
    "query", ["dag_id=told&dag_id=private_told", "dag_id=private_told&dag_id=told", "dag_id=~", "dag_id=", ""]
)
def test_no_spelling_of_the_dag_gets_a_stranger_further(site, token_of, media_root, tell, query):
    file = media_root / "spelled.png"
    file.write_bytes(PICTURE)
    run_id = tell("private_told", xcoms={"files": [str(file)]})
    url = f"{site}/modelslab/media?{query}"
    reply = requests.get(
        url,
        params={"run_id": run_id, "task_id": "tell", "path": str(file)},
        cookies={"_token": token_of("stranger")},
        timeout=PATIENCE,
    )
    assert reply.status_code in (403, 404, 422)


def test_parts_of_the_page_are_files_of_the_package_and_nothing_else(visit):
    assert visit("static/outputs.js", None).headers["Content-Type"].startswith("text/javascript")
    assert visit("static/missing.js", None).status_code == 404
    for path in ("static/../server.py", "static/%2e%2e/server.py", "static/..%2fserver.py", "static/"):
        assert visit(path, None).status_code == 404


# --- stored files -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(media_root: Path, tell) -> dict[str, str]:
    """Two tasks with a file each, where one of them lists much besides that it has not stored."""
    (media_root / "mine").mkdir()
    (media_root / "theirs").mkdir()
    mine, theirs = media_root / "mine" / "fox.png", media_root / "theirs" / "owl.png"
    mine.write_bytes(PICTURE)
    theirs.write_bytes(b"of another task")
    outside = media_root.parent / "outside.txt"
    outside.write_text("secret")
    (media_root / "link.txt").symlink_to(outside)
    page = media_root / "page.html"
    page.write_text("<script>alert(1)</script>")
    files = {
        "mine": str(mine),
        "page": str(page),
        "passwd": "file:///etc/passwd",
        "climbing": f"{media_root}/mine/../../outside.txt",
        "link": f"{media_root}/link.txt",
        "web": "https://example.com/fox.png",
        "bucket": "s3://bucket/fox.png",
        "folder": str(media_root / "mine"),
    }
    return {
        **files,
        "theirs": str(theirs),
        "run": tell(xcoms={"files": list(files.values())}),
        "private": tell("private_told", xcoms={"files": [str(mine)]}),
    }


@pytest.fixture
def fetch(visit, stored):
    def ask(name: str, user: str | None = "viewer", headers: dict[str, str] | None = None, **query):
        query = {"dag_id": "told", "run_id": stored["run"], "task_id": "tell", "path": stored.get(name, name), **query}
        return visit("media", user, headers, **query)

    return ask


def test_a_viewer_gets_a_file_that_the_task_has_stored(fetch):
    reply = fetch("mine")
    assert (reply.status_code, reply.content) == (200, PICTURE)
    assert reply.headers["Content-Type"] == "image/png"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in reply.headers["Content-Security-Policy"]
    assert reply.headers["Content-Disposition"].startswith("inline")
    assert fetch("mine", download=True).headers["Content-Disposition"].startswith("attachment")


def test_a_part_of_a_file_is_served(fetch):
    reply = fetch("mine", headers={"Range": "bytes=1-3"})
    assert (reply.status_code, reply.content) == (206, b"PNG")
    assert reply.headers["Content-Range"] == f"bytes 1-3/{len(PICTURE)}"
    reply = fetch("mine", headers={"Range": f"bytes={len(PICTURE)}-"})
    assert (reply.status_code, reply.headers["Content-Range"]) == (416, f"bytes */{len(PICTURE)}")


def test_a_stored_page_is_not_shown_as_one(fetch):
    reply = fetch("page")
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert reply.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize("name", ["passwd", "climbing", "link", "web", "bucket", "folder"])
def test_what_a_task_only_claims_to_have_stored_is_refused(fetch, name):
    reply = fetch(name)
    assert reply.status_code == 404
    assert b"root:" not in reply.content
    assert b"secret" not in reply.content


def test_a_file_of_another_task_is_refused(fetch):
    assert fetch("theirs").status_code == 404


def test_a_file_is_served_for_the_task_that_stored_it_only(fetch):
    assert fetch("mine", run_id="another").status_code == 404
    assert fetch("mine", task_id="another").status_code == 404
    assert fetch("mine", map_index=0).status_code == 404


def test_stored_files_need_the_same_right_as_the_xcom(fetch, stored):
    private = {"dag_id": "private_told", "run_id": stored["private"]}
    assert fetch("mine", None, **private).status_code == 401
    assert fetch("mine", "stranger", **private).status_code == 403
    assert fetch("mine", "viewer", **private).status_code == 200


@pytest.mark.parametrize("files", ["a text", 5, {"path": "/etc/passwd"}, [None, 1, {}], "[broken"])
def test_any_xcom_may_stand_there(visit, tell, files):
    run_id = tell(xcoms={"files": files})
    reply = visit("media", dag_id="told", run_id=run_id, task_id="tell", path=os.devnull)
    assert reply.status_code == 404
