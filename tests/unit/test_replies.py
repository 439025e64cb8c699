from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply, retry_after_seconds
from airflow_provider_modelslab._protocol.replies import (
    MAX_OUTPUTS,
    Verdict,
    job_of_reply,
    read_balance_reply,
    read_fetch_reply,
    read_submission_reply,
)
from airflow_provider_modelslab.jobs import Job
from tests.support.reply_table import QUEUED, QUOTED, REPLIES, URL

JOB = Job(id="147", endpoint="v6/video")


def http(status: int, body: object, retry_after: float | None = None) -> HttpReply:
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


@pytest.mark.parametrize(
    "job",
    [
        Job(id="147", endpoint="v6/video"),
        read_submission_reply(http(200, {**QUEUED, "id": 147}), "v6/video/text2video").job,
        read_submission_reply(http(200, {**QUEUED, "id": 8}), "v6/video/text2video").job,
        job_of_reply({**QUEUED, "id": 8}, None),
    ],
)
def test_a_job_with_two_ids_is_believed_under_both(job):
    own_id = int(job.reply_id or job.id)
    for ids in ({"id": own_id}, {"id": "147"}, {"id": 9, "fetch_result": QUEUED["fetch_result"]}, {"id": None}, {}):
        assert (
            read_fetch_reply(http(200, {"status": "success", "output": [URL], **ids}), job).verdict is Verdict.SUCCESS
        )
    assert (
        read_fetch_reply(http(200, {"status": "success", "output": [URL], "id": 9}), job).verdict is Verdict.TRANSIENT
    )


@pytest.mark.parametrize(
    ("job_id", "named"), [("147", 0), ("147", "0"), ("147", 147.0), ("9b2f-6c1e", "9B2F-6C1E"), ("147", "null")]
)
def test_an_id_that_names_no_other_job_costs_no_output(job_id, named):
    received = http(200, {"status": "success", "output": [URL], "id": named})
    assert read_fetch_reply(received, Job(id=job_id, endpoint="v6/video")).verdict is Verdict.SUCCESS


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "Invalid data.", "errors": {"seed": ["Not a number."]}}, "Invalid data. seed: Not a number."),
        ({"message": "No seed.", "errors": {"seed": ["No seed."]}}, "No seed."),
        ({"message": "", "errors": {"seed": ["No seed."]}}, "seed: No seed."),
    ],
)
@pytest.mark.parametrize(("status", "word"), [(200, {"status": "error"}), (422, {})])
def test_a_refusal_says_which_parameters_are_wrong(body, words, status, word):
    reply = read_submission_reply(http(status, {**word, **body}), "v6/video/text2video")
    assert (reply.verdict, reply.job.message) == (Verdict.REFUSED, words)


def test_an_id_of_0_gives_way_to_another():
    received = http(200, {"status": "processing", "id": 0, "request_id": 147})
    assert read_submission_reply(received, "v6/video/text2video").job.id == "147"


@pytest.mark.parametrize(
    ("named", "ids"),
    [
        ({"ID": 5}, {"ID": "5"}),
        ({"Request_ID": 5}, {"Request_ID": "5"}),
        ({"jobID": "x-5"}, {"jobID": "x-5"}),
        ({"task_id": 12345.0}, {"task_id": "12345"}),
        ({"id": 1e20}, {"id": "1e+20"}),
        ({"id": [5]}, {"id.0": "5"}),
        ({"data": [{"id": 5}, {"id": 6}]}, {"data.0.id": "5", "data.1.id": "6"}),
        ({"paid": 5, "Valid": "yes"}, {}),
    ],
)
def test_an_unusable_reply_to_a_submission_names_each_of_its_ids(named, ids):
    reply = read_submission_reply(http(200, {"status": "processing", **named}), "v6/video/text2video")
    assert (reply.verdict, reply.job.ids) == (Verdict.AMBIGUOUS, ids)


def test_no_reply_is_transient():
    reply = read_fetch_reply(NoReply("no connection", sent=False), JOB)
    assert (reply.verdict, reply.job.message, reply.http_status) == (Verdict.TRANSIENT, "no connection", None)


@pytest.mark.parametrize(
    ("status", "body", "header", "seconds"),
    [
        (429, {"retry_after": 12}, None, 12),
        (429, {"retry_after": "12.5"}, None, 12.5),
        (429, {"retry_after": "90s"}, None, 90),
        (429, {"retry_after": " 2 minutes"}, 5.0, 120),
        (429, {"retry_after": 12}, 99.0, 12),
        (429, {}, 99.0, 99),
        (429, {"retry_after": 10**9}, None, 3600),
        (429, {}, None, 30),
        (429, {"retry_after": -1}, None, 30),
        (429, {"retry_after": True}, None, 30),
        (429, {"retry_after": 1e999}, None, 30),
        (429, b"<html>", None, 30),
        (200, {"status": "error", "message": "Rate limit exceeded"}, None, 30),
        (200, {"status": "error", "message": "Rate limit exceeded", "tips": "wait for 45 seconds"}, None, 45),
        (200, {"status": "error", "message": "Rate limit exceeded, wait for 99999 seconds"}, None, 3600),
        (200, {"status": "error", "message": "please try again later"}, None, 30),
        (200, {"status": "processing", "message": "try again later."}, None, None),
        (200, {"status": "error", "message": "Try again in 30 minutes."}, None, 1800),
        (200, {"status": "error", "message": "Try again in 1 minute and 30 seconds."}, None, 90),
        (200, {"status": "error", "message": "Please try again in 1m30s"}, None, 90),
        (200, {"status": "error", "message": "Try again in 1.5 minutes."}, None, 90),
        (200, {"status": "error", "message": "Rate limit exceeded. Retry in 2 min, 10 sec."}, None, 130),
        (200, {"status": "error", "message": "You can try again in a few minutes"}, None, 60),
        (200, {"status": "error", "message": "Try again in one minute"}, None, 60),
        (200, {"status": "error", "message": "Try again in 2 hours."}, None, 3600),
        (200, {"status": "error", "message": "Try again in an hour and a minute"}, None, 3600),
        (200, {"status": "error", "message": "Please try again shortly."}, None, 30),
        (200, {"status": "error", "message": {"code": 429, "message": "Rate limit exceeded"}}, None, 30),
        (200, {"status": "error", "error": {"message": "Try again in 2 minutes"}}, None, 120),
        (429, {"status": "error", "message": "Rate limit exceeded. Try again in 1 hour."}, None, 3600),
        (200, {"status": "error", "message": "try again in 45 seconds"}, None, 45),
        (200, {"status": "error", "message": "Please wait 5 minutes before the next request."}, None, 300),
        (200, {"status": "error", "message": "Please try again after 90 seconds"}, None, 90),
        (429, {"status": "error", "message": "Too many requests, retry in an hour"}, None, 3600),
        (429, {"status": "error", "message": "Rate limit exceeded, wait 5 ms"}, None, 30),
        (429, b"Too Many Attempts. Please try again in 2 minutes.", None, 120),
        (503, {}, 7.0, 7),
        (503, {}, None, None),
    ],
)
def test_pauses(status, body, header, seconds):
    assert read_fetch_reply(http(status, body, header), JOB).retry_after == seconds


NOW = datetime(2026, 11, 28, 12, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("1.5", 1.5),
        ("Sat, 28 Nov 2026 12:01:40 GMT", 100),
        ("Sat, 28 Nov 2026 13:01:40 +0100", 100),
        ("Sat, 28 Nov 2026 12:01:40 -0000", 100),
        ("Sat, 28 Nov 2026 11:00:00 GMT", 0),
        *(
            (header, None)
            for header in (None, "", "soon", "-1", "nan", "inf", "1e999", "Sat, 99 Nov 2026", "0" * 5000 + "x")
        ),
    ],
)
def test_a_retry_after_header_is_a_number_or_a_date(header, seconds):
    assert retry_after_seconds(header, NOW) == seconds


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
    ("eta", "seconds"),
    [(1.7e308, None), (960, 960.0), ("12.5", 12.5), (None, None), ("soon", None), (-1, None), (True, None)],
)
def test_etas(eta, seconds):
    assert read_fetch_reply(http(200, {"status": "processing", "eta": eta}), JOB).job.eta == seconds


def test_a_sparse_reply_does_not_forget():
    known = Job(id="147", endpoint="v6/video", eta=9.0, meta={"seed": 1}, proxy_links=["https://cdn/a.gif"])
    job = read_fetch_reply(http(200, {"status": "processing", "message": "try again later."}), known).job
    assert (job.eta, job.meta, job.proxy_links) == (9.0, {"seed": 1}, ["https://cdn/a.gif"])


@pytest.mark.parametrize("key", ["8charkey", "k" * 60, "quo\"te's", "ключ&<ключ>/ +"])
def test_the_key_is_removed_from_everything(key):
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


def test_what_databases_cannot_hold_is_removed():
    body = b'{"status":"failed","message":"a\\u0000b\\ud800c","meta":{"n":NaN,"i":1e999}}'
    job = read_fetch_reply(http(200, body), JOB).job
    assert (job.message, job.meta) == ("ab?c", {"n": None, "i": None})


def test_numbers_and_nesting_that_xcoms_cannot_hold_are_tamed():
    deep: dict[str, Any] = {"a": 1}
    for _ in range(400):
        deep = {"a": deep}
    body = {"status": "success", "output": [URL], "meta": {"seed": 2**70, "deep": deep}, "message": deep}
    job = read_fetch_reply(http(200, body), JOB).job
    assert job.meta["seed"] == str(2**70)
    assert json.dumps(job.to_dict()).count('"a"') < 50


EVIL = "bad\n::endgroup::\n[2026-11-28] INFO - Task exited with return code 0\r\x1b[32mSUCCESS\x1b[0m \u202egnp.exe"
HARMLESS = "bad (endgroup) [2026-11-28] INFO - Task exited with return code 0 [32mSUCCESS [0m gnp.exe"


@pytest.mark.parametrize("message", [EVIL, {"prompt": [EVIL]}, [EVIL]], ids=["text", "dict", "list"])
@pytest.mark.parametrize("field", ["message", "messege", "error", "tips"])
def test_what_people_see_of_a_reply_is_one_harmless_line(message, field):
    body = {"status": "failed", field: message, "output": ""}
    words = {
        read_fetch_reply(http(200, body), JOB).job.message,
        read_submission_reply(http(200, body), "v6/video/text2video").job.message,
        read_balance_reply(http(200, body)).message,
        job_of_reply({**body, "id": 5}, "v6/video").message,
    }
    assert words == {f"prompt: {HARMLESS}" if isinstance(message, dict) else HARMLESS}


def test_what_the_network_says_is_one_harmless_line():
    assert read_fetch_reply(NoReply(EVIL, sent=False), JOB).job.message == HARMLESS
    address = {"status": "success", "data": {"balance": 1, "currency": "\x1b[31m"}}
    assert read_balance_reply(http(200, address)).message == "1 [31m"


def test_long_messages_are_cut():
    assert len(read_fetch_reply(http(200, {"status": "failed", "message": "x" * 10**6}), JOB).job.message) == 2000


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
        (http(503, {"status": "error", "message": "Try again in 5 minutes"}), Verdict.AMBIGUOUS),
        (
            http(503, {"status": "error", "message": "Rate limit exceeded. Try again in 5 minutes"}),
            Verdict.RATE_LIMITED,
        ),
        (http(500, {"status": "error", "message": {"prompt": ["missing"]}}), Verdict.REFUSED),
        (http(500, {"status": "error", "message": "The prompt field is required."}), Verdict.REFUSED),
        (http(524, {"status": "error", "message": "A timeout occurred"}), Verdict.AMBIGUOUS),
        (http(200, {"status": "error", "message": "Model flux-9 does not exist"}), Verdict.REFUSED),
        (http(200, {"status": "error", "message": "Invalid image URL"}), Verdict.REFUSED),
        (http(200, {"status": "success", "message": "Training started", "order_id": 5}), Verdict.AMBIGUOUS),
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
        (http(200, {"status": "error", "message": "The prompt field is required."}), Verdict.REFUSED),
        (http(200, {"status": "error", "message": {"prompt": "The prompt field is required."}}), Verdict.REFUSED),
        (http(200, {"status": "error", "message": [{"prompt": ["Too long."]}]}), Verdict.REFUSED),
        (http(200, {"status": "error", "error": {"message": "Model not found: X", "code": 4}}), Verdict.REFUSED),
        (http(200, {"status": "error", "message": {"message": "Insufficient credits"}}), Verdict.NO_CREDITS),
        (http(200, {"status": "error", "message": "The wallet balance is insufficient"}), Verdict.NO_CREDITS),
        (http(200, {"status": "error", "message": "Your account is out of credits"}), Verdict.NO_CREDITS),
        (http(200, {"status": "error", "message": "The service is temporarily unavailable"}), Verdict.AMBIGUOUS),
        (http(503, {"status": "error", "message": "You can try again in 5 minutes"}), Verdict.AMBIGUOUS),
        (http(200, {"status": "error", "message": "Model not found: flux-9"}), Verdict.REFUSED),
        (http(200, {"status": "error", "message": "Rate limit exceeded", "current_queue": 16}), Verdict.RATE_LIMITED),
        (http(200, {"status": "error", "message": "Try again in 30 minutes."}), Verdict.RATE_LIMITED),
        (http(200, {"status": "error", "message": "Rate limit exceeded", "id": 5}), Verdict.AMBIGUOUS),
        (http(200, {"status": "error", "message": "Internal server error. Please try again."}), Verdict.AMBIGUOUS),
        (http(200, {"status": "error", "message": "Try to fetch request after", "id": 5}), Verdict.PROCESSING),
        *[
            (http(200, {"status": "error", "message": {"prompt": [f"The prompt {words!r} is bad"]}}), Verdict.REFUSED)
            for words in QUOTED
        ],
        *[
            (http(200, {"status": "failed", "message": f"NSFW check failed for prompt: {words}"}), Verdict.FAILED)
            for words in QUOTED
        ],
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
    odd = Job(id="processing", endpoint="v6/video", status="failed", message="processing")
    assert Job.from_dict(odd.to_compact_dict()) == odd


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


@pytest.mark.parametrize("name", ["output", "proxy_links"])
def test_a_reply_with_too_many_outputs_is_a_broken_one(name):
    def done(count: int) -> HttpReply:
        return http(200, {"status": "success", "id": 147, "output": [URL], name: [f"{URL}?{n}" for n in range(count)]})

    assert len(read_fetch_reply(done(MAX_OUTPUTS), JOB).job.outputs) == (MAX_OUTPUTS if name == "output" else 1)
    reply = read_fetch_reply(done(MAX_OUTPUTS + 1), JOB)
    assert (reply.verdict, reply.job.outputs) == (Verdict.TRANSIENT, [])
    assert reply.job.message == "the reply names more than 1000 outputs, and no job has so many"
    assert read_submission_reply(done(MAX_OUTPUTS + 1), "v6/video/text2video").verdict is Verdict.AMBIGUOUS
