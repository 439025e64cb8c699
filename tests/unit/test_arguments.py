from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_modelslab._protocol.arguments import (
    flatten_jobs,
    parse_amount,
    parse_count,
    parse_family,
    parse_generation_endpoint,
    parse_if_exists,
    parse_jobs,
    parse_output_path,
    parse_seconds,
)
from airflow_provider_modelslab._protocol.templates import delimiters_of, is_rendered
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
        (None, "v3", []),
        ([1, None, [None, 2]], "v3", ["v3:1", "v3:2"]),
    ],
)
def test_what_may_stand_for_jobs(value, endpoint, expected):
    assert addresses(parse_jobs(value, endpoint)) == expected


def test_a_finished_record_stays_as_it_is():
    assert parse_jobs([RECORD])[0].to_dict() == RECORD


@pytest.mark.parametrize("host", ["evil.example", ["modelslab.com"], {}, 5, None])
def test_a_host_that_is_not_official_counts_for_nothing(host):
    assert parse_jobs([{**RECORD, "host": host}])[0].host == ""


def test_a_failed_record_keeps_its_reason():
    failed = Job(id="5", endpoint="v6/3d", status="failed", message="No GPU")
    assert parse_jobs([failed.to_dict()]) == [failed]


def test_a_finished_reply_needs_no_id():
    (job,) = parse_jobs({"status": "success", "output": ["https://cdn/a.png"]})
    assert (job.status, job.outputs) == ("success", ["https://cdn/a.png"])


@pytest.mark.parametrize(
    ("value", "endpoint", "complaint"),
    [
        ([None, b"1"], "v3", r"jobs\[1\]: a job id must be a number or a string, not bytes"),
        ("https://cdn.example/a.png", "v3", r"jobs\[0\]: this is the URL of an output, not of a job: pass the XCom"),
        (5, "v6/images/text2img", "is a generation endpoint; its jobs are fetched under 'v6/images'"),
        (True, "v3", r"jobs\[0\]: .*bool"),
        (1.5, "v3", r"jobs\[0\]"),
        ("../wallet_balance", "v3", r"jobs\[0\]"),
        ("1,2", "v3", r"jobs\[0\]: job id '1,2' is not an id \(pass several as a list\)"),
        ("", "v3", r"jobs\[0\]"),
        (b"12", "v3", r"jobs\[0\]"),
        ("[1, 2", "v3", "jobs must be a dict or a list: it is a text of 5 characters"),
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
        ("https://modelslab.com/api/v6/video/fetch/", None, r"jobs\[0\]: its fetch_result ends without the job's id"),
        ("modelslab.com/api/v6/video/text2video", None, r"jobs\[0\]: this is the URL of an endpoint, not of a job"),
        ("v6/video/fetch/147", "v6/video", r"jobs\[0\]: .*or the URL that a reply names as fetch_result"),
        ({**RECORD, "endpoint": "../x"}, None, r"jobs\[0\]: endpoint"),
        ({**RECORD, "status": "exploded"}, None, r"jobs\[0\]: status"),
        (object(), "v3", r"jobs\[0\]"),
    ],
)
def test_what_is_refused_by_name(value, endpoint, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_jobs(value, endpoint)


@pytest.mark.parametrize("name", ["outputs", "proxy_links"])
def test_a_record_with_too_many_outputs_is_refused_by_name(name):
    record = {"id": "1", "endpoint": "v6/images", "status": "success", name: ["https://cdn/a.png"] * 1001}
    with pytest.raises(ValueError, match=r"jobs\[1\]: .*more than 1000 outputs"):
        parse_jobs([{"id": 2, "endpoint": "v6/images"}, record])


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


def test_the_key_is_removed_from_replies():
    (job,) = parse_jobs({"id": 1, "status": "error", "message": "bad key secret-key"}, "v3", key="secret-key")
    assert job.message == "bad key ***"


@pytest.mark.parametrize(
    ("submitted", "kept"),
    [(1_790_000_000.5, 1_790_000_000.5), (0, None), (-5, None), (True, None), ("now", None), (10**400, None)],
)
def test_the_time_of_submission_is_kept_where_it_is_one(submitted, kept):
    record = Job("1", "v6/video").to_dict() | {"submitted": submitted}
    assert parse_jobs([record])[0].submitted == kept


def test_skipped_upstreams_are_told_from_what_is_there():
    assert flatten_jobs([1, [None, "[2, null]"]]) == [1, None, 2, None]


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("v6/images/text2img", "v6/images"),
        ("v3/text2img", "v3"),
        ("v1/enterprise/text2img", "v1/enterprise"),
        ("v1/enterprise/flux_headshot/make_gen", "v1/enterprise/flux_headshot"),
    ],
)
def test_a_generation_endpoint_is_no_family_and_a_family_is_no_generation_endpoint(path, family):
    with pytest.raises(ValueError, match=f"{path}' is a generation endpoint; its jobs are fetched under '{family}'"):
        parse_family(path)
    assert parse_generation_endpoint(path) == path
    assert parse_family(family) == family


@pytest.mark.parametrize("path", ["v6/images", "v7/voice", "v3", "v1/enterprise"])
def test_a_family_is_no_generation_endpoint(path):
    with pytest.raises(ValueError, match=f"whose path begins with '{path}/'"):
        parse_generation_endpoint(path)


@pytest.mark.parametrize(
    "endpoint", ["v8/images", "v6/new", "v1/enterprise/new", "v3/fine_tune_status", "v4/dreambooth"]
)
def test_a_new_family_is_taken(endpoint):
    assert parse_family(endpoint) == endpoint


@pytest.mark.parametrize("seconds", [5, 5.0, timedelta(seconds=5)])
def test_a_time_is_a_number_or_a_timedelta(seconds):
    assert parse_seconds(seconds, "timeout") == 5.0


@pytest.mark.parametrize("seconds", [0, -1, "5", True, None, float("inf"), float("nan"), timedelta()])
def test_what_is_no_time_above_0_is_refused_by_name(seconds):
    with pytest.raises(ValueError, match="timeout must be a number of seconds above 0"):
        parse_seconds(seconds, "timeout")


@pytest.mark.parametrize("seconds", [0, 0.0, timedelta()])
def test_a_time_may_be_0_where_that_makes_sense(seconds):
    assert parse_seconds(seconds, "queue_timeout", or_zero=True) == 0.0


@pytest.mark.parametrize("seconds", [-1, -0.5, False, float("nan"), timedelta(seconds=-1)])
def test_what_is_below_0_is_refused_in_words_that_are_true(seconds):
    with pytest.raises(ValueError, match="queue_timeout must be a number of seconds of at least 0 and up to a century"):
        parse_seconds(seconds, "queue_timeout", or_zero=True)


@pytest.mark.parametrize(
    ("parse", "wrong"),
    [(parse_count, [0, 1.5, "1", True, None]), (parse_amount, [-1, "10", True, float("nan"), float("inf")])],
)
def test_numbers_are_refused_by_name(parse, wrong):
    for value in wrong:
        with pytest.raises(ValueError, match="limit must be a"):
            parse(value, "limit")


@pytest.mark.parametrize("path", ["/tmp/out", "s3://aws@bucket/x", "file:///tmp/out", Path("/tmp/out")])
def test_a_folder_is_a_url_or_absolute(path):
    assert parse_output_path(path) == str(path)


@pytest.mark.parametrize("path", ["out/today", "", Path("out"), 5, "file://out/today", "s3://", "://out", "/tmp/a\0"])
def test_any_other_folder_is_refused(path):
    with pytest.raises(ValueError, match="output_path"):
        parse_output_path(path)


def test_what_happens_to_files_that_are_there_is_one_of_three():
    assert parse_if_exists("skip") == "skip"
    with pytest.raises(ValueError, match="if_exists must be one of skip, overwrite, error"):
        parse_if_exists("replace")


class Later:
    """Stands where an output of a task does."""

    def resolve(self, context: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("value", ["{{ x }}", "{% if x %}1{% endif %}", Later(), [{"a": Later()}], lambda context: 1])
def test_what_is_known_only_later(value):
    assert not is_rendered(value, delimiters_of({}))
    assert not is_rendered([value], None)


def test_the_delimiters_are_those_of_the_dag():
    delimiters = delimiters_of({"variable_start_string": "[[", "line_statement_prefix": "%%"})
    assert not is_rendered("[[ x ]]", delimiters)
    assert not is_rendered("%% if x", delimiters)
    assert is_rendered("{{ x }}", delimiters)
    assert is_rendered(Path("/tmp/out"), delimiters)


def test_without_a_dag_only_plain_text_is_known():
    assert is_rendered("v6/images text, s3://aws@bucket/a-b_c.d", None)
    assert not is_rendered("[[ x ]]", None)
