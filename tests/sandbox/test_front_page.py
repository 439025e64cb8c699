"""The page at ``/``: jobs, outputs and commands for a browser; nothing that clients have sent becomes markup."""

from __future__ import annotations

import re
import shlex
import subprocess
from html import unescape

import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox

HOSTILE = """</td><script>alert(1)</script><img src=x onerror="alert('2')">&lt;"""


def front_page(sandbox: Sandbox) -> str:
    reply = requests.get(f"{sandbox.url}/", timeout=60)
    assert (reply.status_code, reply.headers["Content-Type"].partition(";")[0]) == (200, "text/html")
    return reply.text


def test_it_shows_jobs_with_their_prompts_and_pictures(sandbox: Sandbox) -> None:
    assert "No job was submitted yet" in front_page(sandbox)
    done, failed = (
        sandbox.submit("v6/images/text2img", {"prompt": f"a {name}", "samples": 2}) for name in ("fox", "gem")
    )
    sandbox.finish(done["id"])
    sandbox.fail(failed["id"], "No GPU left")
    page = front_page(sandbox)
    assert page.index("a gem") < page.index("a fox")
    assert "failed: No GPU left" in page
    pictures = re.findall(r'<img src="([^"]+)"', page)
    assert len(pictures) == 2
    for picture in pictures:
        assert requests.get(f"{sandbox.url}{picture}", timeout=60).content.startswith(b"\x89PNG")


def test_browsers_need_not_fetch_the_pictures_each_time(sandbox: Sandbox) -> None:
    sandbox.finish(sandbox.submit("v6/images/text2img", {"prompt": "a fox"})["id"])
    page = requests.get(f"{sandbox.url}/?reload=1", timeout=60).text
    (picture,) = re.findall(r'<img src="([^"]+)"', page)
    assert requests.get(f"{sandbox.url}{picture}", timeout=60).headers["Cache-Control"] == "max-age=60"


def test_its_commands_name_the_newest_job(sandbox: Sandbox) -> None:
    for _ in range(3):
        newest = sandbox.submit("v6/images/text2img", {"prompt": "a fox"})["id"]
    assert f"""fail -d '{{"id": {newest}""" in unescape(front_page(sandbox))


def test_texts_of_clients_never_become_markup(sandbox: Sandbox) -> None:
    job = sandbox.submit("v6/images/text2img", {"prompt": HOSTILE})
    sandbox.fail(job["id"], HOSTILE)
    page = front_page(sandbox)
    assert "<script" not in page
    assert 'onerror="' not in page
    assert page.count(HOSTILE) == 0
    assert unescape(page).count(HOSTILE) == 2
    assert "default-src 'none'" in page


def test_its_commands_work(sandbox: Sandbox) -> None:
    sandbox.submit("v6/images/text2img", {"prompt": "a fox"})
    (block,) = re.findall(r"<pre>(.*?)</pre>", front_page(sandbox), re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in unescape(block).splitlines()]
    replies = {}
    for command in filter(None, commands):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        replies[" ".join(command[1:])] = done.stdout
    refused = [command for command, reply in replies.items() if '"status": "error"' in reply]
    # The first command has ended the job already.
    assert [command for command in refused if "/sandbox/fail" not in command] == []
    assert len(replies) == 8


@pytest.mark.parametrize("headers", [{"Host": "rebound.example"}, {"Origin": "https://page.example"}])
def test_it_is_not_for_other_pages(sandbox: Sandbox, headers: dict[str, str]) -> None:
    assert requests.get(f"{sandbox.url}/", headers=headers, timeout=60).status_code == 403


def test_looking_at_it_is_no_request_to_the_api(sandbox: Sandbox) -> None:
    front_page(sandbox)
    assert sandbox.requests == []
    assert set(sandbox.state()["requests"].values()) == {0}
