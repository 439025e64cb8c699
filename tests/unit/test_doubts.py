"""What may have come of a submission in doubt, by ModelsLab's list of outputs and the receipts of the run."""

from __future__ import annotations

import json

import pytest

from airflow_provider_modelslab._ledger.receipts import Receipt
from airflow_provider_modelslab._protocol.assets import Asset, assets_request, read_assets_reply
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply
from airflow_provider_modelslab._tasks.doubts import candidates
from airflow_provider_modelslab.jobs import Job

PATH = "v6/images/text2img"
DOUBTFUL = Receipt(endpoint=PATH, submitted_at=100.0)


def known(job_id: str, submitted_at: float, endpoint: str = PATH) -> Receipt:
    return Receipt(endpoint=endpoint, submitted_at=submitted_at).accepted(Job(job_id, "v6/images"))


def ids(*receipts: Receipt) -> list[str]:
    listed = [Asset(job_id, (f"https://cdn/{job_id}.png",)) for job_id in ("12", "11", "10", "9", "abc")]
    return [asset.job_id for asset in candidates(listed, DOUBTFUL, receipts)]


def test_what_the_ledger_knows_is_no_candidate():
    assert ids() == ["12", "11", "10", "9", "abc"]
    assert ids(known("11", 120.0)) == ["12", "10", "9", "abc"]


def test_what_is_older_than_the_intent_is_no_candidate():
    assert ids(known("10", 90.0)) == ["12", "11", "abc"]


def test_ids_of_another_endpoint_tell_nothing_about_age():
    assert ids(known("10", 90.0, "v6/video/text2video")) == ["12", "11", "9", "abc"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (PATH, "image"),
        ("v6/video/img2video", "video"),
        ("v7/video-fusion/text-to-video", "video"),
        ("v6/voice/text_to_speech", "voice"),
        ("v6/3d/text_to_3d", "3d"),
    ],
)
def test_the_list_is_that_of_what_the_endpoint_makes(path, kind):
    request = assets_request(path, "secret", None)
    assert request.url == "https://modelslab.com/api/assets_generated"
    assert request.body == {"key": "secret", "type": kind, "per_page": 30, "page": 1}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"status": "success", "data": [{"id": 7, "output": ["https://cdn/a.png"]}]},
            [Asset("7", ("https://cdn/a.png",))],
        ),
        ({"status": "success", "data": [{"id": None}, 5, {"output": []}, {"id": "8"}]}, [Asset("8", ())]),
        ({"status": "error", "message": "no"}, None),
        ([], None),
    ],
)
def test_a_reply_is_read_whatever_it_holds(body, expected):
    assert read_assets_reply(HttpReply(200, json.dumps(body).encode()), "secret") == expected


def test_where_modelslab_does_not_answer_nothing_is_told():
    assert read_assets_reply(NoReply("timed out", sent=True), "secret") is None
    assert read_assets_reply(HttpReply(404, b"{}"), "secret") is None
