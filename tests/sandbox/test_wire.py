"""What a client sees over HTTP when nothing goes wrong by design: forms, replies, checks, limits."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import requests

from airflow_provider_modelslab.endpoints import FetchEndpoint, fetch_request, parse_fetch_url, route_of
from airflow_provider_modelslab.sandbox import Sandbox
from tests.sandbox.conftest import PROMPT, Post, Poster

DOCUMENTED = {
    "v1/enterprise": (13443927, "png"),
    "v1/enterprise/video": (147, "gif"),
    "v3": (12202888, "png"),
    "v4/dreambooth": (13443927, "png"),
    "v1/enterprise/flux_headshot": (12202888, "png"),
}


def fetch(sandbox: Sandbox, endpoint: str, job_id: int | str) -> dict[str, Any]:
    """Fetch a job as the provider does."""
    url, body = fetch_request(endpoint, str(job_id), sandbox.key, sandbox.url)
    reply: dict[str, Any] = requests.post(url, json=body, timeout=60).json()
    return reply


@pytest.mark.parametrize(("family", "job_id", "kind"), [(family, *job) for family, job in DOCUMENTED.items()])
def test_the_jobs_of_the_documentation_are_there(sandbox: Sandbox, family: str, job_id: int, kind: str) -> None:
    reply = fetch(sandbox, family, job_id)
    assert (reply["status"], reply["id"]) == ("success", job_id)
    (url,) = reply["output"]
    assert url.startswith(f"{sandbox.url}/files/generations/")
    file = requests.get(url, timeout=60)
    assert (file.status_code, file.headers["Content-Type"]) == (200, f"image/{kind}")
    assert file.content[1:4] in (b"PNG", b"IF8")


def test_the_documented_jobs_belong_to_their_families(sandbox: Sandbox) -> None:
    assert fetch(sandbox, "v1/enterprise/video", 147)["proxy_links"]
    assert fetch(sandbox, "v6/video", 147)["message"] == "Request not found"
    assert sandbox.jobs == {}


@pytest.mark.parametrize("endpoint", FetchEndpoint)
def test_every_known_family_answers_in_its_form_and_in_no_other(post: Post, endpoint: FetchEndpoint) -> None:
    in_body = {"path": [], "body": [endpoint]}[route_of(endpoint).id_in] or endpoint == "v6/images"
    in_path = route_of(endpoint).id_in == "path"
    for allowed, reply in (
        (in_body, post(f"{endpoint}/fetch", request_id=5)),
        (in_body, post(f"{endpoint}/fetch", request_id="5")),
        (in_path, post(f"{endpoint}/fetch/5")),
    ):
        assert reply.status_code == (200 if allowed else 404)
        assert ("Request not found" in reply.text) is bool(allowed)


def test_without_a_request_id_the_body_form_says_so(post: Post) -> None:
    assert post("v1/enterprise/fetch").json()["message"] == {"request_id": ["The request id field is required."]}


@pytest.mark.parametrize(
    ("path", "submitted_to", "fetched_from"),
    [
        ("v6/images/text2img", "v6/images", "v6/images"),
        ("v6/video/text2video", "v6/video", "v6/video"),
        ("v7/images/text-to-image", "v7/images", "v7/images"),
        ("v3/text2img", "v3", "v3"),
        ("v4/dreambooth", "v4/dreambooth", "v3/dreambooth"),
        ("v4/dreambooth/img2img", "v4/dreambooth", "v3/dreambooth"),
        ("v5/controlnet", "v5", "v6/images"),
        ("v5/text2img", "v5", "v3"),
        ("v1/enterprise/super_resolution", "v1/enterprise/super_resolution", "v1/enterprise"),
        ("v6/voice/speech_to_text", "v6/voice", "v6/whisper"),
        ("v1/enterprise/text2img", "v1/enterprise", "v1/enterprise"),
        ("v1/enterprise/flux_headshot/make_gen", "v1/enterprise/flux_headshot", "v1/enterprise/flux_headshot"),
        ("v9/dreams/text2dream", "v9/dreams", "v9/dreams"),
    ],
)
def test_a_job_is_found_where_it_was_submitted_and_where_fetch_result_points(
    sandbox: Sandbox, post: Post, path: str, submitted_to: str, fetched_from: str
) -> None:
    reply = post(path, **PROMPT).json()
    address = parse_fetch_url(reply["fetch_result"], sandbox.url)
    assert address.endpoint == fetched_from
    assert address.job_id == (None if address.id_in == "body" else str(reply["id"]))
    for endpoint in {submitted_to, fetched_from}:
        assert fetch(sandbox, endpoint, reply["id"])["status"] == "processing"
    assert fetch(sandbox, "v6/interior", reply["id"])["message"] == "Request not found"
    sandbox.finish(reply["id"])
    for endpoint in {submitted_to, fetched_from}:
        finished = fetch(sandbox, endpoint, reply["id"])
        assert (finished["status"], finished["id"]) == ("success", reply["id"])
        assert finished["output"] == reply["future_links"]


def test_a_queued_reply_has_every_field(sandbox: Sandbox, post: Post) -> None:
    reply = post("v6/video/text2video", **PROMPT, track_id=7).json()
    assert list(reply) == [
        "status",
        "tip",
        "eta",
        "message",
        "fetch_result",
        "id",
        "output",
        "meta",
        "future_links",
        "proxy_links",
        "webhook_status",
    ]
    assert (reply["status"], reply["output"], reply["webhook_status"]) == ("processing", [], "")
    assert reply["meta"] == {**PROMPT, "track_id": 7}
    assert post(f"v6/video/fetch/{reply['id']}").json() == reply


def test_nothing_that_is_answered_carries_the_key(sandbox: Sandbox, post: Post) -> None:
    reply = post("v6/video/text2video", **PROMPT)
    sandbox.finish_all()
    assert sandbox.key not in reply.text + post(f"v6/video/fetch/{reply.json()['id']}").text
    assert sandbox.key not in str(sandbox.jobs) + str(sandbox.state()) + str(sandbox.requests[0])


@pytest.mark.parametrize(
    ("path", "family", "body"),
    [
        ("v6/images/text2img", "v6/images", {"status": "processing", "messege": "try again later.", "output": ""}),
        ("v1/enterprise/text2img", "v1/enterprise", {"status": "processing", "message": "try again later."}),
        ("v4/dreambooth", "v4/dreambooth", {"status": "processing", "message": "try again later.", "output": ""}),
    ],
)
def test_terse_families_say_neither_id_nor_eta(
    sandbox: Sandbox, post: Post, path: str, family: str, body: dict[str, str]
) -> None:
    job_id = post(path, **PROMPT).json()["id"]
    reply = fetch(sandbox, family, job_id)
    assert body.items() <= reply.items()
    assert not {"id", "eta", "fetch_result"} & reply.keys()
    sandbox.finish(job_id)
    assert list(fetch(sandbox, family, job_id)) == ["status", "id", "output"]


@pytest.mark.parametrize(("processing_replies", "has_id"), [("sparse", False), ("full", True)])
def test_all_families_can_be_made_terse_or_talkative(processing_replies: Any, has_id: bool) -> None:
    with Sandbox(duration=float("inf"), processing_replies=processing_replies) as sandbox:
        for path, family in (("v6/images/text2img", "v6/images"), ("v6/video/text2video", "v6/video")):
            reply = fetch(sandbox, family, sandbox.submit(path, PROMPT)["id"])
            assert reply["status"] == "processing"
            assert ("id" in reply) is has_id


def test_a_full_success_has_more_fields(sandbox: Sandbox, post: Post) -> None:
    job_id = post("v6/video/text2video", **PROMPT).json()["id"]
    sandbox.finish(job_id)
    reply = post(f"v6/video/fetch/{job_id}").json()
    assert reply["generationTime"] >= 0
    assert reply["nsfw_content_detected"] is False
    assert reply["meta"] == PROMPT
    assert requests.get(reply["proxy_links"][0], timeout=60).ok


def test_a_failed_job_has_an_empty_id(sandbox: Sandbox, post: Post) -> None:
    job_id = post("v6/video/text2video", **PROMPT).json()["id"]
    sandbox.fail(job_id)
    expected = {"status": "failed", "id": "", "message": "Failed, Try Again", "output": ""}
    assert post(f"v6/video/fetch/{job_id}").json() == expected


def test_the_files_exist_only_once_the_job_is_done(sandbox: Sandbox, post: Post) -> None:
    done, failed = (post("v6/images/text2img", **PROMPT, samples=3).json() for _ in range(2))
    links = [*done["future_links"], *done["proxy_links"]]
    assert len(set(links)) == 6
    assert {requests.get(link, timeout=60).status_code for link in links} == {404}
    sandbox.finish(done["id"])
    sandbox.fail(failed["id"])
    files = [requests.get(link, timeout=60) for link in links]
    assert {(file.status_code, file.headers["Content-Type"]) for file in files} == {(200, "image/png")}
    assert len({file.content for file in files}) == 3
    assert requests.head(links[0], timeout=60).status_code == 200
    assert requests.get(failed["future_links"][0], timeout=60).status_code == 404
    assert requests.get(links[0].replace("-0.png", "-3.png"), timeout=60).status_code == 404
    assert requests.get(links[0].replace(".png", ".gif"), timeout=60).status_code == 404


def test_base64_outputs(sandbox: Sandbox, post: Post) -> None:
    job_id = post("v6/images/text2img", **PROMPT, base64=True).json()["id"]
    sandbox.finish(job_id)
    (url,) = fetch(sandbox, "v6/images", job_id)["output"]
    assert url.endswith(".base64")
    assert base64.b64decode(requests.get(url, timeout=60).text, validate=True).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("path", "body", "parameter"),
    [
        ("v6/images/text2img", {}, "prompt"),
        ("v6/video/text2video_ultra", {"prompt": ""}, "prompt"),
        ("v6/voice/text_to_speech", {}, "prompt"),
        ("v7/images/text-to-image", {}, "prompt"),
        ("v6/images/img2img", {"samples": 5}, "samples"),
        ("v6/images/img2img", {"samples": "many"}, "samples"),
        ("v6/images/img2img", {"num_outputs": [2]}, "samples"),
        ("v6/images/img2img", {"webhook": "ftp://127.0.0.1/"}, "webhook"),
    ],
)
def test_wrong_parameters_are_named(
    sandbox: Sandbox, post: Post, path: str, body: dict[str, Any], parameter: str
) -> None:
    reply = post(path, **body).json()
    assert reply["status"] == "error"
    assert list(reply["message"]) == [parameter]
    assert sandbox.state()["submissions"] == {"accepted": 0, "rejected": 1}


@pytest.mark.parametrize(
    ("body", "number"), [({}, 1), ({"samples": "2"}, 2), ({"num_outputs": 4}, 4), ({"samples": None}, 1)]
)
def test_the_number_of_outputs(post: Post, body: dict[str, Any], number: int) -> None:
    assert len(post("v6/images/img2img", **body).json()["future_links"]) == number


@pytest.mark.parametrize("path", ["v6/video/text2video", "v3/fetch/12202888", "v1/enterprise/fetch", "wallet_balance"])
def test_the_key_is_checked(sandbox: Sandbox, post: Post, path: str) -> None:
    for key, message in ((None, "API key required"), ("", "API key required"), ("wrong", "Invalid API key")):
        reply = post(path, key=key)
        assert (reply.status_code, reply.json()) == (401, {"status": "error", "message": message})
    assert sandbox.jobs == {}


def test_enterprise_has_a_key_and_an_account_of_its_own(poster: Poster) -> None:
    with Sandbox(duration=float("inf"), enterprise_key="dedicated", queue_limit=1) as sandbox:
        post = poster(sandbox)
        assert post("v1/enterprise/text2img", **PROMPT).status_code == 401
        assert post("v1/enterprise/text2img", key="dedicated", **PROMPT).ok
        assert post("v6/images/text2img", key="dedicated", **PROMPT).status_code == 401
        assert post("wallet_balance", key="dedicated").status_code == 401
        assert post("v6/processing/request_count").json()["processing_count"] == 0
        assert post("v6/images/text2img", **PROMPT).ok


@pytest.mark.parametrize("path", ["api/v6/video/text2video", "api/v3/fetch/1", "api/wallet_balance", "files/x/1-0.png"])
def test_a_wrong_method_is_answered_in_json(sandbox: Sandbox, path: str) -> None:
    path = path.replace("1-0", "6ef3f81f-14e1-4835-b07a-e00dbe80b6ff-0")
    reply = requests.put(f"{sandbox.url}/{path}", json={"key": sandbox.key}, timeout=60)
    assert (reply.status_code, reply.json()["status"]) == (405, "error")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"key"', b"null", b"\xff", b'{"key": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(sandbox: Sandbox, body: bytes) -> None:
    reply = requests.post(f"{sandbox.url}/api/v3/fetch/12202888", data=body, timeout=60)
    assert (reply.status_code, reply.json()["message"]) == (400, "Invalid API Request")


@pytest.mark.parametrize("path", ["", "api", "api/v6", "api/v6/video", "api/v3", "api/video/text2video", "files/a.png"])
def test_unknown_paths_are_answered_in_json(sandbox: Sandbox, path: str) -> None:
    reply = requests.post(f"{sandbox.url}/{path}", json={"key": sandbox.key}, timeout=60)
    assert (reply.status_code, reply.json()["status"]) == (404, "error")


def test_the_queue_limit(poster: Poster) -> None:
    with Sandbox(duration=float("inf"), queue_limit=2, retry_after=7) as sandbox:
        post = poster(sandbox)
        first = post("v6/images/text2img", **PROMPT).json()["id"]
        assert post("v1/enterprise/text2img", **PROMPT).ok
        full = post("v6/video/text2video", **PROMPT)
        assert (full.status_code, full.json()) == (
            429,
            {
                "status": "error",
                "message": "Rate limit exceeded. Maximum 2 queued requests allowed.",
                "retry_after": 7,
            },
        )
        assert post("v6/processing/request_count").json()["processing_count"] == 2
        sandbox.finish(first)
        assert post("v6/video/text2video", **PROMPT).ok
        assert sandbox.state()["max_in_flight"] == 2
        assert sandbox.state()["submissions"] == {"accepted": 3, "rejected": 1}


def test_the_wallet_pays_for_what_is_accepted(poster: Poster) -> None:
    with Sandbox(balance=0.004) as sandbox:
        post = poster(sandbox)
        assert post("wallet_balance").json() == {"status": "success", "data": {"balance": 0.004, "currency": "USD"}}
        assert post("v6/images/text2img").json()["status"] == "error"
        assert [post("v6/images/text2img", **PROMPT).status_code for _ in range(3)] == [200, 200, 402]
        assert post("wallet_balance").json()["data"]["balance"] == sandbox.state()["balance"] == 0


def test_a_job_ends_by_itself() -> None:
    with Sandbox(duration=3600.0) as sandbox:
        job_id = sandbox.submit("v6/video/text2video", PROMPT)["id"]
        assert fetch(sandbox, "v6/video", job_id)["status"] == "processing"
        sandbox.skip(3600.0)
        assert fetch(sandbox, "v6/video", job_id)["status"] == "success"
        assert sandbox.jobs[job_id].generation_time == pytest.approx(3600.0)


def test_the_eta_is_the_duration_with_an_error_or_is_missing() -> None:
    with Sandbox(durations={"v6/video": 960.0}, queue_limit=None) as sandbox:
        replies = [sandbox.submit("v6/video/text2video", PROMPT) for _ in range(20)]
        etas = [reply["eta"] for reply in replies]
        assert len(set(etas)) == 20
        assert all(960 / 3 < eta < 960 * 3 for eta in etas)
    with Sandbox(durations={"v6/video": 960.0}, eta_sigma=0) as sandbox:
        assert sandbox.submit("v6/video/text2video", PROMPT)["eta"] == 960
        assert sandbox.submit("v6/images/text2img", PROMPT)["eta"] == 3
    with Sandbox(eta_sigma=None) as sandbox:
        assert "eta" not in sandbox.submit("v6/video/text2video", PROMPT)


def test_a_job_can_be_done_before_its_submission_is_answered(poster: Poster) -> None:
    with Sandbox(instant=True) as sandbox:
        reply = poster(sandbox)("v6/images/text2img", **PROMPT).json()
        assert reply["status"] == "success"
        assert requests.get(reply["output"][0], timeout=60).ok
        assert sandbox.state()["max_in_flight"] == 0
    with Sandbox(instant=0.5, queue_limit=None) as sandbox:
        statuses = [sandbox.submit("v6/images/text2img", PROMPT)["status"] for _ in range(40)]
        assert 5 < statuses.count("success") < 35


def test_links_name_the_host_that_the_client_used(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/api/v6/video/text2video"
    headers = {"Host": "localhost:8787"}
    reply = requests.post(url, json={"key": sandbox.key, **PROMPT}, headers=headers, timeout=60).json()
    assert reply["fetch_result"].startswith("http://localhost:8787/api/v6/video/fetch/")
    assert reply["future_links"][0].startswith("http://localhost:8787/files/")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("v6/video/text2vidoe", "v6/video/text2video"),
        ("v6/images/text2image", "v6/images/text2img"),
        ("v6/image/text2img", "v6/images/text2img"),
        ("v7/images/text_to_image", "v7/images/text-to-image"),
        ("v7/images/text2img", "v7/images/text-to-image"),
        ("V6/Images/Text2Img", "v6/images/text2img"),
        ("v6/trainer/trian", "v6/trainer/train"),
        ("text2img", "v6/images/text2img"),
    ],
)
def test_a_misspelt_generation_endpoint_is_refused_with_the_one_that_is_meant(
    sandbox: Sandbox, post: Post, path: str, meant: str
) -> None:
    reply = post(path, **PROMPT)
    assert reply.status_code == 404
    assert reply.json()["message"] == f"The route /api/{path} could not be found (did you mean {meant!r}?)."
    assert sandbox.state()["submissions"]["accepted"] == 0


@pytest.mark.parametrize("path", ["v6/holograms/text2hologram", "v8/images/text-to-image", "v1/enterprise/krea_2/make"])
def test_endpoints_of_tomorrow_are_served(post: Post, path: str) -> None:
    assert post(path, **PROMPT).status_code == 200
