from __future__ import annotations

from typing import Any

import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox
from tests.sandbox.conftest import PROMPT, Post


def control(sandbox: Sandbox, path: str, body: Any = None) -> requests.Response:
    if path == "state":
        return requests.get(f"{sandbox.url}/sandbox/state", timeout=60)
    return requests.post(f"{sandbox.url}/sandbox/{path}", json=body, timeout=60)


def test_the_state_counts_everything(sandbox: Sandbox, post: Post) -> None:
    ids = [post("v6/images/text2img", **PROMPT).json()["id"] for _ in range(3)]
    post("v6/images/text2img")
    post(f"v6/images/fetch/{ids[0]}")
    post("wallet_balance")
    post("nonsense")
    sandbox.finish(ids[0])
    sandbox.fail(ids[1])
    expected = {
        "requests": {"file": 0, "account": 1, "upload": 0, "fetch": 1, "cancel": 0, "submit": 4, "other": 1},
        "submissions": {"accepted": 3, "rejected": 1},
        "jobs": {"processing": 1, "success": 1, "failed": 1},
        "in_flight": 1,
        "max_in_flight": 3,
        "too_many_requests": 0,
        "balance": 43.594,
    }
    assert sandbox.state() == control(sandbox, "state").json() == expected


def test_jobs_are_ended_over_http(sandbox: Sandbox) -> None:
    ids = [sandbox.submit("v6/images/text2img", PROMPT)["id"] for _ in range(4)]
    assert control(sandbox, "finish", {"id": ids[0]}).json()["jobs"] == {"processing": 3, "success": 1, "failed": 0}
    assert control(sandbox, "fail", {"id": ids[1], "message": "No"}).json()["jobs"]["failed"] == 1
    assert control(sandbox, "finish").json()["jobs"] == {"processing": 0, "success": 3, "failed": 1}


def test_faults_and_scripts_are_set_over_http(sandbox: Sandbox, post: Post) -> None:
    assert control(sandbox, "faults", {"http_500": 1}).ok
    assert post("v3/fetch/12202888").status_code == 500
    assert control(sandbox, "faults", {}).ok
    assert control(sandbox, "script", {"kind": "fetch", "faults": ["http_503", None]}).ok
    assert [post("v3/fetch/12202888").status_code for _ in range(2)] == [503, 200]


def test_reset_forgets(sandbox: Sandbox, post: Post) -> None:
    before = sandbox.state()
    job_id = post("v6/images/text2img", **PROMPT).json()["id"]
    sandbox.script("fetch", ["http_500"])
    assert control(sandbox, "reset").json() == before
    assert (sandbox.jobs, sandbox.requests) == ({}, [])
    assert post(f"v6/images/fetch/{job_id}").json()["message"] == "Request not found"
    assert post("v3/fetch/12202888").json()["status"] == "success"


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("finish", {"id": 5}, 404, "no job 5"),
        ("finish", {"id": "x"}, 404, "no job x"),
        ("finish", [5], 400, "must be a JSON object"),
        ("finish", {"job": 5}, 400, "unexpected keyword argument"),
        ("faults", {"http_418": 1}, 400, "known are failed"),
        ("faults", {"http_500": "often"}, 400, "not supported"),
        ("script", {"kind": "fetch"}, 400, "missing 1 required"),
        ("script", {"kind": "fetch", "faults": [["html"]]}, 400, "unknown fault"),
        ("nonsense", {}, 404, "could not be found"),
        ("fail", {"id": 30_000_001, "message": ""}, 400, "must say why"),
        ("fail", {"id": 30_000_001, "message": None}, 400, "must say why"),
    ],
)
def test_wrong_commands_are_explained(sandbox: Sandbox, path: str, body: Any, status: int, message: str) -> None:
    sandbox.submit("v6/images/text2img", PROMPT)
    reply = control(sandbox, path, body)
    assert reply.status_code == status
    assert message in reply.json()["message"]
    assert sandbox.state()["jobs"] == {"processing": 1, "success": 0, "failed": 0}


def test_commands_need_their_method(sandbox: Sandbox) -> None:
    assert requests.get(f"{sandbox.url}/sandbox/reset", timeout=60).status_code == 405
    assert requests.post(f"{sandbox.url}/sandbox/state", timeout=60).status_code == 405
