"""Every reply in the tables of docs/replies.md is taken for what stands beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab._protocol.replies import Verdict, read_fetch_reply, read_submission_reply
from airflow_provider_modelslab.jobs import Job

PAGE = Path(__file__).parents[2] / "docs" / "replies.md"
ROW = re.compile(r"\| (?:(\d{3}) )?`(.*)` \| (fetch|submission to `(.*)`) \| (.*) \|")
ROWS = [ROW.fullmatch(line) for line in PAGE.read_text().splitlines() if line.startswith("|") and "`" in line]

WORDS = {
    "done": Verdict.SUCCESS,
    "in progress": Verdict.PROCESSING,
    "failed": Verdict.FAILED,
    "not ready": Verdict.NO_OUTPUT,
    "not known": Verdict.NOT_FOUND,
    "an error without a reason": Verdict.EMPTY_ERROR,
    "rate limited": Verdict.RATE_LIMITED,
    "trouble that passes": Verdict.TRANSIENT,
    "key refused": Verdict.INVALID_KEY,
    "no credits": Verdict.NO_CREDITS,
    "not in the plan": Verdict.NOT_IN_PLAN,
    "request refused": Verdict.REFUSED,
    "may have been billed": Verdict.AMBIGUOUS,
}


def test_the_page_says_every_verdict():
    assert len(ROWS) > 40
    assert None not in ROWS
    assert {WORDS[row[5].partition(":")[0]] for row in ROWS if row} == set(Verdict)


@pytest.mark.parametrize("row", [row for row in ROWS if row], ids=lambda row: row[2])
def test_a_reply_is_taken_for_what_the_page_says(row):
    status, body, _, path, meaning = row.groups()
    received = HttpReply(int(status or 200), body.encode())
    if path is None:
        reply = read_fetch_reply(received, Job(id="9", endpoint="v6/video"))
    else:
        reply = read_submission_reply(received, path)
    word, _, details = meaning.partition(": ")
    told = {
        *(f"{len(reply.job.outputs)} {kind}" for kind in ("output", "outputs")),
        f"job {reply.job}",
        *(f"names {text}" for text in reply.job.ids.values()),
        f"pause {reply.retry_after or 0:g} s",
        f"{reply.queue_slots} slots",
    }
    assert reply.verdict is WORDS[word]
    assert {detail for detail in details.split(", ") if detail} <= told
