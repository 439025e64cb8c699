"""Trainings, workflow runs and uploads of the sandbox, as a plain HTTP client sees them."""

from __future__ import annotations

import base64

import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox

HOURS = 3600.0
KEY = "sandbox-key-not-secret"


@pytest.fixture
def sandbox():
    with Sandbox(duration=2 * HOURS) as sandbox:
        yield sandbox


def post(sandbox: Sandbox, path: str, **fields: object) -> requests.Response:
    return requests.post(f"{sandbox.url}/api/{path}", json={"key": KEY, **fields}, timeout=60)


def run_of(sandbox: Sandbox, run: int, key: str = KEY) -> requests.Response:
    return requests.get(f"{sandbox.url}/api/v1/workflows/w-1/runs/{run}", headers={"key": key}, timeout=60)


def start_run(sandbox: Sandbox) -> int:
    started = requests.post(f"{sandbox.url}/api/v1/workflows/w-1/run", json={}, headers={"key": KEY}, timeout=60)
    assert started.status_code == 202
    run: int = started.json()["execution_id"]
    assert started.json()["status_url"] == f"{sandbox.url}/api/v1/workflows/w-1/runs/{run}"
    return run


def test_a_training_goes_through_its_states_on_the_sandboxs_clock(sandbox: Sandbox):
    training = post(sandbox, "v6/trainer/train", steps=1000).json()["id"]

    def state() -> tuple[str, str | None]:
        body = post(sandbox, f"v6/trainer/status/{training}").json()
        assert body["status"] == "success"
        assert body["message"] == body["data"]["status"]
        return body["message"], (body["data"]["inference"] or {}).get("status")

    assert state() == ("training_started", None)
    sandbox.skip(1.7 * HOURS)
    assert state() == ("training_completed", "deploying")
    sandbox.skip(0.3 * HOURS)
    assert state() == ("training_completed", "ready")


def test_a_training_of_v3_tells_its_state_in_a_field_of_its_own_spelling(sandbox: Sandbox):
    training = post(sandbox, "v3/lora_fine_tune", images=[]).json()["training_id"]
    states = []
    for _ in range(9):
        states.append(post(sandbox, f"v3/fine_tune_status/{training}").json()["messege"])
        sandbox.skip(0.25 * HOURS)
    assert (states[0], states[-1]) == ("deploying_gpu", "model_ready")
    assert len(set(states)) >= 7


def test_a_training_that_fails_says_why(sandbox: Sandbox):
    training = post(sandbox, "v6/trainer/train").json()["id"]
    sandbox.fail(training, "CUDA out of memory")
    data = post(sandbox, f"v6/trainer/status/{training}").json()["data"]
    assert (data["status"], data["response_dump"]) == ("training_cancelled", "CUDA out of memory")


def test_a_training_that_is_exported_never_gets_ready(sandbox: Sandbox):
    training = post(sandbox, "v6/trainer/train", hf_repo="me/fox").json()["id"]
    sandbox.finish(training)
    data = post(sandbox, f"v6/trainer/status/{training}").json()["data"]
    assert (data["status"], data["inference"]) == ("training_completed", None)


def test_a_training_is_stopped_once(sandbox: Sandbox):
    training = post(sandbox, "v6/trainer/train").json()["id"]
    assert post(sandbox, "v6/trainer/stop", training_id=training).json()["message"] == "training stopped"
    assert post(sandbox, f"v6/trainer/status/{training}").json()["data"]["status"] == "training_completed"
    again = post(sandbox, "v6/trainer/stop", training_id=training)
    assert again.json() == {"status": "error", "message": "Training has already finished."}
    assert post(sandbox, "v6/trainer/stop", training_id="x").json()["message"] == "Training request not found."


def test_a_run_is_asked_for_with_get_and_a_key_in_the_header(sandbox: Sandbox):
    run = start_run(sandbox)
    assert run_of(sandbox, run).json()["execution"]["status"] == "pending"
    sandbox.skip(HOURS)
    assert run_of(sandbox, run).json()["execution"]["status"] == "running"
    sandbox.skip(HOURS)
    body = run_of(sandbox, run).json()
    assert (body["status"], body["execution"]["status"]) == ("success", "completed")
    (url,) = body["output"]["output"]
    assert requests.get(url, timeout=60).content.startswith(b"\x89PNG")
    assert run_of(sandbox, run, key="wrong").status_code == 401
    assert run_of(sandbox, 5).status_code == 404
    assert post(sandbox, f"v1/workflows/w-1/runs/{run}").status_code == 405


def test_a_run_is_cancelled_once(sandbox: Sandbox):
    run = start_run(sandbox)
    cancel = f"{sandbox.url}/api/v1/workflows/w-1/runs/{run}/cancel"
    assert requests.post(cancel, headers={"key": KEY}, timeout=60).json()["message"] == "Execution cancelled."
    assert run_of(sandbox, run).json()["execution"]["status"] == "cancelled"
    assert requests.post(cancel, headers={"key": KEY}, timeout=60).status_code == 400


def test_an_upload_is_served_again(sandbox: Sandbox):
    text = f"data:image/png;base64,{base64.b64encode(b'a picture').decode()}"
    (url,) = post(sandbox, "v6/base64_to_url", base64_string=text).json()["output"]
    served = requests.get(url, timeout=60)
    assert (served.content, served.headers["Content-Type"]) == (b"a picture", "image/png")
    assert post(sandbox, "v6/base64_to_url", base64_string="no base64!").json()["status"] == "error"
    large = base64.b64encode(bytes(5 * 2**20 + 1)).decode()
    assert post(sandbox, "v6/base64_to_url", base64_string=large).status_code == 400
    assert requests.get(f"{sandbox.url}/files/uploads/x.png", timeout=60).status_code == 404


@pytest.mark.parametrize("kind", ["image/svg+xml", "model/vnd.usdz+zip", "audio/x-wav"])
def test_a_file_of_any_type_can_be_uploaded(sandbox: Sandbox, kind: str):
    text = f"data:{kind};base64,{base64.b64encode(b'a file').decode()}"
    (url,) = post(sandbox, "v6/base64_to_url", base64_string=text).json()["output"]
    served = requests.get(url, timeout=10)
    assert (served.content, served.headers["Content-Type"]) == (b"a file", kind)


def test_the_clock_is_moved_over_http(sandbox: Sandbox):
    training = post(sandbox, "v6/trainer/train").json()["id"]
    assert requests.post(f"{sandbox.url}/sandbox/skip", json={"seconds": 2 * HOURS}, timeout=60).ok
    assert post(sandbox, f"v6/trainer/status/{training}").json()["data"]["inference"]["status"] == "ready"
    assert requests.post(f"{sandbox.url}/sandbox/skip", json={"seconds": -1}, timeout=60).status_code == 400


def test_a_job_is_submitted_without_a_client(sandbox: Sandbox):
    training = sandbox.submit("v6/trainer/train", {})["id"]
    run = sandbox.submit("v1/workflows/w-1/run", {})["execution_id"]
    sandbox.finish(training)
    sandbox.fail(run)
    assert [job.status for job in sandbox.jobs.values()] == ["success", "failed"]
