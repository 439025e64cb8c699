"""Receipts of paid jobs, what a job is known by, and how receipts are called."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_modelslab._ledger.identity import ReceiptName, TaskTry, has_seed, job_digest, payload_digest
from airflow_provider_modelslab._ledger.receipts import SCHEMA_VERSION, Receipt, StoredFile
from airflow_provider_modelslab.jobs import Job

TRY = TaskTry("my_dag", "manual__2026-11-28T12:00:00+00:00", "draw", 3, try_number=2, max_tries=4)
INTENT = Receipt(
    endpoint="v6/images/text2img",
    account="#a1b2c3",
    payload_digest=payload_digest({"prompt": "owl"}),
    item="owl",
    task=TRY,
    nonce="n",
    submitted_at=1_795_000_000.5,
)
QUEUED = Job("7", "v6/images", eta=5.0, submitted=1_795_000_001.0, meta={"prompt": "owl"})
DONE = replace(QUEUED, status="success", eta=None, outputs=["https://cdn/a.png"], generation_time=2.5)
FILES = [StoredFile("s3://bucket/a.png", 10)]


def stored(receipt: Receipt) -> Receipt:
    """Return a receipt after its way through a file."""
    return Receipt.from_dict(json.loads(json.dumps(receipt.to_dict(), allow_nan=False)))


@pytest.mark.parametrize(
    "receipt",
    [
        INTENT,
        INTENT.accepted(QUEUED),
        INTENT.accepted(QUEUED).ended(DONE, TRY, 1_795_000_009.0, FILES),
        INTENT.accepted(QUEUED).ended(QUEUED.failed("no GPU"), TRY, 1_795_000_009.0),
        INTENT.doubted("a timeout", TRY, 1_795_000_009.0),
        INTENT.accepted(QUEUED).handed_over(TRY, 1_795_000_009.0),
    ],
    ids=["intended", "submitted", "succeeded", "failed", "in doubt", "handed over"],
)
def test_a_receipt_is_read_as_it_was_written(receipt):
    assert stored(receipt) == receipt
    assert receipt.to_dict()["version"] == SCHEMA_VERSION


def test_a_receipt_is_readable_by_people():
    record = INTENT.accepted(QUEUED).ended(DONE, TRY, 1_795_000_009.0, FILES).to_dict()
    assert record["submitted_at"] == "2026-11-18T11:06:40.500+00:00"
    assert record["job"] == {"id": "7", "endpoint": "v6/images", "submitted": 1_795_000_001.0}
    assert (record["dag_id"], record["task_id"], record["map_index"], record["item"]) == ("my_dag", "draw", 3, "owl")
    assert record["files"] == [{"path": "s3://bucket/a.png", "size": 10}]


def test_a_receipt_has_no_text_of_the_payload():
    record = INTENT.accepted(QUEUED).ended(DONE, TRY, 1.0).to_dict()
    assert "prompt" not in json.dumps(record)


def test_a_job_is_known_as_far_as_its_receipt_tells():
    accepted = INTENT.accepted(QUEUED)
    assert INTENT.known_job() is None
    assert accepted.known_job() == replace(QUEUED, meta={})
    assert accepted.ended(DONE, TRY, 1.0).known_job() == replace(DONE, meta={})
    assert accepted.ended(QUEUED.failed("no GPU"), TRY, 1.0).known_job() == replace(QUEUED, meta={}).failed("no GPU")


def test_outputs_of_a_job_without_an_id_are_all_that_there_is():
    data = "A" * 100_000
    done = Job("", "v6/images", "success", [data], submitted=1.0)
    accepted = stored(INTENT.accepted(done))
    assert accepted.known_job() == done
    ended = accepted.ended(done, TRY, 1.0)
    assert len(json.dumps(ended.to_dict())) < 2_000


def test_a_reply_that_cannot_be_used_leaves_the_id_that_it_names():
    doubted = stored(INTENT.named(Job("7", "v6/images")).doubted("HTTP 500", TRY, 1.0))
    assert doubted.known_job() == Job("7", "v6/images")


def test_foreign_words_stay_one_line():
    failed = INTENT.ended(QUEUED.failed("a\n\x1b[31mb"), TRY, 1.0)
    assert failed.message == "a [31mb"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(Receipt().to_dict(), json_values)) | json_values)
def test_whatever_a_file_holds_is_read_as_a_receipt(record: Any):
    receipt = Receipt.from_dict(record)
    assert stored(receipt) == receipt
    receipt.known_job()


def test_what_is_no_receipt_counts_as_about_to_be_paid_for():
    records: list[Any] = [None, [], {"state": "unheard of"}]
    for record in records:
        assert Receipt.from_dict(record).state == "intended"


# --- identity ---


def test_neither_the_order_of_names_nor_what_has_no_effect_changes_a_job():
    payload = {"prompt": "owl", "seed": 1}
    same = {"seed": 1, "track_id": "x", "webhook": "https://x", "prompt": "owl"}
    assert payload_digest(payload) == payload_digest(same)
    assert payload_digest(payload) != payload_digest({"prompt": "owl", "seed": 2})


def test_a_token_that_is_rotated_changes_no_job():
    training = {"name": "owl", "max_tokens": 5, "export": {"hf_token": "hf_" + "a" * 30}}
    assert payload_digest(training) == payload_digest({**training, "export": {"hf_token": "hf_" + "b" * 30}})
    assert payload_digest(training) != payload_digest({**training, "max_tokens": 6})


def test_account_endpoint_and_payload_tell_jobs_apart():
    digests = {
        job_digest(account, endpoint, payload) for account in ("#a", "#b") for endpoint in "ab" for payload in "ab"
    }
    assert len(digests) == 8


def test_only_a_fixed_seed_counts():
    assert has_seed({"seed": 0})
    assert not any(has_seed(payload) for payload in ({}, {"seed": None}, {"seed": ""}))


# --- names ---


def test_names_are_made_for_people():
    name = ReceiptName.of_item(replace(TRY, run_id="run_1"), "owl", "0123456789abcdef" * 2)
    assert str(name) == "my_dag/run_1/draw+3/owl.0123456789abcdef.1.json"
    assert str(name.next()) == "my_dag/run_1/draw+3/owl.0123456789abcdef.2.json"
    assert name.digest == "0123456789abcdef"
    assert str(ReceiptName.shared("ab12")) == "_shared/ab/ab12.1.json"


names = st.text(max_size=100) | st.sampled_from(["", ".", "..", "a/b", "a-b", "A", "a", "a~b", "x" * 90, "x" * 91])


@given(names, names)
def test_no_two_items_share_a_name(one, other):
    first, second = (ReceiptName.of_item(TRY, item, "d" * 16) for item in (one, other))
    assert (first == second) == (one == other)
    for part in str(first).split("/"):
        assert part.isascii()
        assert part.isprintable()
        assert part not in ("", ".", "..")
        assert len(part) < 140
        assert not set(part) & set(" *?[]{}\\:\"'<>|#%")
    assert ReceiptName.parse(str(first)) == first


@given(st.builds(TaskTry, names, names, names, st.integers(-1, 5)), st.builds(TaskTry, names, names, names))
def test_no_two_task_instances_share_a_folder(one, other):
    assert (one.folder == other.folder) == (one == other)


def test_what_is_no_name_of_a_receipt_is_none():
    for text in ("", "x.json", "x.0a.json", "x.1.txt", ".1.json"):
        assert ReceiptName.parse(text) is None
