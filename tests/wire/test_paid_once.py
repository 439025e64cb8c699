"""
Pay once: what a task that is tried again, cleared, killed or run beside itself submits, by what remembers its jobs.

Each test counts what arrives at the sandbox.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_modelslab._ledger.stores import FolderStore
from airflow_provider_modelslab.exceptions import (
    ModelsLabAmbiguousSubmission,
    ModelsLabArgumentError,
    ModelsLabJobFailed,
    ModelsLabLedgerError,
    ModelsLabSaveError,
    ModelsLabTimeout,
)
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from tests.conftest import unhurried
from tests.support.pacing import FAST, SimulatedClock, set_policy, simulate, simulated
from tests.support.raw_server import RawServer, path_of, reply
from tests.support.s3 import Bucket, serve_bucket
from tests.support.storing import run_python
from tests.support.tasks import RecordingTaskInstance, StateStore, deferral_of, event_after, run
from tests.support.waiting import wait_until

PATH = "v6/images/text2img"
PROMPT = "a lighthouse at dawn"


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with serve_bucket() as bucket:
        yield bucket


class Task:
    """
    One task, run again and again.

    :param arguments: those of the operator that say where its jobs are remembered.
    :param state: Airflow's task state store, where this Airflow has one.
    """

    def __init__(self, arguments: dict[str, Any], state: StateStore | None = None) -> None:
        self.arguments = arguments
        self.state = state
        self.clears = self.retries = -1
        self.context: Any = None

    def __call__(self, **arguments: Any) -> ModelsLabGenerateOperator:
        given = {"deferrable": True, "timeout": 3600, "poke_interval": 0.2, **self.arguments, **arguments}
        if "payloads" not in given:
            given.setdefault("payload", {"prompt": PROMPT})
        return ModelsLabGenerateOperator(task_id="generate", endpoint=PATH, **given)

    def begin(self, cleared: bool = False) -> Any:
        """Return the context of the next try: a retry, or the first after a clear."""
        if cleared or self.clears < 0:
            self.clears, self.retries = self.clears + 1, 0
        else:
            self.retries += 1
        self.context = {"ti": RecordingTaskInstance(self.clears, self.retries)}
        if self.state is not None:
            self.context["task_state_store"] = self.state
        return self.context

    def run(
        self, *, cleared: bool = False, meanwhile: Callable[[int], None] = lambda deferrals: None, **arguments: Any
    ) -> Any:
        """Let the next try come to its end; meanwhile, something may happen each time it is deferred."""
        return run(self(**arguments), self.begin(cleared), meanwhile)

    def defer(self, *, cleared: bool = False, **arguments: Any) -> None:
        """Let the next try be deferred, and leave it there: whatever dies then."""
        deferral_of(self(**arguments), self.begin(cleared))


@pytest.fixture(params=["local folder", "connection", "s3", "beside the outputs", "task state store"])
def task(request, tmp_path: Path, monkeypatch) -> Task:
    if request.param == "task state store":
        return Task({}, StateStore())
    if request.param == "beside the outputs":
        return Task({"output_path": str(tmp_path / "outputs")})
    if request.param == "s3":
        bucket = request.getfixturevalue("server")
        bucket.empty()
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", bucket.connection)
        return Task({"ledger_path": "s3://aws_default@bucket/ledger"})
    if request.param == "connection":
        request.getfixturevalue("quick")
        connection = json.loads(os.environ["AIRFLOW_CONN_MODELSLAB_DEFAULT"])
        connection["extra"]["ledger_path"] = str(tmp_path / "ledger")
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
        return Task({})
    return Task({"ledger_path": tmp_path / "ledger"})


@pytest.fixture
def local(tmp_path: Path) -> Task:
    return Task({"ledger_path": tmp_path / "ledger"})


@pytest.fixture
def quick(monkeypatch) -> Iterator[Sandbox]:
    """A sandbox whose jobs finish soon."""
    with Sandbox(duration=0.3, queue_limit=None) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", unhurried(sandbox.connection))
        yield sandbox


def prompts(sandbox: Sandbox) -> list[str]:
    """Return what was submitted, refused submissions included."""
    return [request.json["prompt"] for request in sandbox.requests if request.path == f"/api/{PATH}"]


def receipts_in(folder: Any) -> dict[str, Any]:
    return FolderStore(str(folder)).read_all()


# --- the table ---


def test_whatever_dies_while_the_task_waits_a_retry_re_attaches(task: Task, quick: Sandbox):
    task.defer()
    assert task.run() == task.context["ti"].xcoms["jobs"][0]["outputs"]
    assert len(prompts(quick)) == 1


def test_an_unfinished_task_that_is_cleared_re_attaches(task: Task, quick: Sandbox):
    task.defer(on_clear="regenerate")
    assert len(task.run(cleared=True, on_clear="regenerate")) == 1
    assert len(prompts(quick)) == 1


def test_a_finished_task_that_is_cleared_returns_the_same(task: Task, quick: Sandbox):
    first = task.run()
    assert task.run(cleared=True) == first
    assert task.run() == first
    assert len(prompts(quick)) == 1


def test_a_finished_task_generates_again_where_it_shall(task: Task, quick: Sandbox):
    first = task.run(on_clear="regenerate")
    assert task.run(on_clear="regenerate") == first  # a retry: its worker died at the very end
    second = task.run(cleared=True, on_clear="regenerate")
    assert second != first
    assert task.run(on_clear="regenerate") == second
    assert len(prompts(quick)) == 2


@pytest.mark.parametrize("on_clear", ["reuse", "regenerate"])
def test_a_clear_generates_again_only_what_failed(task: Task, quick: Sandbox, on_clear):
    arguments = {"payloads": {name: {"prompt": name} for name in ("owl", "hare", "fox")}, "on_clear": on_clear}
    quick.script("submit", [None, "failed", None])
    with pytest.raises(ModelsLabJobFailed):
        task.run(**arguments)
    first = task.context["ti"].xcoms["manifest"]["items"]
    task.run(cleared=True, **arguments)
    second = task.context["ti"].xcoms["manifest"]["items"]
    assert [item["status"] for item in second] == ["success"] * 3
    assert [first[0]["job_id"], first[2]["job_id"]] == [second[0]["job_id"], second[2]["job_id"]]
    assert sorted(prompts(quick)) == ["fox", "hare", "hare", "owl"]


def test_a_timed_out_task_that_is_cleared_re_attaches(task: Task, sandbox: Sandbox, request, monkeypatch):
    if "connection" in request.node.name:
        pytest.skip("the connection of this sandbox names no ledger")
    simulate(monkeypatch)
    with pytest.raises(ModelsLabTimeout, match="Clear the task"):
        task.run(timeout=1)
    sandbox.finish_all()
    assert len(task.run(cleared=True)) == 1
    assert len(prompts(sandbox)) == 1


def test_another_payload_is_generated_and_the_old_job_named(task: Task, quick: Sandbox, log):
    task.run(payloads={"bird": {"prompt": "owl"}})
    task.run(cleared=True, payloads={"bird": {"prompt": "hawk"}})
    assert prompts(quick) == ["owl", "hawk"]
    named = [message for message in log.messages if message.startswith("Not re-attaching to job v6/images:")]
    assert len(named) == 1
    assert "payload of item bird has changed" in named[0]


def test_a_lost_reply_fails_the_task_until_it_is_cleared(task: Task, quick: Sandbox):
    quick.script("submit", ["drop"])
    with pytest.raises(ModelsLabAmbiguousSubmission, match="may have been billed"):
        task.run()
    with pytest.raises(ModelsLabAmbiguousSubmission, match="Look into the account's history, then clear the task"):
        task.run()
    assert len(prompts(quick)) == 1
    assert len(task.run(cleared=True)) == 1
    assert len(prompts(quick)) == 2


def test_a_refused_submission_leaves_nothing_to_doubt(task: Task, quick: Sandbox):
    quick.script("submit", ["dict_message"])
    with pytest.raises(Exception, match="prompt"):
        task.run()
    assert len(task.run(cleared=True)) == 1


KILLED_WORKER = """
import os
os.environ["AIRFLOW_CONN_MODELSLAB_DEFAULT"] = {connection!r}
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from tests.support.tasks import RecordingTaskInstance
task = ModelsLabGenerateOperator(
    task_id="generate", endpoint="v6/images/text2img", payload={{"prompt": {prompt!r}}}, ledger_path={ledger!r}
)
task.execute({{"ti": RecordingTaskInstance()}})
"""


def test_a_worker_killed_within_a_submission_pays_no_second_time(local: Task, monkeypatch, tmp_path):
    with Sandbox(duration=float("inf"), slow_seconds=600) as slow:
        slow.script("submit", ["slow"])
        ledger = str(tmp_path / "ledger")
        code = KILLED_WORKER.format(connection=slow.connection, prompt=PROMPT, ledger=ledger)
        worker = run_python(code)
        try:
            wait_until(lambda: bool(slow.jobs))
        finally:
            worker.kill()
            worker.wait()
        (record,) = receipts_in(ledger).values()
        assert (record["state"], record["job"]) == ("intended", None)
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", slow.connection)
        simulate(monkeypatch)  # for as long as a request may take, another try may be submitting
        local.begin()
        with pytest.raises(ModelsLabAmbiguousSubmission, match=r"may have been billed, .* nothing came of it so far"):
            local.run()
        slow.finish_all()
        (job_id,) = slow.jobs
        with pytest.raises(
            ModelsLabAmbiguousSubmission, match=rf"Compare these outputs .*: job {job_id} \(http.*\.png\)$"
        ):
            local.run()
        assert len(slow.jobs) == 1
        local.defer(cleared=True)
        assert len(slow.jobs) == 2


# --- stores that fail ---


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.touch()


class Accepting:
    """
    Answers as ModelsLab does: a job of the id 7 for each submission, and that it is in progress.

    :ivar before_reply: called once a submission has been accepted, before its reply leaves.
    """

    def __init__(self) -> None:
        self.submissions = 0
        self.before_reply: Callable[[], object] = lambda: None

    def answer_to(self, request: bytes) -> bytes:
        if path_of(request) == f"/api/{PATH}":
            self.submissions += 1
            self.before_reply()
        return reply({"status": "processing", "id": 7, "eta": 60})


@pytest.fixture
def accepting(raw_server: RawServer, monkeypatch: pytest.MonkeyPatch) -> Accepting:
    accepting = Accepting()
    raw_server.answer_to = accepting.answer_to
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    return accepting


def test_a_ledger_that_fails_before_the_submission_costs_nothing_and_is_retried(quick: Sandbox, tmp_path, local: Task):
    (tmp_path / "ledger").touch()
    with pytest.raises(ModelsLabLedgerError, match="cannot be read or written") as caught:
        local.run()
    assert not isinstance(caught.value, ModelsLabArgumentError)
    assert not prompts(quick)
    (tmp_path / "ledger").unlink()
    assert len(local.run()) == 1


def test_a_ledger_that_fails_after_the_submission_loses_no_job(accepting: Accepting, tmp_path, local: Task, log):
    accepting.before_reply = partial(replace_by_a_file, tmp_path / "ledger")
    context = local.begin()
    deferral_of(local(), context)
    assert context["ti"].xcoms["jobs"][0]["id"] == "7"
    assert any("Job v6/images:7 cannot be remembered" in message for message in log.messages)


def test_what_could_not_be_written_before_a_deferral_is_written_after_it(
    accepting: Accepting, tmp_path, local: Task, monkeypatch
):
    simulate(monkeypatch)
    ledger, away = tmp_path / "ledger", tmp_path / "away"

    def take_away() -> None:
        ledger.rename(away)
        ledger.touch()

    accepting.before_reply = take_away
    context = local.begin()
    deferred = deferral_of(local(timeout=3), context)
    ledger.unlink()
    away.rename(ledger)
    with pytest.raises(ModelsLabTimeout, match="Clear the task"):
        local(timeout=3).execute_complete(context, event_after(deferred))
    (record,) = receipts_in(ledger).values()
    assert record["job"]["id"] == context["ti"].xcoms["jobs"][0]["id"] == "7"
    local.defer(cleared=True)
    assert accepting.submissions == 1


def test_a_receipt_that_is_being_written_is_waited_for(sandbox: Sandbox, tmp_path, local: Task, monkeypatch):
    local.defer()
    (file,) = (tmp_path / "ledger").rglob("*.json")
    content = file.read_bytes()
    file.write_bytes(b"")

    class Meanwhile(SimulatedClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            file.write_bytes(content)

    pacing = simulated(Meanwhile(time.time(), time.monotonic()))
    monkeypatch.setattr(ModelsLabHook, "pacing", pacing)
    local.defer()
    assert len(prompts(sandbox)) == 1


def test_outputs_that_could_not_be_stored_are_stored_by_the_next_try(quick: Sandbox, tmp_path, local: Task):
    outputs = tmp_path / "outputs"
    with pytest.raises(ModelsLabSaveError, match=r"^Clear the task soon, or let it be retried"):
        local.run(output_path=outputs, meanwhile=lambda deferrals: replace_by_a_file(outputs))
    local.run(cleared=True, output_path=tmp_path / "elsewhere")
    (file,) = local.context["ti"].xcoms["files"]
    assert Path(file).parent == tmp_path / "elsewhere"
    assert len(prompts(quick)) == 1


# --- forgotten jobs ---


def test_of_a_forgotten_job_the_stored_files_are_returned(quick: Sandbox, tmp_path, local: Task, monkeypatch):
    set_policy(monkeypatch, **FAST, inconclusive_grace=0.05)
    local.run(output_path=tmp_path / "outputs")
    files = local.context["ti"].xcoms["files"]
    quick.reset()
    local.run(cleared=True, output_path=tmp_path / "outputs", if_exists="overwrite")
    assert local.context["ti"].xcoms["files"] == files
    Path(files[0]).unlink()
    local.run(cleared=True, output_path=tmp_path / "outputs")
    assert len(quick.jobs) == 1


# --- side by side ---


def at_once(*actions: Callable[[], Any]) -> list[Any]:
    """Run functions in threads of their own, and return their results."""
    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result() for future in [pool.submit(action) for action in actions]]


def execute(operator: ModelsLabGenerateOperator, context: Any) -> Any:
    """Execute an operator in any thread: Airflow 2 guards against that."""
    return inspect.unwrap(type(operator).execute)(operator, context)


@pytest.mark.parametrize("task", ["local folder", "s3"], indirect=True)
def test_a_zombie_and_its_successor_pay_once(task: Task, quick: Sandbox):
    arguments = {"payloads": [{"prompt": f"picture {number}"} for number in range(5)], "deferrable": False}
    contexts = [task.begin(), task.begin()]
    results = at_once(*(partial(execute, task(**arguments), context) for context in contexts))
    assert results[0] == results[1]
    assert sorted(prompts(quick)) == [f"picture {number}" for number in range(5)]


FORTY: list[dict[str, Any]] = [{"prompt": f"picture {number}", "seed": number} for number in range(40)]


class Other(RecordingTaskInstance):
    dag_id = "other"


@pytest.mark.parametrize("ledger", ["local folder", "s3", "beside the outputs"])
def test_forty_prompts_run_twice_are_forty_submissions(quick: Sandbox, tmp_path, monkeypatch, request, ledger):
    arguments: dict[str, Any] = {"payloads": FORTY, "output_path": tmp_path / "outputs", "reuse": "always"}
    if ledger == "local folder":
        arguments["ledger_path"] = tmp_path / "ledger"
    if ledger == "s3":
        bucket = request.getfixturevalue("server")
        bucket.empty()
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", bucket.connection)
        arguments["ledger_path"] = "s3://aws_default@bucket/shared"
    first, second = {"ti": RecordingTaskInstance()}, {"ti": Other()}
    task = Task(arguments)
    assert run(task(), first) == run(task(), second)
    assert first["ti"].xcoms["files"] == second["ti"].xcoms["files"]
    assert len(prompts(quick)) == 40
    Path(second["ti"].xcoms["files"][7]).unlink()
    run(task(), second)
    assert len(prompts(quick)) == 41


def test_two_runs_at_the_same_moment_pay_once(quick: Sandbox, tmp_path):
    task = Task({"output_path": tmp_path / "outputs", "reuse": "always", "deferrable": False, "payloads": FORTY[:8]})
    contexts: list[Any] = [{"ti": RecordingTaskInstance()}, {"ti": Other()}]
    at_once(*(partial(execute, task(), context) for context in contexts))
    assert sorted(prompts(quick)) == sorted(payload["prompt"] for payload in FORTY[:8])
    assert contexts[0]["ti"].xcoms["files"] == contexts[1]["ti"].xcoms["files"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_same_payload_twice_in_a_batch_is_one_job_where_it_may_be_reused(quick: Sandbox, tmp_path, deferrable):
    task = Task({"output_path": tmp_path, "reuse": "always", "deferrable": deferrable})
    payloads = {name: {"prompt": PROMPT, "seed": 1} for name in ("one", "other")}
    for _ in range(2):
        urls = task.run(cleared=True, payloads=payloads)
        assert len(urls) == 2
        assert len(set(urls)) == len(set(task.context["ti"].xcoms["files"])) == 1
    assert len(prompts(quick)) == 1


def test_the_log_says_where_a_payload_has_no_seed(quick: Sandbox, tmp_path, log):
    task = Task({"output_path": tmp_path, "reuse": "always"})
    task.run(payload={"prompt": "owl", "seed": 7})
    assert not [message for message in log.messages if "seed" in message]
    task.run(payload={"prompt": "owl"})
    assert [message for message in log.messages if message.startswith("Without a fixed seed")]


# --- what it costs, and what it tells ---


class Requests(logging.Handler):
    """Counts what arrives at the S3 server, by method."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def count(self, *parts: str) -> int:
        return sum(all(part in line for part in parts) for line in self.lines)


def test_a_hundred_items_cost_three_writes_each_and_no_list_of_the_store(server: Bucket, quick: Sandbox, monkeypatch):
    server.empty()
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", server.connection)
    for number in range(300):
        server.client.put_object(Bucket="bucket", Key=f"ledger/other/run/task/{number}.0a.1.json", Body=b"{}")
    task = Task({"ledger_path": "s3://aws_default@bucket/ledger"})
    payloads = [{"prompt": f"picture {number}"} for number in range(100)]
    requests, werkzeug = Requests(), logging.getLogger("werkzeug")
    monkeypatch.setattr(werkzeug, "propagate", False)
    werkzeug.addHandler(requests)
    werkzeug.setLevel(logging.INFO)
    try:
        task.run(payloads=payloads, max_in_flight=100)
    finally:
        werkzeug.removeHandler(requests)
        werkzeug.setLevel(logging.ERROR)
    writes, lists, reads = (
        requests.count("PUT /bucket/ledger"),
        requests.count("list-type"),
        requests.count("GET /bucket/"),
    )
    assert writes == 300
    assert 1 <= lists <= 3
    assert reads - lists <= 100
    listed = [line for line in requests.lines if "list-type" in line]
    assert all("prefix=ledger/dag/manual" in line for line in listed), listed  # of this run, never of the ledger


def test_a_receipt_tells_what_was_paid_for_and_neither_key_nor_prompt(quick: Sandbox, tmp_path, local: Task):
    local.run(payloads={"owl": {"prompt": PROMPT, "seed": 3}}, output_path=tmp_path / "outputs")
    ((name, record),) = receipts_in(tmp_path / "ledger").items()
    assert name.startswith("dag/manual__2026-11-28T12-00-00+00-00~")
    assert "/task/owl." in name
    assert (record["version"], record["state"], record["item"], record["has_seed"]) == (1, "succeeded", "owl", True)
    assert record["job"]["id"] == str(next(iter(quick.jobs)))
    (file,) = record["files"]
    assert file["size"] == Path(file["path"]).stat().st_size
    text = (tmp_path / "ledger" / name).read_text()
    assert PROMPT not in text
    assert quick.key not in text


# --- arguments ---


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"ledger_path": "ledger"}, "ledger_path must be"),
        ({"ledger_path": "/ledger", "durable": False}, "ledger_path has no effect with durable=False"),
        ({"on_clear": "again"}, "on_clear must be one of reuse, regenerate"),
        ({"reuse": True}, "reuse must be one of task, always"),
        ({"reuse": "always"}, "reuse='always' needs an output_path"),
        ({"reuse": "always", "output_path": "/x", "durable": False}, "reuse='always' needs the ledger"),
        ({"reuse": "always", "output_path": "/x", "on_clear": "regenerate"}, "against on_clear='regenerate'"),
    ],
)
def test_bad_arguments_are_refused_when_the_dag_is_parsed(arguments, name):
    with pytest.raises(ModelsLabArgumentError, match=name):
        ModelsLabGenerateOperator(task_id="generate", endpoint=PATH, payload={}, **arguments)
