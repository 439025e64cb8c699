from __future__ import annotations

import json

import pytest

from airflow_provider_modelslab._protocol.arguments import parse_jobs
from airflow_provider_modelslab.endpoints import FetchEndpoint, ForeignHostError
from airflow_provider_modelslab.jobs import Job

REPLY = {"status": "processing", "id": 147, "eta": 9, "fetch_result": "https://modelslab.com/api/v6/video/fetch/147"}
RECORD = Job(id="5", endpoint="v6/3d", status="success", outputs=["https://cdn/a.glb"], generation_time=2.0).to_dict()


def addresses(jobs: list[Job]) -> list[str]:
    return [str(job) for job in jobs]


@pytest.mark.parametrize(
    ("value", "endpoint", "expected"),
    [
        (12202888, "v3", ["v3:12202888"]),
        (12202888.0, "v3", ["v3:12202888"]),
        ("12202888", FetchEndpoint.V3_IMAGES, ["v3:12202888"]),
        ([1, "2", 3.0], "v3", ["v3:1", "v3:2", "v3:3"]),
        ([[1, [2]], (3,)], "v3", ["v3:1", "v3:2", "v3:3"]),
        ([1, 1], "v3", ["v3:1", "v3:1"]),
        (range(2), "v3", ["v3:0", "v3:1"]),
        (REPLY, None, ["v6/video:147"]),
        (REPLY, "v3", ["v6/video:147"]),
        ([REPLY, 8], "v3", ["v6/video:147", "v3:8"]),
        (REPLY["fetch_result"], None, ["v6/video:147"]),
        (json.dumps([REPLY, 8]), "v3", ["v6/video:147", "v3:8"]),
        (str([REPLY, 8]), "v3", ["v6/video:147", "v3:8"]),
        ('"7"', "v3", ["v3:7"]),
        (json.dumps([json.dumps(REPLY)]), None, ["v6/video:147"]),
        (RECORD, None, ["v6/3d:5"]),
        (Job(id="5", endpoint="v6/3d"), None, ["v6/3d:5"]),
        (5, "/api/v6/3d", ["v6/3d:5"]),
        ([RECORD, REPLY], None, ["v6/3d:5", "v6/video:147"]),
        ([], None, []),
        ("[]", None, []),
        ([[], []], None, []),
    ],
)
def test_what_may_stand_for_jobs(value, endpoint, expected):
    assert addresses(parse_jobs(value, endpoint)) == expected


def test_a_finished_record_stays_as_it_is():
    assert parse_jobs([RECORD])[0].to_dict() == RECORD


def test_a_failed_record_keeps_its_reason():
    failed = Job(id="5", endpoint="v6/3d", status="failed", message="No GPU")
    assert parse_jobs([failed.to_dict()]) == [failed]


def test_a_finished_reply_needs_no_id():
    (job,) = parse_jobs({"status": "success", "output": ["https://cdn/a.png"]})
    assert (job.status, job.outputs) == ("success", ["https://cdn/a.png"])


@pytest.mark.parametrize(
    ("value", "endpoint", "complaint"),
    [
        (None, "v3", r"jobs\[0\]: a job id must be a number or a string, not NoneType"),
        ([1, None], "v3", r"jobs\[1\]"),
        (True, "v3", r"jobs\[0\]: .*bool"),
        (1.5, "v3", r"jobs\[0\]"),
        ("../wallet_balance", "v3", r"jobs\[0\]"),
        ("1,2", "v3", r"jobs\[0\]"),
        ("", "v3", r"jobs\[0\]"),
        (b"12", "v3", r"jobs\[0\]"),
        ("[1, 2", "v3", "jobs is a text of 5 characters that is neither JSON"),
        ("None", "v3", r"jobs\[0\]"),
        ("true", "v3", r"jobs\[0\]"),
        ("nan", "v3", r"jobs\[0\]"),
        ("-5", "v3", r"jobs\[0\]"),
        ("12.5", "v3", r"jobs\[0\]"),
        (5, "None", "endpoint"),
        (map(int, ["1"]), "v3", "iterator"),
        ("{{ x }}", "v3", "jobs"),
        (5, None, "endpoint is missing"),
        (5, 7, "endpoint must be a string"),
        (5, "a b", "endpoint"),
        ({"id": 5}, None, "endpoint"),
        ({"id": 5, "endpoint": None}, None, "endpoint"),
        ({"status": "processing"}, "v3", "neither an 'id' nor a 'fetch_result'"),
        ({**RECORD, "endpoint": "../x"}, None, r"jobs\[0\]: endpoint"),
        ({**RECORD, "status": "exploded"}, None, r"jobs\[0\]: status"),
        (object(), "v3", r"jobs\[0\]"),
    ],
)
def test_what_is_refused_by_name(value, endpoint, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_jobs(value, endpoint)


def test_a_foreign_host_is_refused_unless_the_connection_names_it():
    reply = {"id": 1, "fetch_result": "http://127.0.0.1:8787/api/v6/video/fetch/1"}
    with pytest.raises(ForeignHostError, match=r"jobs\[0\]: fetch_result"):
        parse_jobs(reply)
    assert addresses(parse_jobs(reply, base_url="http://127.0.0.1:8787")) == ["v6/video:1"]


def test_a_broken_text_is_not_repeated_in_the_error():
    with pytest.raises(ValueError, match="neither JSON") as caught:
        parse_jobs('{"id": 5, "key": "the-api-key"', "v3")
    assert "the-api-key" not in str(caught.value)


def test_endless_nesting_is_refused():
    nested: list[object] = []
    nested.append(nested)
    with pytest.raises(ValueError, match="nested"):
        parse_jobs(nested, "v3")


def test_the_key_is_taken_out_of_replies():
    (job,) = parse_jobs({"id": 1, "status": "error", "message": "bad key secret-key"}, "v3", key="secret-key")
    assert job.message == "bad key ***"


@pytest.mark.parametrize(
    ("submitted", "kept"),
    [(1_790_000_000.5, 1_790_000_000.5), (0, None), (-5, None), (True, None), ("now", None), (10**400, None)],
)
def test_the_time_of_submission_is_kept_where_it_is_one(submitted, kept):
    record = Job("1", "v6/video").to_dict() | {"submitted": submitted}
    assert parse_jobs([record])[0].submitted == kept
