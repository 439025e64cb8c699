"""What a person is shown to choose from, and which arguments are refused."""

from __future__ import annotations

import re
from datetime import datetime, timezone

import pytest

from airflow_provider_modelslab.exceptions import ModelsLabArgumentError
from airflow_provider_modelslab.jobs import Job
from tests.support.tasks import RecordingTaskInstance

picking = pytest.importorskip("airflow_provider_modelslab.picking", reason="needs Airflow 3.1")


def job(job_id: str, *outputs: str, prompt: str = "a fox") -> Job:
    return Job(id=job_id, endpoint="v6/images", status="success", outputs=list(outputs), meta={"prompt": prompt})


def test_each_output_has_a_label_of_its_own():
    jobs = [
        job("1", "https://x/a.png", "https://x/b.png"),
        Job("2", "v6/images", "failed"),
        job("3", "https://x/c.png"),
    ]
    assert [(each["label"], each["output"]) for each in picking.candidates_of(jobs)] == [
        ("1. a fox", "https://x/a.png"),
        ("2. a fox", "https://x/b.png"),
        ("3. a fox", "https://x/c.png"),
    ]


def test_a_label_is_one_short_line():
    (candidate,) = picking.candidates_of([job("1", "https://x/a.png", prompt="long\n\n" * 40)])
    assert len(candidate["label"]) <= 64
    assert "\n" not in candidate["label"]
    (candidate,) = picking.candidates_of([job("1", "https://x/a.png", prompt="a \u202efox\x1b[31m")])
    assert candidate["label"] == "1. a fox [31m"


def test_files_stay_with_their_outputs():
    jobs = [job("1", "https://x/a.png"), job("2", "https://x/b.png")]
    assert [each["file"] for each in picking.candidates_of(jobs, ["/a.png", "/b.png"])] == ["/a.png", "/b.png"]
    with pytest.raises(ValueError, match="one path for each output, 2, not 1"):
        picking.candidates_of(jobs, ["/a.png"])


def test_pictures_are_shown_and_all_else_is_linked():
    sheet = picking.contact_sheet(
        picking.candidates_of(
            [job("1", "https://x/a.png", "https://x/b.mp4", "iVBORw0KGgo" * 9, "javascript:alert(1)")]
        )
    )
    assert "![1\\. a fox](https://x/a.png)" in sheet
    assert "[https\\://x/b\\.mp4](https://x/b.mp4)" in sheet
    assert "iVBORw0KGgo" not in sheet
    assert "| javascript\\:alert\\(1\\) |" in sheet  # a text, and no link


def test_foreign_text_is_no_markup():
    prompt = "](javascript:alert(1)) ![x](http://y) <script> `code`"
    sheet = picking.contact_sheet(picking.candidates_of([job("1", "https://x/a(b)c.png", prompt=prompt)]))
    assert "\\]\\(javascript\\:alert\\(1\\)\\)" in sheet
    assert "\\<script\\>" in sheet
    assert "(https://x/a%28b%29c.png)" in sheet
    (address,) = re.findall(
        r"\[(.*)\]\(", picking.contact_sheet([{"label": "1. a", "output": "https://x/_a_/*b*.mp4"}])
    )
    assert address == r"https\://x/\_a\_/\*b\*\.mp4"


@pytest.mark.parametrize(
    "address", ["https://evil.example/a", "HTTP://evil.example", "www.evil.example", "me@evil.example"]
)
def test_no_address_in_a_text_becomes_a_link(address):
    """Airflow's page looks for addresses when the escapes are gone: here by the expressions of its Markdown parser."""
    sheet = picking.contact_sheet([{"label": f"1. see {address}", "output": f"see {address}"}])
    shown = sheet.replace("\\", "")
    assert shown.replace("\u2060", "").count(address) == 2
    assert not re.search(r"(https?://|www(?=\.))([-.\w]+)", shown, re.IGNORECASE)
    assert not re.search(r"([-.\w+]+)@([-\w]+(?:\.[-\w]+)+)", shown)


def test_texts_and_structured_results_are_shown_as_text():
    outputs = ["A walk | in\nthe <rain>.", {"text": "A walk"}, "iVBORw0KGgo" * 9]
    sheet = picking.contact_sheet([{"label": "1. a", "output": output} for output in outputs])
    assert "| A walk \\| in the \\<rain\\>\\. |" in sheet
    assert '| \\{"text"\\: "A walk"\\} |' in sheet
    assert "| data |" in sheet


@pytest.mark.parametrize("arguments", [{"default": "some"}, {"default": "all", "multiple": False}])
def test_arguments_are_judged_when_the_dag_is_parsed(arguments):
    with pytest.raises(ModelsLabArgumentError, match="default"):
        picking.ModelsLabPickOperator(task_id="pick", jobs=[], **arguments)


@pytest.mark.parametrize("jobs", [None, [], [Job("1", "v6/images", "failed").to_dict()]])
def test_nobody_is_asked_where_nothing_came_out(jobs):
    ti = RecordingTaskInstance()
    assert picking.ModelsLabPickOperator(task_id="task", jobs=jobs, files=[]).execute({"ti": ti}) == []
    assert ti.xcoms == {"jobs": jobs or [], "files": []}


def test_the_outputs_of_mapped_tasks_are_shown_together():
    """Their XComs are a list of lists; a task that was skipped has left none."""
    ti = RecordingTaskInstance()
    records = [[job("1", "https://x/a.png").to_dict()], None, [job("2", "https://x/b.png").to_dict()]]
    pick = picking.ModelsLabPickOperator(task_id="task", jobs=records, files=[["/a.png"], None, ["/b.png"]])
    with pytest.raises(KeyError, match="task_instance"):  # which Airflow needs to ask, and this context has not
        pick.execute({"ti": ti})
    assert [(each["output"], each["file"]) for each in ti.xcoms["candidates"]] == [
        ("https://x/a.png", "/a.png"),
        ("https://x/b.png", "/b.png"),
    ]
    assert [record["id"] for record in ti.xcoms["jobs"]] == ["1", "2"]


@pytest.mark.parametrize(
    "jobs", ["text", {"id": "1"}, ["1"], [{"id": "1", "endpoint": "v6/images"}], [{"outputs": [], "meta": None}]]
)
def test_what_are_no_records_is_refused(jobs):
    with pytest.raises(ModelsLabArgumentError, match="pass the XCom 'jobs'"):
        picking.ModelsLabPickOperator(task_id="task", jobs=jobs).execute({"ti": RecordingTaskInstance()})


def test_the_answer_is_about_what_was_shown_in_the_order_in_which_it_was_shown():
    ti = RecordingTaskInstance()
    shown = picking.candidates_of([job("1", "https://x/a.png", "https://x/b.png", "https://x/c.png")], ["a", "b", "c"])
    ti.xcom_push("candidates", shown)
    answer = {
        "chosen_options": [shown[2]["label"], shown[0]["label"]],
        "params_input": {},
        "responded_at": datetime.now(timezone.utc),
        "responded_by_user": None,
    }
    # Meanwhile the templates render to something else.
    pick = picking.ModelsLabPickOperator(task_id="task", jobs=[], files=["other"])
    assert pick.execute_complete({"ti": ti}, answer) == ["https://x/a.png", "https://x/c.png"]
    assert ti.xcoms["files"] == ["a", "c"]
