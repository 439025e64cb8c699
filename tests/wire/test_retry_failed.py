"""``retry_failed``: a failed generation is submitted once more, counted, and never one that may have been accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_modelslab.exceptions import (
    ModelsLabAmbiguousSubmission,
    ModelsLabArgumentError,
    ModelsLabCreditsError,
    ModelsLabJobFailed,
    ModelsLabRequestError,
)
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.pacing import FAST, set_policy, simulate
from tests.support.raw_server import RawServer, path_of, reply
from tests.support.tasks import RecordingTaskInstance, StateStore, run

PATH = "v6/images/text2img"
FOX, OWL = {"prompt": "a fox", "style": "x" * 20_000}, {"prompt": "an owl"}
AGAIN = {"status": "failed", "message": "Failed, Try Again", "id": "", "output": ""}
BOTH_WAYS = pytest.mark.parametrize("deferrable", [True, False])


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    set_policy(monkeypatch, **FAST)


@pytest.fixture
def quick_sandbox(monkeypatch: pytest.MonkeyPatch):
    with Sandbox(duration=0.3, queue_limit=None) as quick:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", quick.connection)
        yield quick


def generate(context: Any = None, **kwargs: Any) -> Any:
    task = ModelsLabGenerateOperator(
        **{"task_id": "task", "endpoint": PATH, "timeout": 3600, "retry_failed": 1, **kwargs}
    )
    return run(task, context or {"ti": RecordingTaskInstance(), "task_state_store": StateStore()})


def prompts_of(sandbox: Sandbox) -> list[str]:
    return [request.json["prompt"] for request in sandbox.requests if request.path == f"/api/{PATH}"]


@BOTH_WAYS
def test_a_failed_generation_is_submitted_once_more(quick_sandbox, tmp_path: Path, deferrable):
    quick_sandbox.script("submit", ["failed"])
    ledger = tmp_path / "ledger"
    outputs = generate(payload=FOX, deferrable=deferrable, ledger_path=str(ledger))
    assert len(outputs) == 1
    first, second = (request.json for request in quick_sandbox.requests if request.path == f"/api/{PATH}")
    assert first == second  # The payload has not lost anything on its way through Airflow's database.
    receipts = sorted(ledger.rglob("*.json"), key=lambda file: file.name)
    states = {file.name.split(".")[-2]: json.loads(file.read_text())["state"] for file in receipts}
    assert states == {"1": "failed", "2": "succeeded"}


@BOTH_WAYS
def test_no_more_often_than_that(quick_sandbox, deferrable):
    quick_sandbox.set_faults({"failed": 1.0})
    with pytest.raises(ModelsLabJobFailed, match="Failed, Try Again"):
        generate(payload=OWL, deferrable=deferrable, retry_failed=2)
    assert len(prompts_of(quick_sandbox)) == 3


def test_by_default_never(quick_sandbox):
    quick_sandbox.script("submit", ["failed"])
    with pytest.raises(ModelsLabJobFailed):
        generate(payload=OWL, retry_failed=0)
    assert len(prompts_of(quick_sandbox)) == 1


@BOTH_WAYS
def test_of_a_batch_only_what_has_failed(quick_sandbox, deferrable):
    quick_sandbox.script("submit", ["failed"])
    context: Any = {"ti": RecordingTaskInstance(), "task_state_store": StateStore()}
    assert len(generate(context, payloads={"fox": FOX, "owl": OWL}, deferrable=deferrable)) == 2
    assert prompts_of(quick_sandbox) == ["a fox", "an owl", "a fox"]
    assert [item["status"] for item in context["ti"].xcoms["manifest"]["items"]] == ["success", "success"]


def test_a_later_try_of_the_task_goes_on_counting(quick_sandbox):
    store = StateStore()
    quick_sandbox.set_faults({"failed": 1.0})
    for _ in range(2):
        with pytest.raises(ModelsLabJobFailed):
            generate({"ti": RecordingTaskInstance(), "task_state_store": store}, payload=OWL)
    assert len(prompts_of(quick_sandbox)) <= 3


@BOTH_WAYS
def test_what_has_succeeded_counts_for_nothing(quick_sandbox, tmp_path: Path, deferrable):
    arguments = {"payload": OWL, "ledger_path": str(tmp_path), "on_clear": "regenerate", "deferrable": deferrable}
    generate({"ti": RecordingTaskInstance()}, **arguments)
    quick_sandbox.script("submit", ["failed"])
    assert len(generate({"ti": RecordingTaskInstance(clears=1)}, **arguments)) == 1
    quick_sandbox.set_faults({"failed": 1.0})
    with pytest.raises(ModelsLabJobFailed):
        generate({"ti": RecordingTaskInstance(clears=2)}, **arguments)
    assert len(prompts_of(quick_sandbox)) == 1 + 2 + 2


def test_what_has_succeeded_and_is_forgotten_counts_for_nothing_either(quick_sandbox, monkeypatch):
    set_policy(monkeypatch, **FAST, inconclusive_grace=0.05)
    store = StateStore()
    generate({"ti": RecordingTaskInstance(), "task_state_store": store}, payload=OWL)
    quick_sandbox.reset()
    quick_sandbox.script("submit", ["failed"])
    assert len(generate({"ti": RecordingTaskInstance(retries=1), "task_state_store": store}, payload=OWL)) == 1


@BOTH_WAYS
def test_a_submission_that_fails_at_once_is_repeated(raw_server: RawServer, monkeypatch, deferrable):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply(AGAIN), reply({"status": "success", "id": 7, "output": ["https://cdn.example/a.png"]}))
    assert generate(payload=OWL, deferrable=deferrable) == ["https://cdn.example/a.png"]
    assert len(raw_server.requests) == 2


def test_what_may_have_been_accepted_is_not(raw_server: RawServer, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(b"")
    with pytest.raises(ModelsLabAmbiguousSubmission):
        generate(payload=OWL)
    assert len(raw_server.requests) == 1


def test_what_is_refused_is_not(raw_server: RawServer, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply({"status": "error", "message": {"prompt": ["The prompt field is required."]}}))
    with pytest.raises(ModelsLabRequestError):
        generate(payload=OWL)
    assert len(raw_server.requests) == 1


def test_a_job_that_modelslab_does_not_know_is_not(raw_server: RawServer, monkeypatch):
    """It may be in progress all the same."""
    set_policy(monkeypatch, **FAST, inconclusive_grace=0.2)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    unknown = {"status": "failed", "message": "Request not found", "id": "", "output": ""}
    raw_server.answer(reply({"status": "processing", "id": 7, "eta": 0.1}), reply(unknown))
    with pytest.raises(ModelsLabJobFailed, match="Request not found"):
        generate(payload=OWL)
    submissions = [request for request in raw_server.requests if request.startswith(f"POST /api/{PATH}".encode())]
    assert len(submissions) == 1


def test_a_poll_that_is_refused_does_not_say_that_the_generation_has_failed(raw_server: RawServer, monkeypatch):
    """It may be in progress all the same."""
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply({"status": "processing", "id": 7, "eta": 0.1}), reply(b"", 400))
    with pytest.raises(ModelsLabJobFailed, match="answered the poll with a refusal: HTTP 400 with nothing"):
        generate(payload=OWL)
    submissions = [request for request in raw_server.requests if path_of(request) == f"/api/{PATH}"]
    assert len(submissions) == 1


@pytest.mark.parametrize("value", [-1, 1.5, 0.0, "1", True, False, None])
def test_it_is_a_number(value):
    with pytest.raises(ModelsLabArgumentError, match="retry_failed must be a whole number of at least 0"):
        ModelsLabGenerateOperator(task_id="task", endpoint=PATH, payload=OWL, retry_failed=value)


@BOTH_WAYS
def test_a_limit_on_jobs_leaves_the_failure_and_what_the_others_have_made(quick_sandbox, tmp_path: Path, deferrable):
    quick_sandbox.script("submit", ["failed"])
    context: Any = {"ti": RecordingTaskInstance(), "task_state_store": StateStore()}
    outputs = generate(
        context,
        payloads={"fox": FOX, "owl": OWL},
        deferrable=deferrable,
        retry_failed=3,
        fail_on_partial_error=False,
        ledger_path=str(tmp_path),
        max_jobs_per_day=2,
    )
    assert len(outputs) == 1
    assert prompts_of(quick_sandbox) == ["a fox", "an owl"]
    fox, owl = context["ti"].xcoms["manifest"]["items"]
    assert (fox["status"], fox["message"], owl["status"]) == ("failed", "Failed, Try Again", "success")


def test_a_balance_that_is_too_low_by_now_leaves_the_failure(quick_sandbox, log: pytest.LogCaptureFixture):
    quick_sandbox.set_faults({"failed": 1.0})
    with pytest.raises(ModelsLabJobFailed, match="Failed, Try Again"):
        generate(payload=OWL, min_balance=quick_sandbox.state()["balance"])
    assert len(prompts_of(quick_sandbox)) == 1
    assert any("not submitted once more: Top up the account" in message for message in log.messages)


def test_credits_that_are_used_up_by_now_leave_the_failure(quick_sandbox, tmp_path: Path):
    quick_sandbox.script("submit", ["failed", "out_of_credits", "out_of_credits"])
    with pytest.raises(ModelsLabJobFailed, match="Failed, Try Again"):
        generate(payload=OWL, ledger_path=str(tmp_path))
    (receipt,) = (file for file in tmp_path.rglob("*.json") if "days" not in str(file))
    assert json.loads(receipt.read_text())["state"] == "failed"


def test_once_the_credits_are_used_up_nothing_is_submitted_once_more_not_even_after_a_deferral(
    raw_server: RawServer, monkeypatch
):
    """What is not to be submitted again travels shortened, and must not be submitted so."""
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    used_up = reply({"status": "error", "message": "You are out of credits, please fund your wallet"}, 402)
    submissions = [reply(AGAIN), reply({"status": "processing", "id": 2, "eta": 0.1}), used_up, used_up]
    failed = reply({"status": "failed", "message": "Failed, Try Again", "id": 2})
    submitted = []

    def answer(request: bytes) -> bytes:
        if "/fetch" in path_of(request):
            return failed
        submitted.append(request)
        return submissions.pop(0) if submissions else reply({"status": "processing", "id": 3, "eta": 0.1})

    raw_server.answer_to = answer
    with pytest.raises(ModelsLabJobFailed, match="2 of 2 jobs failed"):
        generate(payloads={"owl": OWL, "fox": FOX}, deferrable=True)
    assert len(submitted) == 4


def test_a_balance_that_is_too_low_for_one_item_is_so_for_the_others(quick_sandbox):
    quick_sandbox.set_faults({"failed": 1.0})
    with pytest.raises(ModelsLabJobFailed, match="2 of 2 jobs failed"):
        generate(payloads={"fox": FOX, "owl": OWL}, min_balance=quick_sandbox.state()["balance"])
    assert prompts_of(quick_sandbox) == ["a fox", "an owl"]


def test_a_balance_that_is_too_low_for_the_second_time_of_an_item_is_so_for_the_first_of_others(quick_sandbox):
    quick_sandbox.set_faults({"failed": 1.0})
    context: Any = {"ti": RecordingTaskInstance(), "task_state_store": StateStore()}
    balance = quick_sandbox.state()["balance"]
    with pytest.raises(ModelsLabCreditsError, match="Top up the account"):
        generate(context, payloads={"fox": FOX, "owl": OWL}, max_in_flight=1, min_balance=balance)
    assert prompts_of(quick_sandbox) == ["a fox"]
    assert [job["message"] for job in context["ti"].xcoms["jobs"]] == ["Failed, Try Again"]


def test_a_limit_that_others_reach_while_the_second_submission_waits_leaves_the_failure(
    raw_server: RawServer, monkeypatch, tmp_path: Path
):
    simulate(monkeypatch)
    connection = json.loads(raw_server.connection) | {"extra": {"max_jobs_per_day": 3}}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    done = reply({"status": "success", "id": 2, "output": ["https://cdn.example/a.png"]})
    away = reply({"status": "error", "message": "Too Many Attempts.", "retry_after": 20}, 429)
    submissions = [reply({"status": "processing", "id": 1, "eta": 0.1}), done, away, done]
    failed = reply({"status": "failed", "message": "Failed, Try Again", "id": 1})
    raw_server.answer_to = lambda request: failed if "/fetch" in path_of(request) else submissions.pop(0)

    def generate_elsewhere(deferrals: int) -> None:
        if deferrals == 2:
            task = ModelsLabGenerateOperator(task_id="other", endpoint=PATH, payload=OWL, ledger_path=str(tmp_path))
            ti = RecordingTaskInstance()
            ti.task_id = "other"
            run(task, {"ti": ti})

    batch = ModelsLabGenerateOperator(
        task_id="task",
        endpoint=PATH,
        payloads={"fox": {"prompt": "a fox"}, "owl": OWL},
        deferrable=True,
        retry_failed=1,
        fail_on_partial_error=False,
        ledger_path=str(tmp_path),
    )
    context: Any = {"ti": RecordingTaskInstance()}
    assert run(batch, context, generate_elsewhere) == ["https://cdn.example/a.png"]
    assert submissions == []
    fox, owl = context["ti"].xcoms["manifest"]["items"]
    assert (fox["status"], fox["message"], owl["status"]) == ("failed", "Failed, Try Again", "success")


@BOTH_WAYS
def test_when_the_time_ends_before_the_second_submission_the_item_stays_failed(
    raw_server: RawServer, monkeypatch, deferrable
):
    simulate(monkeypatch)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    done = reply({"status": "success", "id": 2, "output": ["https://cdn.example/a.png"]})
    away = reply({"status": "error", "message": "Too Many Attempts.", "retry_after": 3600}, 429)
    accepted = [reply({"status": "processing", "id": 1, "eta": 0.1}), done]
    failed = reply({"status": "failed", "message": "Failed, Try Again", "id": 1})

    def answer(request: bytes) -> bytes:
        if "/fetch" in path_of(request):
            return failed
        return accepted.pop(0) if accepted else away

    raw_server.answer_to = answer
    context: Any = {"ti": RecordingTaskInstance(), "task_state_store": StateStore()}
    payloads = {"fox": {"prompt": "a fox"}, "owl": OWL}
    outputs = generate(context, payloads=payloads, deferrable=deferrable, fail_on_partial_error=False)
    assert outputs == ["https://cdn.example/a.png"]
    assert [job["message"] for job in context["ti"].xcoms["jobs"]] == ["Failed, Try Again", ""]


def test_after_a_limit_was_raised_a_cleared_task_goes_on_with_the_receipts(quick_sandbox, tmp_path: Path):
    quick_sandbox.script("submit", ["failed"])
    arguments = {"payload": OWL, "ledger_path": str(tmp_path)}
    with pytest.raises(ModelsLabJobFailed):
        generate({"ti": RecordingTaskInstance()}, max_jobs_per_day=1, **arguments)
    assert len(generate({"ti": RecordingTaskInstance(clears=1)}, max_jobs_per_day=2, **arguments)) == 1
    numbers = sorted(file.name.split(".")[-2] for file in tmp_path.rglob("*.json") if "days" not in str(file))
    assert numbers == ["1", "2"]
