"""
What people read, kind by kind: each text stands here, so that a change of one is seen.

What to do stands first, since Airflow's log view shows about 100 characters; then what happened, by the user's names.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_modelslab.exceptions import ModelsLabArgumentError
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.pacing import FAST, set_policy, simulate
from tests.support.raw_server import RawServer, reply
from tests.support.tasks import RecordingTaskInstance, StateStore, deferral_of, run

PATH = "v6/images/text2img"
VIDEO = "v6/video/text2video"
FOX = {"prompt": "a fox"}


def normalised(text: str) -> str:
    """Return a text without what differs from run to run."""
    text = re.sub(r"\b3\d{7}\b", "<id>", text)
    text = re.sub(r", waiting for \d+ s\b", "", text)
    text = re.sub(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d UTC", "<time>", text)
    return re.sub(r"127\.0\.0\.1:\d+", "<host>", text)


def lines_of(log: pytest.LogCaptureFixture) -> list[str]:
    """Return what tasks and triggers have told the user."""
    ours = [record for record in log.records if record.name.startswith("under_test.") and record.levelname != "DEBUG"]
    return [normalised(each.getMessage()) for each in ours if "cannot be called outside" not in each.getMessage()]


def operator(**kwargs: Any) -> ModelsLabGenerateOperator:
    return ModelsLabGenerateOperator(**{"task_id": "draw", "endpoint": PATH, "deferrable": True, **kwargs})


def sensor(jobs: Any, **kwargs: Any) -> ModelsLabJobSensor:
    return ModelsLabJobSensor(**{"task_id": "wait", "jobs": jobs, "deferrable": True, **kwargs})


def error_of(task: Any, meanwhile: Callable[[int], None] = lambda deferrals: None) -> str:
    """Return the text of the error that the execution of a task ends in."""
    with pytest.raises(AirflowException) as caught:
        run(task, {"ti": RecordingTaskInstance()}, meanwhile)
    return normalised(str(caught.value))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    set_policy(monkeypatch, **FAST)


# --- the ends of tasks ---


def test_a_failed_generation(sandbox: Sandbox):
    job = sandbox.submit(VIDEO, FOX)
    sandbox.fail(job["id"], "No GPU left")
    assert error_of(sensor(job)) == (
        "Generate again, or from other input: 1 of 1 job failed: v6/video:<id> (No GPU left)"
    )


def test_a_failed_item_of_a_batch_has_the_name_that_the_user_gave(sandbox: Sandbox):
    def fail_the_fox(deferrals: int) -> None:
        sandbox.fail(next(job_id for job_id, job in sandbox.jobs.items() if job.request.meta == FOX), "No GPU left")
        sandbox.finish_all()

    assert error_of(operator(payloads={"owl": {"prompt": "an owl"}, "fox": FOX}), fail_the_fox) == (
        "Generate again, or from other input: 1 of 2 jobs failed: item fox (No GPU left, job v6/images:<id>)"
    )


def test_a_failed_generation_of_a_mapped_task_has_the_name_of_its_map_index(sandbox: Sandbox):
    class MappedTaskInstance(RecordingTaskInstance):
        map_index = 2
        rendered_map_index = "a fox"

    def fail_all(deferrals: int) -> None:
        for job_id in sandbox.jobs:
            sandbox.fail(job_id, "No GPU left")

    with pytest.raises(AirflowException) as caught:
        run(operator(payload=FOX), {"ti": MappedTaskInstance()}, fail_all)
    assert normalised(str(caught.value)) == (
        "Generate again, or from other input: 1 of 1 job failed: a fox (No GPU left, job v6/images:<id>)"
    )


@pytest.mark.parametrize("endpoint", ["v1/enterprise/text2img", VIDEO])  # a terse family, and one that tells more
def test_the_end_of_a_timeout(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, endpoint: str):
    simulate(monkeypatch)
    family = endpoint.rpartition("/")[0]
    assert error_of(sensor(sandbox.submit(endpoint, FOX), timeout=0.5)) == (
        "Clear the task, with a longer timeout, to wait again: 1 of 1 job not done within its timeout of 0.5 s: "
        f"{family}:<id> (processing). What was submitted lives on at ModelsLab"
    )


def test_the_end_of_an_execution_timeout(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    simulate(monkeypatch)
    task = sensor(sandbox.submit(VIDEO, FOX), execution_timeout=timedelta(seconds=1), timeout=60)
    assert error_of(task) == (
        "Clear the task, with a longer execution_timeout, to wait again: 1 of 1 job not done within its "
        "execution_timeout of 1 s: v6/video:<id> (processing). What was submitted lives on at ModelsLab"
    )


def test_the_end_of_the_timeout_of_a_batch_names_items_that_were_not_submitted(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    simulate(monkeypatch)
    payloads = {"owl": {"prompt": "an owl"}, "fox": FOX}
    text = error_of(operator(payloads=payloads, max_in_flight=1, timeout=1))
    assert text.endswith(
        ": 2 of 2 jobs not done within its timeout of 1 s: item owl (processing, job v6/images:<id>); item fox "
        "(not submitted yet). What was submitted lives on at ModelsLab"
    )


def test_the_end_of_a_timeout_before_anything_was_submitted_says_why_nothing_was(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    simulate(monkeypatch)
    sandbox.set_faults({"rate_limit": 1.0})
    for arguments, named in (
        ({"payload": FOX}, ""),
        ({"payloads": {"fox": FOX}}, "item fox ("),
    ):
        assert error_of(operator(**arguments, timeout=0.5)) == (
            "Clear the task, with a longer timeout, to submit again: 1 of 1 job not done within its timeout of 0.5 s: "
            f"{named}not submitted yet: submission to {PATH}: Rate limit exceeded. Maximum 5 queued requests allowed."
            f"{')' if named else ''}"
        )


def test_a_job_that_modelslab_does_not_know(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    simulate(monkeypatch)
    text = error_of(sensor(147, endpoint="v6/vidoe"))
    assert re.sub(r"\d+ (times|s)\b", r"<n> \1", text) == (
        "Check id, endpoint and connection, or generate again: 1 of 1 job failed: v6/vidoe:147 (ModelsLab answered "
        "'Request not found' <n> times in a row, over <n> s: job 147 is not known under endpoint 'v6/vidoe' (did you mean "
        "'v6/video'?); an id is only valid with the endpoint and the account it came from)"
    )


def test_an_endpoint_that_cannot_be_fetched_from(sandbox: Sandbox):
    assert error_of(sensor(147, endpoint="video")) == (
        "Check id, endpoint and connection, or generate again: 1 of 1 job failed: video:147 (The route "
        "/api/video/fetch/147 could not be found.)"
    )


def test_a_misspelt_generation_endpoint(sandbox: Sandbox):
    told = (
        "Correct the endpoint 'v6/images/text2image' (did you mean 'v6/images/text2img'?): ModelsLab has no such endpoint: The "
        "route /api/v6/images/text2image could not be found"
    )
    assert error_of(operator(endpoint="v6/images/text2image", payload=FOX)) == told
    assert error_of(operator(endpoint="v6/images/text2image", payloads={"fox": FOX})) == (
        f"1 of 1 job failed: item fox ({told})"
    )


def test_outputs_that_are_stored_already(sandbox: Sandbox, tmp_path: Path):
    job = sandbox.submit(PATH, FOX)
    sandbox.finish(job["id"])
    run(sensor(job, output_path=str(tmp_path)), {"ti": RecordingTaskInstance()})
    text = error_of(sensor(job, output_path=str(tmp_path), if_exists="error"))
    assert text.replace(str(tmp_path), "<folder>") == (
        "Name another output_path, or if_exists='skip' or 'overwrite': the outputs of job v6/images:<id> are stored "
        "already: <folder>/v6.images.<id>.job.json is there"
    )


def test_folders_that_cannot_be_used(sandbox: Sandbox, tmp_path: Path):
    (tmp_path / "file").touch()
    folder = f"{tmp_path}/file/folder"
    error = f"NotADirectoryError: [Errno 20] Not a directory: '{folder}'"
    assert error_of(operator(payload=FOX, output_path=folder, durable=False)) == (
        f"Correct output_path '{folder}', or allow writing there: {error}. Nothing was submitted"
    )
    assert error_of(operator(payload=FOX, ledger_path=folder)).startswith(
        f"Correct ledger_path '{folder}', or try again when it works: the ledger cannot be read or written: NotADirectory"
    )
    text = error_of(operator(payload=FOX, ledger_path="nope://folder"))
    assert text.startswith(
        "Correct ledger_path 'nope://folder', or add the provider or connection that it needs: "
    )  # the rest is Airflow's


def test_a_wait_of_the_hook(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    simulate(monkeypatch)
    job = sandbox.submit(VIDEO, FOX)
    with pytest.raises(AirflowException) as caught:
        ModelsLabHook().wait(job, timeout=0.5)
    assert normalised(str(caught.value)) == (
        "Wait for it again, with a longer timeout: job v6/video:<id> was not done within 0.5 s"
    )


# --- what ModelsLab and the network answer ---

ANSWERS = {
    "key": (
        reply({"status": "error", "message": "Invalid API key"}, 401),
        "Put a valid key into connection 'modelslab_default': ModelsLab refuses its API key: submission to "
        f"{PATH}: Invalid API key. Endpoints under v1/enterprise need the key of their own server",
    ),
    "credits": (
        reply({"status": "error", "message": "Insufficient credits."}, 402),
        "Top up the ModelsLab account of connection 'modelslab_default', then clear the task: it has no credits or "
        f"quota left: submission to {PATH}: Insufficient credits",
    ),
    "plan": (
        reply({"status": "error", "message": "This feature requires a premium subscription"}, 403),
        "Upgrade the ModelsLab account of connection 'modelslab_default', or use another endpoint: its plan does not "
        f"allow this: submission to {PATH}: This feature requires a premium subscription",
    ),
    "parameters": (
        reply({"status": "error", "message": {"prompt": ["The prompt field is required."]}}),
        "Correct the parameters of the request: ModelsLab refuses it: submission to "
        f"{PATH}: prompt: The prompt field is required",
    ),
    "rate limit": (
        reply({"status": "error", "message": "Rate limit exceeded.", "retry_after": 30}, 429),
        f"Try again in 30 s: ModelsLab takes no further request for now: submission to {PATH}: Rate limit exceeded; "
        "nothing was accepted",
    ),
    "no reply": (
        b"",
        "Look into the account's history before you submit again: this may have been billed, no usable reply came to a "
        f"submission to {PATH}: the connection to ModelsLab broke before a reply (host <host>)",
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_modelslab_answers(raw_server: RawServer, monkeypatch: pytest.MonkeyPatch, kind: str):
    answer, text = ANSWERS[kind]
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(answer)
    with pytest.raises(AirflowException) as caught:
        ModelsLabHook().submit(PATH, FOX, queue_timeout=0)
    assert normalised(str(caught.value)) == text


def test_a_host_that_nobody_listens_on_is_named(monkeypatch: pytest.MonkeyPatch):
    connection = {"conn_type": "modelslab", "host": "http://127.0.0.1:1", "password": "k" * 20, "extra": {"retries": 0}}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    with pytest.raises(AirflowException) as caught:
        ModelsLabHook().fetch(1, "v6/video")
    assert normalised(str(caught.value)) == (
        "Try again later: ModelsLab could not be asked: no connection to ModelsLab (host <host>)"
    )


# --- connections ---


def test_a_connection_that_is_not_defined(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ModelsLabArgumentError) as caught:
        _ = ModelsLabHook("modelslab_prod").options
    assert str(caught.value) == (
        "Add connection 'modelslab_prod' under Admin, Connections: it is not defined. Its type is 'modelslab', its "
        "password your API key. On the command line: airflow connections add modelslab_prod --conn-type modelslab "
        '--conn-password "$YOUR_KEY"'
    )
    with pytest.raises(ModelsLabArgumentError, match=r"^Name a connection as modelslab_conn_id: it is ''$"):
        _ = ModelsLabHook("").options
    monkeypatch.delenv("MODELSLAB_API_KEY", raising=False)
    with pytest.raises(ModelsLabArgumentError, match="under Admin, Connections, or set MODELSLAB_API_KEY: it"):
        _ = ModelsLabHook().options


def test_a_misspelt_field_of_the_extra(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    connection = {"conn_type": "modelslab", "password": "k" * 20, "extra": {"retrys": 1, "request_timeout": 60}}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    _ = ModelsLabHook().options
    (message,) = (each for each in caplog.messages if "in the extra" in each)
    assert message.partition(" Known are: ")[0] == (
        "Correct or remove the field retrys in the extra of the ModelsLab connection: it is not known and has no effect "
        "(did you mean 'retries'?)."
    )


# --- while tasks run ---


def test_a_wait_says_when_its_jobs_are_expected_and_nothing_twice(sandbox: Sandbox, log: pytest.LogCaptureFixture):
    run(operator(payload=FOX, durable=False), {"ti": RecordingTaskInstance()}, lambda deferrals: sandbox.finish_all())
    lines = lines_of(log)
    assert lines[:4] == [
        f"Submitted to {PATH}: job v6/images:<id>, processing, expected about <time>",
        "Deferring: 0 of 1 job done, the last expected about <time>",
        "Waiting in the triggerer, until <time> at the latest",
        "Job v6/images:<id> succeeded: 1 of 1 job done",
    ]
    assert len(set(lines)) == len(lines)


def test_lines_about_a_batch_have_the_names_that_the_user_gave(sandbox: Sandbox, log: pytest.LogCaptureFixture):
    def end_all(deferrals: int) -> None:
        fox, owl = sandbox.jobs
        sandbox.fail(fox, "No GPU left")
        sandbox.finish(owl)

    batch = operator(payloads={"fox": FOX, "owl": {"prompt": "an owl"}}, durable=False, fail_on_partial_error=False)
    run(batch, {"ti": RecordingTaskInstance()}, end_all)
    lines = lines_of(log)
    assert lines[:2] == [
        f"Submitted item {name} to {PATH}: job v6/images:<id>, processing, expected about <time>"
        for name in ("fox", "owl")
    ]
    told = "\n".join(lines)
    assert "Item fox (job v6/images:<id>) failed (No GPU left)" in told
    assert "Item owl (job v6/images:<id>) succeeded" in told
    assert "1 of 2 jobs succeeded, with 1 output" in lines
    assert "1 of 2 jobs failed: item fox (No GPU left, job v6/images:<id>)" in lines


def test_what_a_retry_takes_up_is_named_as_the_user_does_and_not_a_hundred_times(
    sandbox: Sandbox, log: pytest.LogCaptureFixture
):
    payloads = {f"animal {number}": {"prompt": f"{number}"} for number in range(12)}
    store = StateStore()
    for retries in range(2):
        context = {"ti": RecordingTaskInstance(retries=retries), "task_state_store": store}
        deferral_of(operator(payloads=payloads), context)
    (line,) = (line for line in lines_of(log) if line.startswith("Re-attaching"))
    assert line.startswith("Re-attaching to jobs of an earlier try: item animal 0 (v6/images:<id>), item animal 1 (")
    assert line.endswith("item animal 9 (v6/images:<id>), and 2 more")


def test_a_wait_that_ends_before_the_next_try_says_so(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
):
    simulate(monkeypatch)
    sandbox.set_faults({"rate_limit": 1.0})
    error_of(operator(payload=FOX, timeout=1, durable=False))
    assert lines_of(log)[0] == (
        f"Waiting for a queue slot, until <time>, when its time is over: submission to {PATH}: Rate limit exceeded. "
        "Maximum 5 queued requests allowed."
    )


def test_a_failed_generation_that_is_submitted_once_more(sandbox: Sandbox, log: pytest.LogCaptureFixture):
    def end(deferrals: int) -> None:
        if deferrals == 1:
            sandbox.fail(next(iter(sandbox.jobs)), "No GPU left")
        sandbox.finish_all()

    task = operator(payloads={"fox": FOX}, retry_failed=1, durable=False)
    run(task, {"ti": RecordingTaskInstance()}, end)
    assert "Item fox is submitted once more: job v6/images:<id> has failed (No GPU left)" in lines_of(log)


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_full_queue_is_waited_for_in_so_many_words(
    raw_server: RawServer, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture, deferrable: bool
):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    full = {"status": "error", "message": "Rate limit exceeded. Maximum 5 queued requests allowed.", "retry_after": 1}
    raw_server.answer(reply(full, 429), reply({"status": "success", "id": 1, "output": ["https://cdn/a.png"]}))
    run(operator(payload=FOX, deferrable=deferrable, durable=False), {"ti": RecordingTaskInstance()})
    lines = lines_of(log)
    assert lines[0] == (
        f"Waiting for a queue slot, next try about <time>: submission to {PATH}: Rate limit exceeded. Maximum 5 queued "
        "requests allowed."
    )
    assert ("Waiting in the triggerer until the next try to submit, about <time>" in lines) == deferrable
    assert not [line for line in lines if "0 of 0" in line]


# --- at parse time ---

DAG_FILE = """
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

{code}
"""

WRONG = {
    "ModelsLabGenerateOperator(task_id='draw', endpoint='v6/video', payload={})": (
        "Task 'draw': endpoint 'v6/video' is the family under which jobs are fetched: pass a generation endpoint, whose "
        "path begins with 'v6/video/', such as 'v6/video/img2video'"
    ),
    "ModelsLabJobSensor(task_id='wait', jobs=1)": (
        "Task 'wait': endpoint is missing: job 1 does not say its own; pass, for example, endpoint='v6/video'"
    ),
    "ModelsLabJobSensor(task_id='wait', jobs=1, endpoint='v6/video', timeout=0)": (
        "Task 'wait': timeout must be a number of seconds above 0 and up to a century, or such a timedelta, not 0"
    ),
}


IN_A_GROUP = """
from airflow.providers.common.compat.sdk import DAG, TaskGroup

def make(name):
    return {code}

with DAG("dag", schedule=None), TaskGroup("group"):
    make("draw")
"""


@pytest.mark.parametrize(
    "code",
    [
        "ModelsLabGenerateOperator(task_id=name, endpoint='v6/images/text2img', payload={}, timeout=0)",
        "ModelsLabJobSensor(task_id=name, jobs=1, endpoint='v6/video', timeout=0)",
        "modelslab_task(lambda: {}, endpoint='v6/images/text2img', task_id=name, timeout=0)()",
    ],
)
def test_it_does_so_in_a_task_group_and_in_a_function_of_the_users(tmp_path: Path, code: str):
    file = tmp_path / "a_dag.py"
    from_decorators = "from airflow_provider_modelslab.decorators import modelslab_task"
    file.write_text(DAG_FILE.format(code=from_decorators) + IN_A_GROUP.replace("{code}", code))
    with pytest.raises(ModelsLabArgumentError, match=r"^Task 'group\.draw': timeout must be") as caught:
        exec(compile(file.read_text(), str(file), "exec"), {"__name__": "unusual_prefix_a_dag"})
    users, constructor = traceback.extract_tb(caught.value.__traceback__)[-2:]
    assert (users.filename, users.line) == (str(file), f"return {code}")
    assert constructor.name == "__init__"


@pytest.mark.parametrize("code", WRONG)
def test_an_error_at_parse_time_names_the_task_and_ends_in_the_users_line(tmp_path: Path, code: str):
    file = tmp_path / "a_dag.py"
    file.write_text(DAG_FILE.format(code=code))
    with pytest.raises(ModelsLabArgumentError) as caught:
        exec(compile(file.read_text(), str(file), "exec"), {"__name__": "unusual_prefix_a_dag"})
    assert str(caught.value) == WRONG[code]
    users, constructor = traceback.extract_tb(caught.value.__traceback__)[-2:]
    assert (users.filename, users.line) == (str(file), code)
    assert constructor.name == "__init__"
