"""What a ledger says about money: whatever its receipts are called, and whatever lies beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_modelslab._ledger.identity import TaskTry
from airflow_provider_modelslab._ledger.receipts import Receipt
from airflow_provider_modelslab._ledger.report import Report
from airflow_provider_modelslab._protocol.prices import parse_prices, price_of
from airflow_provider_modelslab.jobs import Job

NIGHT = 1_795_820_400.0  # 2026-11-27T23:00:00Z
HOUR = 3600.0
PATH = "v6/images/text2img"


def receipt(state: Any = "succeeded", at: float = NIGHT, job: str = "1", **fields: Any) -> dict[str, Any]:
    task = TaskTry(**{"dag_id": "gallery", "task_id": "draw", "run_id": "run_1", **fields.pop("task", {})})
    known = Job(job, "v6/images") if job else None
    defaults: dict[str, Any] = {"endpoint": PATH, "account": "host#1", "payload_digest": "d" * 64, "item": "owl"}
    return Receipt(state=state, submitted_at=at, job=known, task=task, **(defaults | fields)).to_dict()


def report(*records: Any, prices: Any = None, **times: float) -> Report:
    named = {f"gallery/run_1/draw/{number}.json": record for number, record in enumerate(records)}
    return Report.of(named, prices or {}, **times)


def reasons(of: Report) -> list[tuple[str, int]]:
    return [(repetition.reason, len(repetition.jobs)) for repetition in of.repetitions]


def test_sums_are_by_utc_day_and_endpoint():
    found = report(
        receipt(at=NIGHT, payload_digest="a"),
        receipt("failed", at=NIGHT, payload_digest="b"),
        receipt("submitted", at=NIGHT + 2 * HOUR, payload_digest="c"),
        receipt("in_doubt", at=NIGHT, endpoint="v6/video/text2video", job=""),
        prices={"v6/images": 0.005},
    )
    assert [(each.day, each.endpoint, each.jobs, each.estimate) for each in found.sums] == [
        ("2026-11-27", PATH, 2, 0.01),
        ("2026-11-27", "v6/video/text2video", 1, None),
        ("2026-11-28", PATH, 1, 0.005),
    ]


def test_the_same_payload_paid_for_by_two_runs_is_named():
    found = report(receipt(), receipt(task={"run_id": "run_2"}, job="2"), receipt(payload_digest="e", item="hare"))
    assert reasons(found) == [(f"the same payload, at {PATH}", 2)]
    assert [job.task for job in found.repetitions[0].jobs] == ["gallery.draw of run_1", "gallery.draw of run_2"]


def test_the_same_item_of_a_task_with_another_payload_is_named():
    found = report(receipt(), receipt(payload_digest="e", job="2"))
    assert reasons(found) == [("the same item of a task, with another payload, endpoint or account", 2)]


def test_the_same_item_generated_again_is_named_once():
    found = report(receipt("failed"), receipt(job="2", at=NIGHT + 1))
    assert reasons(found) == [(f"the same payload, at {PATH}", 2)]
    text = "\n".join(found.lines())
    assert "Paid for 2 times: the same payload" in text
    assert "item owl: failed 1" in text


def test_nothing_paid_for_twice_is_said():
    assert "Nothing was paid for twice" in "\n".join(report(receipt()).lines())


def test_the_night_that_is_asked_for_is_compared_with_all_others():
    records = (
        receipt(at=NIGHT - 48 * HOUR),
        receipt(at=NIGHT, job="2"),
        receipt(at=NIGHT + 12 * HOUR, payload_digest="e", item="hare"),
    )
    last_night = report(*records, since=NIGHT - HOUR, until=NIGHT + 8 * HOUR)
    assert [job.job_id for job in last_night.jobs] == ["2"]
    assert reasons(last_night) == [(f"the same payload, at {PATH}", 2)]
    assert not report(*records, since=NIGHT + 10 * HOUR).repetitions


def test_what_is_in_doubt_is_listed_with_its_reason():
    found = report(
        receipt("in_doubt", job="", message="no usable reply"), receipt("intended", job="", payload_digest="e")
    )
    text = "\n".join(found.lines())
    assert "In doubt: 2 jobs" in text
    assert "item owl: no usable reply" in text
    assert "a worker submits it at this moment, or died meanwhile" in text


def test_foreign_files_are_named():
    found = report(None, [], {}, {"state": "done"}, receipt())
    assert len(found.jobs) == 1
    assert found.not_read == [f"gallery/run_1/draw/{number}.json" for number in range(4)]
    assert "Not read, as no receipts: 4 files:" in "\n".join(found.lines())


def test_names_are_harmless_and_keep_their_line():
    found = report(receipt(item="a\x1b[31m\nb\u202e", task={"dag_id": "x\ny", "run_id": "\x07"}), prices={})
    text = "\n".join(found.lines())
    assert all(line.isprintable() for line in text.splitlines())
    assert "  a [31m b  " in text
    assert json.dumps(found.to_dict({})).isprintable()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from(sorted(receipt()))
broken = st.builds(lambda name, value: {**receipt(), name: value}, fields, anything)


@given(st.dictionaries(st.text(), anything | broken, max_size=6))
def test_whatever_lies_in_a_ledger_it_is_reported(records):
    found = Report.of(records, {"v6": 1.0})
    assert all(line.isprintable() for line in found.lines())
    json.dumps(found.to_dict({"v6": 1.0}))
    assert len(found.jobs) + len(found.not_read) == len(records)


def test_the_page_describes_every_field_of_a_receipt():
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page.split("## A receipt")[1], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"\w+", row)} == set(receipt())


# --- prices ---


def test_the_longest_price_counts():
    prices = parse_prices('{"v6/images": 0.005, "v6/images/text2img/": 0.01, "v6": 1}', "prices")
    assert [price_of(path, prices) for path in (PATH, "v6/images/img2img", "v6/video", "v7/images", "v6x/images")] == [
        0.01, 0.005, 1.0, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("nothing", [None, "", " ", {}])
def test_no_price_table_is_an_empty_one(nothing):
    assert parse_prices(nothing, "prices") == {}


@pytest.mark.parametrize("wrong", ["x", "[]", [], 5, {"v6": "x"}, {"v6": -1}, {"v6": True}, {"": 1}, {5: 1}, {"v6": float("nan")}])  # fmt: skip
def test_a_wrong_price_table_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match="prices"):
        parse_prices(wrong, "prices")
