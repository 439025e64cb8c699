"""Whole runs of the operator under ``dag.test()``: the decorator, the link, asset events."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from threading import Thread

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.dag_runs import TEST_DAGS, Run, load_dags
from tests.support.raw_server import RawServer, reply
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture(scope="module")
def dags():
    return load_dags(TEST_DAGS / "generates.py")


@pytest.fixture(autouse=True)
def quick_sandbox(monkeypatch) -> Iterator[Sandbox]:
    with Sandbox(duration=1.0) as quick:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", quick.connection)
        yield quick


@pytest.mark.parametrize("name", ["deferrable", "blocking"])
def test_a_decorated_function_says_what_is_generated(dags, quick_sandbox: Sandbox, name):
    run = Run(dags[f"decorated_{name}"])
    assert run.state == "success", run.states
    assert run.xcom("received") == run.xcom("draw")
    assert [job.request.meta["prompt"] for job in quick_sandbox.jobs.values()] == ["a fox"]
    run = Run(dags[f"decorated_{name}"], {"many": True})
    assert run.state == "success", run.states
    assert [item["payload"]["prompt"] for item in run.xcom("draw", "manifest")["items"]] == ["a fox", "two foxs"]
    assert len(run.xcom("received")) == 2


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 finds the link when the page is shown")
def test_the_link_leads_to_the_output(dags):
    run = Run(dags["with_outlet"])
    assert run.xcom("draw", "_link_ModelsLabOutputLink") == run.xcom("draw")[0]


def test_a_task_goes_on_with_what_was_rendered_when_it_began(dags, quick_sandbox: Sandbox):
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    def edit() -> None:
        """Edit the Variable when the first job is submitted: while the task is deferred."""
        wait_until(lambda: bool(quick_sandbox.jobs))
        # In the database: Variable.set() would share the channel of the task that dag.test() runs in this process.
        with create_session() as session:
            session.query(Variable).filter_by(key="batch").one().set_val(json.dumps({"hare": {"prompt": "a hare"}}))

    Variable.set("batch", json.dumps({"owl": {"prompt": "an owl"}, "hare": {"prompt": "a hare"}}))
    editor = Thread(target=edit)
    editor.start()
    run = Run(dags["rendered_again"])
    editor.join()
    assert run.state == "success", run.states
    prompts = {str(job_id): job.request.meta["prompt"] for job_id, job in quick_sandbox.jobs.items()}
    assert list(prompts.values()) == ["an owl", "a hare"]
    items = run.xcom("draw", "manifest")["items"]
    assert [item["name"] for item in items] == ["owl", "hare"]
    assert [item["payload"]["prompt"] for item in items] == [prompts[item["job_id"]] for item in items]


def test_a_skipped_payload_is_left_out_and_files_can_be_mapped_over(dags, tmp_path):
    run = Run(dags["mapped_over_files"], {"folder": str(tmp_path)})
    assert [run.states["draw_each", index] for index in range(3)] == ["success", "skipped", "success"]
    files = run.xcom("draw")
    assert [run.xcom("received_one", map_index=index) for index in range(2)] == files == run.xcom("draw", "files")


KEPT_OF_A_JOB = 40_000
"""Characters: 32 kB of its parameters, 2 kB of a message and of each output, and the names of the fields."""


def long_values(jobs: int) -> set[str]:
    """Return the columns of Airflow's database that hold a longer value than so many jobs may need."""
    from airflow.utils.session import create_session
    from sqlalchemy import inspect, text

    with create_session() as session:
        return {
            f"{table}.{name}"
            for table in inspect(session.get_bind()).get_table_names()
            for row in session.execute(text(f'SELECT * FROM "{table}"')).mappings()
            for name, value in row.items()
            if len(value if isinstance(value, bytes) else str(value)) > jobs * KEPT_OF_A_JOB
        }


@pytest.mark.parametrize("outcome", ["success", "failed"])
@pytest.mark.parametrize("name", ["deferrable", "blocking"])
def test_pictures_do_not_reach_the_database(dags, quick_sandbox: Sandbox, name, outcome):
    quick_sandbox.set_faults({"failed": 1.0} if outcome == "failed" else {})
    run = Run(dags[f"pictures_as_data_{name}"])
    assert run.state == outcome, run.states
    assert max(len(request.body) for request in quick_sandbox.requests) > 5_000_000
    assert not long_values(jobs=2)


@pytest.mark.parametrize(
    ("kept", "reply_status", "outcome"),
    [("stored", "success", "success"), ("returned", "success", "failed"), ("stored", "failed", "failed")],
)
@pytest.mark.parametrize("name", ["deferrable", "blocking"])
def test_outputs_that_are_data_do_not_reach_the_database(
    dags, raw_server: RawServer, monkeypatch, tmp_path, name, kept, reply_status, outcome
):
    """A reply of 20 MB: two outputs, an echoed picture, and a message without end."""
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    data = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(3_750_000)).decode()
    queued = reply({"status": "processing", "id": 7, "eta": 0.1, "meta": {"init_image": data}})
    done = {"status": reply_status, "id": 7, "output": [data, data], "meta": {"init_image": data}, "message": data}
    finished = reply(done)
    raw_server.answer_to = lambda request: finished if b"/fetch/" in request.partition(b"\r\n")[0] else queued
    run = Run(dags[f"outputs_as_data_{kept}_{name}"], {"folder": str(tmp_path)})
    assert run.state == outcome, run.states
    assert len(list(tmp_path.glob("*.png"))) == (2 if outcome == "success" else 0)
    assert not long_values(jobs=1)
