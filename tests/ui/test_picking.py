"""A person chooses among outputs: asked by a real Airflow, answered as its API and its page are."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.system.steps import wait_until_parked
from tests.ui.conftest import wait_for
from tests.ui.records import failed, generated


@pytest.fixture(scope="module")
def records(held) -> list[dict]:
    names = ["a fox", "an owl *in* [the](http://x.example) <b>snow</b>", "a hare"]
    return [*(generated(held, "image", name) for name in names), failed("9", "a badger", "No GPU left")]


@pytest.fixture
def asked(airflow, records):
    """A run that waits for a person."""
    files = [f"/stored/{record['id']}.png" for record in records[:3]]
    run_id = airflow.trigger("picks", {"xcoms": {"jobs": records, "files": files}})
    wait_until_parked(airflow, "picks", run_id, "pick")
    return run_id


def labels(airflow, run_id: str) -> list[str]:
    return [each["label"] for each in airflow.xcom("picks", run_id, "pick", "candidates")]


def test_what_was_chosen_is_handed_on_like_the_outputs_of_a_sensor(airflow, asked, records):
    shown = labels(airflow, asked)
    assert len(shown) == 3
    airflow.answer("picks", asked, "pick", shown[2], shown[0])
    assert airflow.wait_for_run("picks", asked) == "success", airflow.failures("picks", asked)
    chosen = [records[0]["outputs"][0], records[2]["outputs"][0]]
    assert airflow.xcom("picks", asked, "pick") == airflow.xcom("picks", asked, "use") == chosen
    assert airflow.xcom("picks", asked, "pick", "files") == [f"/stored/{records[n]['id']}.png" for n in (0, 2)]
    assert [record["id"] for record in airflow.xcom("picks", asked, "pick", "jobs")] == [each["id"] for each in records]


def test_none_may_be_chosen(airflow, asked):
    airflow.answer("picks", asked, "pick", "None of these")
    assert airflow.wait_for_run("picks", asked) == "success"
    assert airflow.xcom("picks", asked, "pick") == airflow.xcom("picks", asked, "pick", "files") == []


def test_the_person_sees_a_contact_sheet_in_which_foreign_text_stays_text(open_page, site, airflow, asked):
    page = open_page(f"{site}/dags/picks/runs/{quote(asked)}/tasks/pick/required_actions", user="admin")
    prompt = page.get_by_role("cell", name="an owl *in* [the](http:\u2060//x.example) <b>snow</b>", exact=True)
    expect(prompt).to_be_visible()
    expect(prompt.get_by_role("link")).to_have_count(0)
    wait_for(
        page, "[...document.querySelectorAll('img[src*=generations]')].filter((i) => i.naturalWidth > 0).length === 3"
    )
    airflow.answer("picks", asked, "pick", "None of these")


def test_time_answers_where_nobody_does(airflow, records):
    run_id = airflow.trigger("picks_in_time", {"xcoms": {"jobs": records}})
    assert airflow.wait_for_run("picks_in_time", run_id) == "success", airflow.failures("picks_in_time", run_id)
    assert airflow.xcom("picks_in_time", run_id, "pick") == []


def test_nobody_is_asked_about_nothing(airflow):
    run_id = airflow.trigger("picks", {"xcoms": {"jobs": [failed("9", "a badger", "No GPU left")], "files": []}})
    assert airflow.wait_for_run("picks", run_id) == "success", airflow.failures("picks", run_id)
    assert airflow.xcom("picks", run_id, "pick") == []
