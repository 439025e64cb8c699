from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_modelslab.jobs import (
    HttpReply,
    Job,
    NoReply,
    Verdict,
    job_of_reply,
    read_balance_reply,
    read_fetch_reply,
    read_submission_reply,
)

JOB = Job(id="147", endpoint="v6/video")
URL = "https://pub-3626123a.r2.dev/generations/a.gif"
QUEUED = {
    "status": "processing",
    "tip": "Your image is processing in background",
    "eta": 960,
    "message": "Try to fetch request after seconds estimated",
    "fetch_result": "https://modelslab.com/api/v6/video/fetch/147",
    "id": 147,
    "output": [],
    "meta": {"prompt": "a cat"},
    "future_links": ["https://cdn/a.gif"],
}
TIP = "Get 20x faster image generation using the enterprise plan"

# status code, body, verdict, status of the job, outputs, message
REPLIES = {
    "success": (200, {"status": "success", "id": 1, "output": [URL]}, "SUCCESS", "success", [URL], ""),
    "success in capitals": (200, {"status": "Success", "output": [URL]}, "SUCCESS", "success", [URL], ""),
    "success 201": (201, {"status": "success", "output": [URL]}, "SUCCESS", "success", [URL], ""),
    "output is a string": (200, {"status": "success", "output": URL}, "SUCCESS", "success", [URL], ""),
    "output is a dict": (200, {"status": "success", "output": {"a": URL, "b": [URL]}}, "SUCCESS", "success", [URL] * 2, ""),
    "output has gaps": (200, {"status": "success", "output": ["", None, " ", 7, URL]}, "SUCCESS", "success", [URL], ""),
    "output is base64": (200, {"status": "success", "output": ["data:image/png;base64,AAAA"]}, "SUCCESS", "success", ["data:image/png;base64,AAAA"], ""),
    "success with []": (200, {"status": "success", "output": []}, "NO_OUTPUT", "processing", [], ""),
    "success with empty text": (200, {"status": "success", "output": ""}, "NO_OUTPUT", "processing", [], ""),
    "success with null": (200, {"status": "success", "output": None}, "NO_OUTPUT", "processing", [], ""),
    "success without output": (200, {"status": "success", "proxy_links": [URL]}, "NO_OUTPUT", "processing", [], ""),
    "sparse processing": (200, {"status": "processing", "message": "try again later.", "output": ""}, "PROCESSING", "processing", [], "try again later."),
    "sparse processing of v6/images": (200, {"status": "processing", "messege": "try again later.", "output": ""}, "PROCESSING", "processing", [], "try again later."),
    "full processing": (200, QUEUED, "PROCESSING", "processing", [], QUEUED["message"]),
    "processing with links": (200, {"status": "processing", "output": [URL], "proxy_links": [URL]}, "PROCESSING", "processing", [], ""),
    "queued": (200, {"status": "Queued"}, "PROCESSING", "processing", [], ""),
    "pending": (200, {"status": "pending"}, "PROCESSING", "processing", [], ""),
    "unknown status": (200, {"status": "warming up"}, "PROCESSING", "processing", [], ""),
    "no status": (200, {}, "PROCESSING", "processing", [], ""),
    "failed": (200, {"status": "failed", "id": "", "message": "Failed, Try Again", "output": ""}, "FAILED", "failed", [], "Failed, Try Again"),
    "failed without a word": (200, {"status": "failed", "message": ""}, "FAILED", "failed", [], "HTTP 200 without a reason"),
    "error": (200, {"status": "error", "message": "Model not found"}, "FAILED", "failed", [], "Model not found"),
    "error, 404": (404, {"status": "error", "message": "Model not found"}, "FAILED", "failed", [], "Model not found"),
    "error in messege": (200, {"status": "error", "messege": "No GPU"}, "FAILED", "failed", [], "No GPU"),
    "error in error": (200, {"status": "error", "error": {"reason": "No GPU"}}, "FAILED", "failed", [], "reason: No GPU"),
    "error in error_code": (200, {"status": "error", "error_code": 1015}, "FAILED", "failed", [], "1015"),
    "error in tip": (200, {"status": "error", "tip": "No GPU"}, "FAILED", "failed", [], "No GPU"),
    "error in tips": (200, {"status": "error", "tips": ["No", "GPU"]}, "FAILED", "failed", [], "No GPU"),
    "error in warning": (200, {"status": "error", "warning": "No GPU"}, "FAILED", "failed", [], "No GPU"),
    "error as a dict of lists": (200, {"status": "error", "message": {"prompt": ["The prompt field is required."]}}, "FAILED", "failed", [], "prompt: The prompt field is required."),
    "request not found": (200, {"status": "failed", "id": "", "message": "Request not found", "output": "", "tip": TIP}, "NOT_FOUND", "processing", [], "Request not found"),
    "request not found, 404": (404, {"status": "error", "message": "Request not found"}, "NOT_FOUND", "processing", [], "Request not found"),
    "some other 404": (404, {"message": "The route could not be found."}, "NOT_FOUND", "processing", [], "The route could not be found."),
    "empty error": (200, {"status": "error", "message": ""}, "EMPTY_ERROR", "processing", [], ""),
    "empty error with a tip": (200, {"status": "error", "message": "", "tip": TIP}, "EMPTY_ERROR", "processing", [], TIP),
    "bare error": (200, {"status": "error"}, "EMPTY_ERROR", "processing", [], ""),
    "rate limit, older": (200, {"status": "error", "message": "Rate limit exceeded", "tips": "Please wait for 45 seconds"}, "RATE_LIMITED", "processing", [], "Rate limit exceeded"),
    "queue limit": (429, {"status": "error", "message": "Rate limit exceeded. Maximum 5 queued requests allowed.", "retry_after": 20}, "RATE_LIMITED", "processing", [], "Rate limit exceeded. Maximum 5 queued requests allowed."),
    "error: try again later": (200, {"status": "error", "message": "Busy. Try again later"}, "RATE_LIMITED", "processing", [], "Busy. Try again later"),
    "invalid key": (401, {"status": "error", "message": "Invalid API key"}, "INVALID_KEY", "processing", [], "Invalid API key"),
    "invalid key, older": (200, {"status": "error", "message": "Invalid Api Key"}, "INVALID_KEY", "processing", [], "Invalid Api Key"),
    "no key": (200, {"status": "error", "message": "API key required"}, "INVALID_KEY", "processing", [], "API key required"),
    "credits": (402, {"status": "error", "message": "Insufficient credits. Buy some"}, "NO_CREDITS", "processing", [], "Insufficient credits. Buy some"),
    "monthly quota": (200, {"status": "error", "message": "Your monthly limit exceeded, upgrade"}, "NO_CREDITS", "processing", [], "Your monthly limit exceeded, upgrade"),
    "plan": (403, {"status": "error", "message": "This feature requires a premium subscription"}, "NOT_IN_PLAN", "processing", [], "This feature requires a premium subscription"),
    "plan inside 200": (200, {"status": "error", "message": "This feature requires a premium subscription"}, "NOT_IN_PLAN", "processing", [], "This feature requires a premium subscription"),
    "malformed": (400, {"status": "error", "message": "Invalid API Request"}, "REFUSED", "failed", [], "Invalid API Request"),
    "malformed inside 200": (200, {"status": "error", "message": "Invalid API Request"}, "REFUSED", "failed", [], "Invalid API Request"),
    "validation, 422": (422, {"message": {"prompt": ["missing"]}}, "REFUSED", "failed", [], "prompt: missing"),
    "method not allowed": (405, {"message": "Not allowed"}, "REFUSED", "failed", [], "Not allowed"),
    "server error": (500, {"status": "error", "message": "Internal server error. Sorry"}, "TRANSIENT", "processing", [], "Internal server error. Sorry"),
    "unavailable": (503, {"status": "error", "message": "Service temporarily unavailable."}, "TRANSIENT", "processing", [], "Service temporarily unavailable."),
    "request timeout": (408, {}, "TRANSIENT", "processing", [], ""),
    "too early": (425, {}, "TRANSIENT", "processing", [], ""),
    "a redirect": (307, {"status": "success", "output": [URL]}, "TRANSIENT", "processing", [], ""),
    "html, 200": (200, b"<html>hi</html>", "TRANSIENT", "processing", [], "HTTP 200 with an HTML page"),
    "html, 404": (404, b"<html>hi</html>", "TRANSIENT", "processing", [], "HTTP 404 with an HTML page"),
    "html, 502": (502, b"<html>hi</html>", "TRANSIENT", "processing", [], "HTTP 502 with an HTML page"),
    "html, 429": (429, b"<html>hi</html>", "TRANSIENT", "processing", [], "HTTP 429 with an HTML page"),
    "html, 401": (401, b"<html>hi</html>", "TRANSIENT", "processing", [], "HTTP 401 with an HTML page"),
    "html, 403": (403, b"<html>hi</html>", "TRANSIENT", "processing", [], "HTTP 403 with an HTML page"),
    "text, 401": (401, b"Unauthorized", "INVALID_KEY", "processing", [], "HTTP 401 with something that is not JSON"),
    "nothing, 400": (400, b"", "REFUSED", "failed", [], "HTTP 400 with nothing"),
    "rate limit in tips": (200, {"status": "error", "tips": "Rate limit exceeded, wait for 30 seconds"}, "RATE_LIMITED", "processing", [], "Rate limit exceeded, wait for 30 seconds"),
    "not found in warning": (200, {"status": "error", "warning": "Request not found"}, "NOT_FOUND", "processing", [], "Request not found"),
    "not found in tip": (200, {"status": "failed", "message": "", "tip": "Request not found"}, "NOT_FOUND", "processing", [], "Request not found"),
    "rate limit in the second field": (200, {"status": "error", "message": "Error", "error": "Rate limit exceeded"}, "RATE_LIMITED", "processing", [], "Error"),
    "queue limit in words": (200, {"status": "error", "message": "Queue limit reached"}, "RATE_LIMITED", "processing", [], "Queue limit reached"),
    "key in tip": (200, {"status": "error", "tip": "Invalid API key"}, "INVALID_KEY", "processing", [], "Invalid API key"),
    "nothing": (200, b"", "TRANSIENT", "processing", [], "HTTP 200 with nothing"),
    "cut": (200, b'{"status": "succ', "TRANSIENT", "processing", [], "HTTP 200 with something that is not JSON"),
    "a list": (200, b"[]", "TRANSIENT", "processing", [], "HTTP 200 with something that is not JSON"),
    "not utf-8": (200, b'{"status": "\xff"}', "TRANSIENT", "processing", [], "HTTP 200 with something that is not JSON"),
}  # fmt: skip


def http(status: int, body: object, retry_after: str | None = None) -> HttpReply:
    return HttpReply(status, body if isinstance(body, bytes) else json.dumps(body).encode(), retry_after)


@pytest.mark.parametrize(
    ("status", "body", "verdict", "job_status", "outputs", "message"), REPLIES.values(), ids=REPLIES
)
def test_fetch_replies(status, body, verdict, job_status, outputs, message):
    reply = read_fetch_reply(http(status, body), JOB)
    assert (reply.verdict.name, reply.job.status, reply.job.outputs, reply.job.message) == (
        verdict,
        job_status,
        outputs,
        message,
    )
    assert (reply.job.id, reply.job.endpoint, reply.http_status) == ("147", "v6/video", status)


def test_no_reply_is_transient():
    reply = read_fetch_reply(NoReply("no connection", sent=False), JOB)
    assert (reply.verdict, reply.job.message, reply.http_status) == (Verdict.TRANSIENT, "no connection", None)


@pytest.mark.parametrize(
    ("status", "body", "header", "seconds"),
    [
        (429, {"retry_after": 12}, None, 12),
        (429, {"retry_after": "12.5"}, None, 12.5),
        (429, {"retry_after": 12}, "99", 12),
        (429, {}, "99", 99),
        (429, {"retry_after": 10**9}, None, 3600),
        (429, {}, "garbage", 30),
        (429, {"retry_after": -1}, None, 30),
        (429, {"retry_after": True}, None, 30),
        (429, {"retry_after": 1e999}, None, 30),
        (429, b"<html>", None, 30),
        (200, {"status": "error", "message": "Rate limit exceeded"}, None, 30),
        (200, {"status": "error", "message": "Rate limit exceeded", "tips": "wait for 45 seconds"}, None, 45),
        (200, {"status": "error", "message": "please try again later"}, None, 30),
        (200, {"status": "processing", "message": "try again later."}, None, None),
        (503, {}, "7", 7),
        (503, {}, None, None),
    ],
)
def test_pauses(status, body, header, seconds):
    assert read_fetch_reply(http(status, body, header), JOB).retry_after == seconds


@pytest.mark.parametrize(("ahead", "low", "high"), [(100, 90, 100), (-100, 0, 0)])
def test_a_pause_may_be_a_date(ahead, low, high):
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=ahead), usegmt=True)
    pause = read_fetch_reply(http(503, {}, date), JOB).retry_after
    assert pause is not None
    assert low <= pause <= high


def test_optional_fields():
    body = {
        "status": "success",
        "output": [URL],
        "generationTime": 2.5,
        "proxy_links": "https://cdn/a.gif",
        "nsfw_content_detected": [False, True],
        "meta": {"seed": 1},
        "eta": 3,
    }
    assert read_fetch_reply(http(200, body), JOB).job == Job(
        id="147",
        endpoint="v6/video",
        status="success",
        outputs=[URL],
        generation_time=2.5,
        proxy_links=["https://cdn/a.gif"],
        nsfw_content_detected=[False, True],
        meta={"seed": 1},
    )


@pytest.mark.parametrize(
    ("eta", "seconds"), [(960, 960.0), ("12.5", 12.5), (None, None), ("soon", None), (-1, None), (True, None)]
)
def test_etas(eta, seconds):
    assert read_fetch_reply(http(200, {"status": "processing", "eta": eta}), JOB).job.eta == seconds


def test_a_sparse_reply_does_not_forget():
    known = Job(id="147", endpoint="v6/video", eta=9.0, meta={"seed": 1}, proxy_links=["https://cdn/a.gif"])
    job = read_fetch_reply(http(200, {"status": "processing", "message": "try again later."}), known).job
    assert (job.eta, job.meta, job.proxy_links) == (9.0, {"seed": 1}, ["https://cdn/a.gif"])


@pytest.mark.parametrize("key", ["8charkey", "k" * 60, "quo\"te's", "ключ&<ключ>/ +"])
def test_the_key_is_taken_out_of_everything(key):
    body = {"status": "success", "output": [f"https://cdn/a?key={key}"], "message": f"key {key}", "meta": {key: [key]}}
    for reply in (
        read_fetch_reply(http(200, body), JOB, key),
        read_fetch_reply(http(401, {**body, "status": "error"}), JOB, key),
        read_fetch_reply(NoReply(f"no way to {key}", sent=True), JOB, key),
        read_submission_reply(http(200, body), "v6/video/text2video", key=key),
    ):
        shown = repr(reply) + json.dumps(reply.job.to_dict()) + json.dumps(reply.job.to_dict(), ensure_ascii=False)
        assert key not in shown
        assert json.dumps(key)[1:-1] not in shown


def test_what_databases_cannot_hold_is_taken_out():
    body = b'{"status":"failed","message":"a\\u0000b\\ud800c","meta":{"n":NaN,"i":1e999}}'
    job = read_fetch_reply(http(200, body), JOB).job
    assert (job.message, job.meta) == ("ab?c", {"n": None, "i": None})


def test_numbers_and_nesting_that_xcoms_cannot_hold_are_tamed():
    deep = {"a": 1}
    for _ in range(400):
        deep = {"a": deep}
    body = {"status": "success", "output": [URL], "meta": {"seed": 2**70, "deep": deep}, "message": deep}
    job = read_fetch_reply(http(200, body), JOB).job
    assert job.meta["seed"] == str(2**70)
    assert json.dumps(job.to_dict()).count('"a"') < 50


def test_long_messages_are_cut():
    assert len(read_fetch_reply(http(200, {"status": "failed", "message": "x" * 10**6}), JOB).job.message) == 2000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
documents = st.dictionaries(
    st.sampled_from(
        "status id output message messege error eta meta fetch_result retry_after tip tips proxy_links "
        "nsfw_content_detected generationTime".split()
    ),
    json_values | st.sampled_from(["success", "error", "failed", "processing", ""]),
)


@given(st.integers(-1, 1000), documents.map(lambda value: json.dumps(value).encode()) | st.binary(), st.text())
def test_reading_is_total_and_success_has_an_output(status, body, header):
    for reply in (
        read_fetch_reply(HttpReply(status, body, header), JOB, "secret-key"),
        read_submission_reply(HttpReply(status, body, header), "v6/video/text2video", None, "secret-key"),
    ):
        json.dumps(reply.job.to_dict(), allow_nan=False).encode()
        assert (reply.job.status == "success") == (reply.verdict is Verdict.SUCCESS)
        assert bool(reply.job.outputs) == (reply.verdict is Verdict.SUCCESS)
        assert all(output.strip() for output in reply.job.outputs)
        assert reply.retry_after is None or 0 <= reply.retry_after < float("inf")
    read_balance_reply(HttpReply(status, body, header), "secret-key")


@pytest.mark.parametrize(
    "body",
    [b"[" * 10**6, b'{"a":' * 10**5, b'{"id":' + b"9" * 10**5 + b"}", b'{"meta":' + b'{"a":' * 800 + b"1" + b"}" * 801],
)
def test_monstrous_json_is_read(body):
    assert read_fetch_reply(HttpReply(200, body), JOB).job.status == "processing"


# --- submissions ---


def test_a_queued_submission():
    reply = read_submission_reply(http(200, QUEUED), "v6/video/text2video")
    assert reply.verdict is Verdict.PROCESSING
    assert (reply.job.id, reply.job.endpoint, reply.job.eta) == ("147", "v6/video", 960.0)


@pytest.mark.parametrize(
    ("change", "path", "address"),
    [
        ({"fetch_result": "https://modelslab.com/api/v6/whisper/fetch/8"}, "v6/voice/speech_to_text", ("v6/whisper", "8")),
        ({"fetch_result": "https://modelslab.com/api/v1/enterprise/fetch"}, "v1/enterprise/text2img", ("v1/enterprise", "147")),
        ({"fetch_result": None}, "v1/enterprise/flux_headshot/make_gen", ("v1/enterprise/flux_headshot", "147")),
        ({"fetch_result": "https://evil.example/api/v6/video/fetch/8"}, "v6/video/text2video", ("v6/video", "147")),
        ({"id": None, "fetch_result": "https://modelslab.com/api/v7/images/fetch/8"}, "v7/images/text-to-image", ("v7/images", "8")),
    ],
)  # fmt: skip
def test_where_a_submission_says_it_is_fetched(change, path, address):
    job = read_submission_reply(http(200, {**QUEUED, **change}), path).job
    assert (job.endpoint, job.id) == address


def test_a_submission_that_is_done_at_once():
    job = read_submission_reply(http(200, {"status": "success", "output": [URL]}), "v6/realtime/text2img").job
    assert (job.status, job.outputs, job.id) == ("success", [URL], "")


@pytest.mark.parametrize(
    ("received", "verdict"),
    [
        (http(200, {"status": "processing"}), Verdict.AMBIGUOUS),
        (http(200, {"status": "error", "message": ""}), Verdict.AMBIGUOUS),
        (http(200, b"<html>"), Verdict.AMBIGUOUS),
        (http(500, {"status": "error", "message": "Internal server error."}), Verdict.AMBIGUOUS),
        (http(502, b"<html>"), Verdict.AMBIGUOUS),
        (http(302, b""), Verdict.AMBIGUOUS),
        (NoReply("lost", sent=True), Verdict.AMBIGUOUS),
        (NoReply("refused", sent=False), Verdict.TRANSIENT),
        (http(429, {"retry_after": 5}), Verdict.RATE_LIMITED),
        (http(429, b"<html>"), Verdict.RATE_LIMITED),
        (http(401, {}), Verdict.INVALID_KEY),
        (http(402, b""), Verdict.NO_CREDITS),
        (http(403, {}), Verdict.NOT_IN_PLAN),
        (http(400, {}), Verdict.REFUSED),
        (http(404, {"message": "no such route"}), Verdict.REFUSED),
        (http(404, {"status": "error", "message": "no such model"}), Verdict.REFUSED),
        (http(200, {"status": "error", "message": {"prompt": ["missing"]}}), Verdict.REFUSED),
        (http(200, {"status": "failed", "message": "Failed, Try Again"}), Verdict.FAILED),
        (http(200, {"status": "success", "output": [], "id": 5}), Verdict.PROCESSING),
    ],
)
def test_submission_replies(received, verdict):
    assert read_submission_reply(received, "v6/video/text2video").verdict is verdict


# --- replies that others received ---


def test_a_reply_of_any_http_task():
    job = job_of_reply(QUEUED, None)
    assert (job.endpoint, job.id, job.status, job.eta) == ("v6/video", "147", "processing", 960.0)
    assert job_of_reply({"id": 5, "status": "processing"}, "v6/3d").id == "5"
    assert job_of_reply({"status": "success", "output": [URL]}, None).outputs == [URL]
    assert job_of_reply({"status": "error", "message": "Invalid API key"}, None).status == "failed"


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [({"status": "processing"}, "'id'"), ({"id": 5}, "endpoint"), ({"id": True}, "job id"), ({"fetch_result": "https://evil.example/api/v3/fetch/1"}, "fetch_result")],
)  # fmt: skip
def test_replies_that_name_no_job(reply, complaint):
    with pytest.raises(ValueError, match=complaint):
        job_of_reply(reply, None)


# --- jobs and balances ---


def test_a_job_survives_both_kinds_of_record():
    job = read_fetch_reply(http(200, {**QUEUED, "status": "success", "output": [URL], "generationTime": 1.5}), JOB).job
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    assert Job.from_dict(json.loads(json.dumps(job.to_compact_dict()))) == job
    assert Job.from_dict({**job.to_dict(), "from_tomorrow": 1}) == job
    assert JOB.to_compact_dict() == {"id": "147", "endpoint": "v6/video"}


@pytest.mark.parametrize(
    ("received", "verdict", "message", "amount"),
    [
        (
            http(200, {"status": "success", "data": {"balance": 43.6, "currency": "USD"}}),
            Verdict.SUCCESS,
            "43.6 USD",
            43.6,
        ),
        (http(200, {"status": "success"}), Verdict.SUCCESS, "unknown", None),
        (http(401, {"message": "Invalid API key"}), Verdict.INVALID_KEY, "Invalid API key", None),
        (http(500, {}), Verdict.TRANSIENT, "HTTP 500 without a reason", None),
        (NoReply("no connection", sent=False), Verdict.TRANSIENT, "no connection", None),
    ],
)
def test_balances(received, verdict, message, amount):
    balance = read_balance_reply(received)
    assert (balance.verdict, balance.message, balance.amount) == (verdict, message, amount)
