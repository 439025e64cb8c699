from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.faults import FAULTS, FaultPlan, RequestLimit
from tests.sandbox.conftest import PROMPT, Post, Poster
from tests.support.waiting import wait_until

SUBMISSION = "v6/video/text2video"

NO_REPLY = (0, "")

# In other fields, once the job is done.
RESULTS: dict[str, object] = {
    "output_in_proxy_links": ("proxy_links",),
    "output_in_links": ("links",),
    "output_url": ("output_url",),
    "output_objects": ("output", 0, "url"),
    "output_nested": ("output", "output"),
    "output_text": ("output",),
    "output_transcript": ("output", "timestamps"),
    "output_in_meta": ("meta", "transcription"),
}

# What a client gets: HTTP status and a part of the text. ``None``: what it would have got without the fault.
SEEN: dict[str, tuple[int, str] | None] = {
    "failed": None,
    "error": (200, '{"status": "error", "message": "Something'),
    "messege": (200, '{"status": "error", "messege": "Something'),
    "dict_message": (200, '"message": {"prompt": ["The prompt field is required."]}'),
    "empty_error": (200, '{"status": "error", "message": ""}'),
    "empty_output": (200, '"output": []}'),
    "not_found": (200, '{"status": "failed", "id": "", "message": "Request not found"'),
    "rate_limit": (429, '"retry_after": 11}'),
    "rate_limit_200": (200, "wait for 11 seconds"),
    "http_500": (500, "Internal server error."),
    "http_502": (502, "<html>"),
    "http_503": (503, "Service temporarily unavailable."),
    "html": (200, "<html>"),
    "drop": NO_REPLY,
    "drop_unaccepted": NO_REPLY,
    "drop_midway": NO_REPLY,
    "truncated": (200, '{"status": "processing", "tip"'),
    "slow": None,
    "pause_in_minutes": (200, '"message": "Try again in 1 minutes."'),
    "current_queue": (200, '"current_queue": 16'),
    "too_many_attempts": (429, "Too Many Attempts."),
    "out_of_credits": (200, "You are out of credits"),
    "server_error_200": (200, "Internal server error."),
    "plain_validation": (200, '"message": "The prompt field is required."'),
    "processing_error": (200, '"status": "error"'),
    "http_524": (524, "<html>"),
    **dict.fromkeys(RESULTS),
    "id_as_request_id": (200, '"request_id": 3'),
    "id_in_fetch_result": (200, '"fetch_result": "http://127.0.0.1:'),
    "id_elsewhere": (200, '"order_id": 3'),
    "official_fetch_result": (200, '"fetch_result": "https://modelslab.com/api/v6/video/fetch/3'),
    "foreign_fetch_result": (200, '"fetch_result": "https://elsewhere.example/api/v6/video/fetch/3'),
}

IDS = {"id_as_request_id", "id_in_fetch_result", "id_elsewhere", "official_fetch_result", "foreign_fetch_result"}
ACCEPTED = {"failed", "empty_output", "drop", "drop_midway", "truncated", "slow", "processing_error", "http_524"}
ACCEPTED |= {*RESULTS, *IDS}


@pytest.fixture
def sandbox() -> Any:
    with Sandbox(duration=float("inf"), queue_limit=None, retry_after=11, slow_seconds=0.2) as sandbox:
        yield sandbox


def assert_seen(fault: str, post: Post, path: str) -> None:
    if SEEN[fault] == NO_REPLY:
        with pytest.raises(requests.RequestException):
            post(path, **PROMPT)
        return
    reply = post(path, **PROMPT)
    status, text = SEEN[fault] or (200, '{"status": ')
    assert reply.status_code == status
    assert text in reply.text
    expected = {"<": "text/html", "{": "application/json"}.get(reply.text.lstrip()[0], "text/plain")
    assert reply.headers["Content-Type"].startswith(expected)


def test_every_fault_is_tested_and_documented() -> None:
    assert SEEN.keys() == FAULTS.keys()
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    assert [name for name in FAULTS if f"`{name}`" not in page] == []


@pytest.mark.parametrize("fault", [name for name in FAULTS if "fetch" in FAULTS[name].on])
def test_faults_of_fetches(sandbox: Sandbox, post: Post, fault: str) -> None:
    job_id = sandbox.submit(SUBMISSION, PROMPT)["id"]
    sandbox.script("fetch", [fault])
    assert_seen(fault, post, f"v6/video/fetch/{job_id}")
    expected = "failed" if fault == "failed" else "processing"
    assert post(f"v6/video/fetch/{job_id}").json()["status"] == sandbox.jobs[job_id].status == expected


@pytest.mark.parametrize("fault", [name for name in FAULTS if "submit" in FAULTS[name].on])
def test_faults_of_submissions(sandbox: Sandbox, post: Post, fault: str) -> None:
    sandbox.script("submit", [fault])
    assert_seen(fault, post, SUBMISSION)
    accepted = int(fault in ACCEPTED)
    assert sandbox.state()["submissions"] == {"accepted": accepted, "rejected": 1 - accepted}
    assert len(sandbox.jobs) == accepted
    assert post(SUBMISSION, **PROMPT).json()["status"] == "processing"


def test_a_job_that_will_fail_fails_when_its_time_has_come(sandbox: Sandbox, post: Post) -> None:
    sandbox.script("submit", ["failed", None])
    will_fail, sound = (post(SUBMISSION, **PROMPT).json()["id"] for _ in range(2))
    assert post(f"v6/video/fetch/{will_fail}").json()["status"] == "processing"
    sandbox.finish_all()
    assert post(f"v6/video/fetch/{will_fail}").json()["message"] == "Failed, Try Again"
    assert post(f"v6/video/fetch/{sound}").json()["status"] == "success"


def test_a_slow_reply_is_slow(sandbox: Sandbox, post: Post) -> None:
    sandbox.script("fetch", ["slow"])
    assert post("v3/fetch/12202888").elapsed.total_seconds() >= 0.2


def test_a_slow_reply_does_not_hold_up_others_or_the_end(poster: Poster) -> None:
    with ThreadPoolExecutor() as pool, Sandbox(slow_seconds=3600) as sandbox:
        sandbox.script("fetch", ["slow"])
        slow = pool.submit(requests.post, f"{sandbox.url}/api/v3/fetch/12202888", json={"key": sandbox.key})
        wait_until(lambda: len(sandbox.requests) == 1)
        assert poster(sandbox)("v3/fetch/12202888").ok
        assert not slow.done()
        sandbox.stop()
        with pytest.raises(requests.ConnectionError):
            slow.result()


def test_empty_output_keeps_the_id(sandbox: Sandbox, post: Post) -> None:
    job_id = sandbox.submit(SUBMISSION, PROMPT)["id"]
    sandbox.script("fetch", ["empty_output"])
    assert post(f"v6/video/fetch/{job_id}").json() == {"status": "success", "id": job_id, "output": []}


@pytest.mark.parametrize(("fault", "place"), RESULTS.items())
def test_results_stand_in_other_places(sandbox: Sandbox, post: Post, fault: str, place: tuple[Any, ...]) -> None:
    job_id = sandbox.submit(SUBMISSION, PROMPT)["id"]
    sandbox.finish_all()
    sandbox.script("fetch", [fault])
    reply = value = post(f"v6/video/fetch/{job_id}").json()
    for name in place:
        value = value[name]
    assert value
    assert (reply["status"], reply["id"]) == ("success", job_id)


def test_a_full_queue_may_tell_how_many_it_holds(poster: Poster) -> None:
    with Sandbox(queue_limit=1, queue_reply="current_queue", duration=float("inf")) as sandbox:
        sandbox.submit(SUBMISSION, PROMPT)
        reply = poster(sandbox)(SUBMISSION, **PROMPT)
        assert (reply.status_code, reply.json()["status"], reply.json()["current_queue"]) == (200, "error", 1)


def test_a_script_is_followed_in_turn_and_then_over(sandbox: Sandbox, post: Post) -> None:
    sandbox.script("fetch", ["http_500", None, "html", "http_503"])
    assert [post("v3/fetch/12202888").status_code for _ in range(5)] == [500, 200, 200, 503, 200]
    sandbox.script("fetch", ["http_500"] * 9)
    sandbox.script("fetch", [])
    assert post("v3/fetch/12202888").status_code == 200


def test_a_script_strikes_its_own_kind_only(sandbox: Sandbox, post: Post) -> None:
    sandbox.script("fetch", ["http_500"])
    assert post(SUBMISSION, **PROMPT).ok
    assert post("wallet_balance").ok
    assert post("v3/fetch/12202888").status_code == 500


def test_what_is_refused_anyway_does_not_use_up_the_script(sandbox: Sandbox, post: Post) -> None:
    sandbox.script("fetch", ["http_500"])
    assert post("v3/fetch/12202888", key="wrong").status_code == 401
    assert post("v3/fetch").status_code == 404
    assert post("v3/fetch/12202888").status_code == 500


def test_jobs_from_outside_meet_no_faults(sandbox: Sandbox) -> None:
    sandbox.set_faults({"http_500": 1})
    sandbox.script("submit", ["http_500"])
    assert sandbox.submit(SUBMISSION, PROMPT)["status"] == "processing"


def test_probabilities_and_reset(poster: Poster) -> None:
    with Sandbox(faults={"http_500": 1}) as sandbox:
        post = poster(sandbox)
        assert post("v3/fetch/12202888").status_code == post(SUBMISSION, **PROMPT).status_code == 500
        sandbox.set_faults({})
        assert post("v3/fetch/12202888").status_code == 200
        sandbox.reset()
        assert post("v3/fetch/12202888").status_code == 500


def test_chance_strikes_as_often_as_it_should_and_repeatably() -> None:
    def names(seed: int) -> list[str | None]:
        plan = FaultPlan(seed)
        plan.set_probabilities({"http_500": 0.1, "html": 0.3})
        by_fault = {id(fault): name for name, fault in FAULTS.items()}
        return [by_fault.get(id(plan.draw("fetch"))) for _ in range(4000)]

    drawn = names(seed=1)
    frequencies = {name: number / len(drawn) for name, number in Counter(drawn).items()}
    assert frequencies == pytest.approx({"http_500": 0.1, "html": 0.3, None: 0.6}, abs=0.03)
    assert drawn == names(seed=1) != names(seed=2)


def test_chance_fails_jobs_not_replies(sandbox: Sandbox, post: Post) -> None:
    sandbox.set_faults({"failed": 0.5})
    job_ids = [sandbox.submit(SUBMISSION, PROMPT)["id"] for _ in range(40)]
    assert {post(f"v6/video/fetch/{job_id}").json()["status"] for job_id in job_ids} == {"processing"}
    sandbox.finish_all()
    assert 5 < sandbox.state()["jobs"]["failed"] < 35


def test_by_chance_only_young_jobs_are_not_found() -> None:
    plan = FaultPlan(seed=0)
    plan.set_probabilities({"not_found": 1})
    assert plan.draw("fetch", age=1) is FAULTS["not_found"]
    assert plan.draw("fetch", age=60) is None
    assert plan.draw("submit") is None


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"http_418": 0.1}, "unknown fault 'http_418': known are failed, error, messege"),
        ({"http_500": 1.5}, "http_500=1.5 is not a probability"),
        ({"http_500": 0.6, "html": 0.6}, "more than 1"),
    ],
)
def test_bad_probabilities_are_refused(faults: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sandbox(faults=faults)


@pytest.mark.parametrize(
    ("kind", "script", "message"),
    [
        ("fetch", ["http_418"], "unknown fault 'http_418'"),
        ("fetch", ["drop_unaccepted"], "cannot strike"),
        ("submit", ["not_found"], "cannot strike"),
        ("webhook", [], "unknown kind of request 'webhook': known are fetch, submit"),
    ],
)
def test_bad_scripts_are_refused(sandbox: Sandbox, kind: str, script: list[str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sandbox.script(kind, script)


def test_requests_that_are_too_many_for_their_second_are_refused() -> None:
    with Sandbox(duration=float("inf"), requests_per_second=1e-6, retry_after=11) as sandbox:
        job_id = sandbox.submit(SUBMISSION, PROMPT)["id"]
        body = {"key": sandbox.key, **PROMPT}
        urls = [f"{sandbox.url}/api/v6/video/fetch/{job_id}", f"{sandbox.url}/api/{SUBMISSION}"]
        first, second, third = (requests.post(url, json=body, timeout=60) for url in (urls[0], *urls))
        assert (first.status_code, second.status_code, third.status_code) == (200, 429, 429)
        assert second.json() == {"status": "error", "message": "Too Many Attempts.", "retry_after": 11}
        assert sandbox.state()["too_many_requests"] == 2
        assert sandbox.state()["submissions"] == {"accepted": 1, "rejected": 1}


def test_a_request_limit_takes_so_many_a_second_and_a_second_s_worth_at_once() -> None:
    limit = RequestLimit(5)
    assert [limit.admits(100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert sum(limit.admits(100.0 + step / 100) for step in range(1001)) == 50
