"""Trainings and workflow runs: how each is started, asked for and cancelled, and what its replies mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_modelslab._polling.waits import JobWait
from airflow_provider_modelslab._protocol.arguments import parse_family, parse_generation_endpoint, parse_jobs
from airflow_provider_modelslab._protocol.kinds import ask_request, cancel_request, start_request
from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab._protocol.replies import Reply, read_fetch_reply, read_submission_reply
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab.jobs import Job
from tests.support.pacing import SimulatedClock, simulated

KEY = "a-key-of-enough-length"
UUID = "9b2f6c1e-4d3a-4f8e-a1b2-3c4d5e6f7a8b"

TRAINING = Job(id=UUID, endpoint="v6/trainer")
FINE_TUNING = Job(id="F5jvdzGnYi", endpoint="v3/lora_fine_tune")
RUN = Job(id="12345", endpoint="v1/workflows/6a-b7")

OUTPUT = {"output": ["https://cdn.example/a.png"], "proxy_links": ["https://proxy.example/a.png"], "status": "success"}


def training(status: object, **more: Any) -> dict[str, Any]:
    return {"status": "success", "message": status, "data": {"id": UUID, "status": status, **more}}


def run(status: str, **more: Any) -> dict[str, Any]:
    return {"status": "success", "execution": {"id": 12345, "workflow_id": "6a-b7", "status": status}, **more}


def read(job: Job, body: object, http_status: int = 200) -> Reply:
    return read_fetch_reply(HttpReply(http_status, json.dumps(body).encode()), job, KEY)


# --- requests ---


@pytest.mark.parametrize(
    ("job", "method", "url", "body", "headers"),
    [
        (TRAINING, "POST", f"/api/v6/trainer/status/{UUID}", {"key": KEY}, {}),
        (FINE_TUNING, "POST", "/api/v3/fine_tune_status/F5jvdzGnYi", {"key": KEY}, {}),
        (RUN, "GET", "/api/v1/workflows/6a-b7/runs/12345", None, {"key": KEY}),
        (Job(id="5", endpoint="v6/video"), "POST", "/api/v6/video/fetch/5", {"key": KEY}, {}),
    ],
)
@pytest.mark.parametrize("base_url", [None, "http://127.0.0.1:8787/gateway"])
def test_each_kind_is_asked_for_as_its_page_says(job, method, url, body, headers, base_url):
    request = ask_request(job, KEY, base_url)
    assert request.url == (base_url or "https://modelslab.com") + url
    assert (request.method, request.body, dict(request.headers)) == (method, body, headers)
    assert KEY not in repr(request)


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("v6/trainer/train", {"steps": 5, "key": KEY}, {}),
        ("v3/lora_fine_tune", {"steps": 5, "key": KEY}, {}),
        ("v1/workflows/6a-b7/run", {"steps": 5}, {"key": KEY}),
        ("v6/video/text2video", {"steps": 5, "key": KEY}, {}),
    ],
)
def test_each_kind_is_started_as_its_page_says(path, body, headers):
    request = start_request(path, {"steps": 5}, KEY)
    assert request.url == f"https://modelslab.com/api/{path}"
    assert (request.method, request.body, dict(request.headers)) == ("POST", body, headers)


def test_what_can_be_cancelled_is_cancelled_as_its_page_says():
    stop = cancel_request(TRAINING, KEY)
    assert stop.url == "https://modelslab.com/api/v6/trainer/stop"
    assert (stop.method, stop.body) == ("POST", {"key": KEY, "training_id": UUID})
    cancel = cancel_request(RUN, KEY)
    assert cancel.url == "https://modelslab.com/api/v1/workflows/6a-b7/runs/12345/cancel"
    assert (cancel.method, cancel.body, dict(cancel.headers)) == ("POST", None, {"key": KEY})


@pytest.mark.parametrize("job", [FINE_TUNING, Job(id="5", endpoint="v6/video")])
def test_what_cannot_be_cancelled_says_so(job):
    with pytest.raises(ValueError, match=f"{job.id} cannot be cancelled"):
        cancel_request(job, KEY)


# --- states ---

STATES = [
    (TRAINING, training("training_started"), "PROCESSING", []),
    (TRAINING, training("training_paused_by_something_new"), "PROCESSING", []),
    (TRAINING, training(None), "PROCESSING", []),
    (TRAINING, training(["training_completed"]), "PROCESSING", []),
    (TRAINING, {"status": "success", "message": "training_started", "data": []}, "PROCESSING", []),
    (TRAINING, {"status": "success", "message": "training_completed"}, "NO_OUTPUT", []),
    (TRAINING, {"status": "success"}, "PROCESSING", []),
    (TRAINING, training("training_completed"), "NO_OUTPUT", []),
    (TRAINING, training("training_completed", inference=None), "NO_OUTPUT", []),
    (TRAINING, training("training_completed", inference={"status": "deploying"}), "NO_OUTPUT", []),
    (TRAINING, training("training_completed", inference={"status": "not_ready"}), "NO_OUTPUT", []),
    (TRAINING, training("training_started", inference={"status": "ready"}), "PROCESSING", []),
    (TRAINING, training("training_completed", inference={"status": "ready"}), "SUCCESS", [UUID]),
    (TRAINING, training("Training_Completed", inference={"status": "READY"}), "SUCCESS", [UUID]),
    (TRAINING, training("training_completed", inference={"status": "ready", "model_id": "mine"}), "SUCCESS", ["mine"]),
    (
        TRAINING,
        training("training_completed", inference={"status": "ready", "model_id": "flux", "lora_model": "mine"}),
        "SUCCESS",
        ["mine"],
    ),
    (TRAINING, training("training_cancelled", response_dump="CUDA out of memory"), "FAILED", []),
    (TRAINING, training("training_cancelled"), "FAILED", []),
    (TRAINING, {"status": "error", "message": "Training request not found."}, "NOT_FOUND", []),
    (FINE_TUNING, {"status": "success", "messege": "deploying_gpu"}, "PROCESSING", []),
    (FINE_TUNING, {"status": "success", "messege": "training_success"}, "PROCESSING", []),
    (FINE_TUNING, {"status": "success", "message": "trained_model_uploaded", "output": "x"}, "PROCESSING", []),
    (FINE_TUNING, {"status": "success", "messege": "this model_ready is no word"}, "PROCESSING", []),
    (FINE_TUNING, {"status": "success", "messege": "model_ready", "data": "Step:1"}, "SUCCESS", ["F5jvdzGnYi"]),
    (FINE_TUNING, {"status": "success", "message": "model_ready"}, "SUCCESS", ["F5jvdzGnYi"]),
    (FINE_TUNING, {"status": "failed", "messege": "no such training"}, "FAILED", []),
    (RUN, run("pending"), "PROCESSING", []),
    (RUN, run("running", output=OUTPUT), "PROCESSING", []),
    (RUN, run("paused", output=OUTPUT), "PROCESSING", []),
    (RUN, {"status": "success", "execution": None, "output": OUTPUT}, "PROCESSING", []),
    (RUN, run("completed", output=OUTPUT), "SUCCESS", ["https://cdn.example/a.png"]),
    (RUN, run("completed", output={"output": "a text", "status": "success"}), "SUCCESS", ["a text"]),
    (RUN, run("completed", output=["https://cdn.example/a.png"]), "SUCCESS", ["https://cdn.example/a.png"]),
    (RUN, run("completed", output=None), "NO_OUTPUT", []),
    (RUN, run("failed", error="Image generation failed: Invalid prompt"), "FAILED", []),
    (RUN, run("failed", error="Invalid API key"), "FAILED", []),
    (RUN, run("cancelled"), "FAILED", []),
]


@pytest.mark.parametrize(("job", "body", "verdict", "outputs"), STATES)
def test_the_inner_state_counts_and_never_the_outer_status(job, body, verdict, outputs):
    reply = read(job, body)
    assert (reply.verdict.name, reply.job.outputs) == (verdict, outputs)
    assert reply.job.id == job.id


@pytest.mark.parametrize(
    ("job", "body", "words"),
    [
        (TRAINING, training("training_started"), "training_started"),
        (TRAINING, training("training_cancelled", response_dump={"reason": "out of memory"}), "reason: out of memory"),
        (FINE_TUNING, {"status": "success", "messege": "deploying_gpu"}, "deploying_gpu"),
        (RUN, run("running"), "running"),
        (RUN, run("failed", error="Invalid prompt"), "Invalid prompt"),
        (RUN, run("cancelled"), "The run is cancelled"),
    ],
)
def test_the_record_says_how_it_stands(job, body, words):
    assert read(job, body).job.message == words


def test_the_record_keeps_the_whole_result():
    inference = {"status": "ready", "model_id": "mine", "request": {"prompt": "a fox"}}
    assert read(TRAINING, training("training_completed", inference=inference)).job.meta["inference"] == inference
    finished = run("completed", output=OUTPUT, steps=[{"name": "Text to Image"}])
    finished["execution"]["execution_time"] = 15.2
    job = read(RUN, finished).job
    assert (job.meta["steps"], job.generation_time) == ([{"name": "Text to Image"}], 15.2)
    assert read(FINE_TUNING, {"status": "success", "messege": "model_ready", "data": "Step:1"}).job.meta == {
        "data": "Step:1"
    }


@pytest.mark.parametrize("job", [TRAINING, FINE_TUNING, RUN])
@pytest.mark.parametrize(("http_status", "verdict"), [(401, "INVALID_KEY"), (402, "NO_CREDITS"), (500, "TRANSIENT")])
def test_what_is_not_about_the_work_is_read_as_of_a_generation(job, http_status, verdict):
    assert read(job, {"status": "error", "message": "x"}, http_status).verdict.name == verdict


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(KEY),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["status", "inference"]), inner),
    max_leaves=20,
)
FIELDS = ["status", "message", "messege", "data", "execution", "output", "error", "steps", "training_id", "id"]


@given(st.sampled_from([TRAINING, FINE_TUNING, RUN]), st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_reading_is_total_and_keeps_no_key(job, body):
    started = {"v6/trainer": "v6/trainer/train", "v3/lora_fine_tune": "v3/lora_fine_tune"}
    received = HttpReply(200, json.dumps(body).encode())
    submitted = read_submission_reply(received, started.get(job.endpoint, f"{job.endpoint}/run"), None, KEY)
    for reply in (read_fetch_reply(received, job, KEY), submitted):
        assert KEY not in json.dumps(reply.job.to_dict())
    assert submitted.verdict is not Verdict.SUCCESS


# --- starts ---


@pytest.mark.parametrize(
    ("path", "body", "http_status", "job"),
    [
        ("v6/trainer/train", {"status": "success", "message": "training_started", "id": UUID}, 200, TRAINING),
        ("v6/trainer/train", {"status": "success", "training_id": UUID, "id": 5}, 200, TRAINING),
        ("v6/trainer/train", {"status": "processing", "request_id": UUID}, 200, TRAINING),
        ("v6/trainer/train", {"status": "success", "data": {"id": UUID, "status": "x"}}, 200, TRAINING),
        (
            "v3/lora_fine_tune",
            {"status": "success", "messege": "deploying_gpu", "data": "30 minutes.", "training_id": "F5jvdzGnYi"},
            200,
            FINE_TUNING,
        ),
        (
            "v1/workflows/6a-b7/run",
            {"status": "success", "execution_id": 12345, "status_url": "https://evil.example/runs/9"},
            202,
            RUN,
        ),
        ("v6/trainer/train", {"status": "success", "request_id": 5, "data": {"training_id": UUID}}, 200, TRAINING),
        ("v1/workflows/6a-b7/run", {"status": "success", "execution": {"id": 12345}, "id": 9}, 202, RUN),
        ("v1/workflows/6a-b7/run", {"status": "success", "id": 12345.0}, 202, RUN),
        (
            "v1/workflows/6a-b7/run",
            {"status": "success", "status_url": "https://elsewhere.example/api/v1/workflows/6a-b7/runs/12345/?page=1"},
            202,
            RUN,
        ),
    ],
)
def test_a_start_names_its_work(path, body, http_status, job):
    reply = read_submission_reply(HttpReply(http_status, json.dumps(body).encode()), path, None, KEY)
    assert reply.verdict is Verdict.PROCESSING
    assert (reply.job.id, reply.job.endpoint, reply.job.status) == (job.id, job.endpoint, "processing")


@pytest.mark.parametrize("path", ["v6/trainer/train", "v3/lora_fine_tune", "v1/workflows/6a-b7/run"])
def test_a_start_without_an_id_may_have_been_billed(path):
    reply = read_submission_reply(HttpReply(200, b'{"status": "success", "output": ["https://x.example"]}'), path)
    assert reply.verdict is Verdict.AMBIGUOUS
    assert reply.job.message.endswith("the fields of the reply: output, status")


# --- arguments ---


def test_jobs_are_named_by_ids_by_replies_and_by_records():
    assert parse_jobs(UUID, "v6/trainer") == [TRAINING]
    reply = {"status": "success", "messege": "deploying_gpu", "training_id": "F5jvdzGnYi"}
    (job,) = parse_jobs(reply, "v3/lora_fine_tune")
    assert (job.id, job.status) == ("F5jvdzGnYi", "processing")
    status_url = "https://modelslab.com/api/v1/workflows/6a-b7/runs/12345"
    (job,) = parse_jobs({"status": "success", "execution_id": 12345, "status_url": status_url})
    assert (job.id, job.endpoint, job.status) == ("12345", RUN.endpoint, "processing")
    with pytest.raises(
        ValueError, match="a job has neither"
    ):  # no workflow is called that, and the key is sent to none
        parse_jobs({"status": "success", "execution_id": 5, "status_url": status_url.replace("6a-b7", "..")})
    (job,) = parse_jobs(Job(id=UUID, endpoint="v6/trainer", status="success", outputs=["mine"]).to_dict())
    assert (job.status, job.outputs) == ("success", ["mine"])


@pytest.mark.parametrize(
    ("endpoint", "meant"), [("v6/trainer/train", "'v6/trainer'"), ("v1/workflows/6a-b7/run", "'v1/workflows/6a-b7'")]
)
def test_the_two_addresses_of_a_kind_are_told_apart(endpoint, meant):
    with pytest.raises(ValueError, match=meant):
        parse_family(endpoint)
    assert parse_generation_endpoint(endpoint) == endpoint
    family = meant.strip("'")
    assert parse_family(family) == family
    with pytest.raises(ValueError, match=endpoint):
        parse_generation_endpoint(family)


@pytest.mark.parametrize(
    ("endpoint", "meant"),
    [
        ("v6/trainer/status", "v6/trainer"),
        ("https://modelslab.com/api/v6/trainer/stop", "v6/trainer"),
        ("v1/workflows/6a-b7/runs", "v1/workflows/6a-b7"),
        ("v1/workflows/6a-b7/runs/5/cancel", "v1/workflows/6a-b7"),
    ],
)
def test_an_address_of_the_same_work_names_the_endpoint_that_is_meant(endpoint, meant):
    with pytest.raises(ValueError, match=f"pass '{meant}'"):
        parse_family(endpoint)


# --- waits ---


def wait_for(job: Job, clock: SimulatedClock, **numbers: Any) -> JobWait:
    return JobWait(job, simulated(clock, **numbers), started=clock.wall())


def take(wait: JobWait, clock: SimulatedClock, body: object) -> None:
    clock.move(wait.delay())
    wait.take(read(wait.job, body))


@pytest.mark.parametrize(
    ("job", "body"),
    [
        (TRAINING, training("training_started")),
        (TRAINING, training("training_completed")),
        (FINE_TUNING, {"status": "success", "messege": "deploying_gpu"}),
        (RUN, run("running")),
    ],
)
def test_work_is_polled_every_one_or_two_minutes(job, body):
    clock = SimulatedClock()
    wait = wait_for(job, clock, jitter=0.1, unusable_limit=1e9)
    gaps = [wait.delay()]
    for _ in range(120):
        take(wait, clock, body)
        gaps.append(wait.delay())
    assert 60.0 <= min(gaps) < 66.1
    assert 119.9 < gaps[-1] <= max(gaps) < 120.1


def test_a_training_that_never_gets_ready_is_done_after_half_an_hour():
    clock = SimulatedClock()
    wait = wait_for(TRAINING, clock)
    take(wait, clock, training("training_started"))
    completed = clock.monotonic()
    while not wait.job.finished:
        take(wait, clock, training("training_completed", inference=None))
    assert (wait.job.status, wait.job.outputs) == ("success", [UUID])
    assert "exported elsewhere" in wait.job.message
    assert 1800 <= clock.monotonic() - completed <= 2100


def test_a_training_that_gets_ready_late_is_done_then():
    clock = SimulatedClock()
    wait = wait_for(TRAINING, clock)
    for _ in range(10):
        take(wait, clock, training("training_completed", inference={"status": "deploying"}))
    assert not wait.job.finished
    take(wait, clock, training("training_completed", inference={"status": "ready", "model_id": "mine"}))
    assert (wait.job.status, wait.job.outputs, wait.job.message) == ("success", ["mine"], "")


def test_a_run_that_completes_without_an_output_fails_as_a_generation_does():
    clock = SimulatedClock()
    wait = wait_for(RUN, clock)
    for _ in range(10):
        take(wait, clock, run("completed"))
    assert wait.job.status == "failed"
