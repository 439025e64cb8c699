"""A wait of a few seconds stays on its worker, and none ends before the scheduler has heard of its deferral."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_modelslab._polling.policy import DEFAULT_POLICY
from airflow_provider_modelslab.exceptions import ModelsLabAuthError, ModelsLabTimeout
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.pacing import SimulatedClock, set_policy, simulated
from tests.support.raw_server import RawServer, path_of, reply
from tests.support.simulated_loop import run_simulated
from tests.support.tasks import RecordingTaskInstance
from tests.support.triggers import event_of, make_trigger

START = 1_000_000.0
URL = "https://cdn.example/a.png"


class Jobs:
    """Jobs on simulated time that take as long as a test says: what a server answers about them."""

    def __init__(self, clock: SimulatedClock, seconds: float, eta: float | None) -> None:
        self.clock, self.seconds, self.eta = clock, seconds, eta
        self.started: dict[str, float] = {}
        self.polls = 0

    def answer_to(self, request: bytes) -> bytes:
        if "/fetch" not in path_of(request):
            job_id = str(len(self.started) + 1)
            self.started[job_id] = self.clock.monotonic()
            return reply({"status": "processing", "id": job_id, "eta": self.eta})
        self.polls += 1
        job_id = path_of(request).rpartition("/")[2]
        started = self.started.setdefault(job_id, self.clock.monotonic())
        if self.clock.monotonic() - started < self.seconds:
            return reply({"status": "processing", "id": job_id, "eta": self.eta})
        return reply({"status": "success", "id": job_id, "output": [URL]})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimulatedClock:
    clock = SimulatedClock(wall=START)
    pacing = simulated(clock, brief_wait=DEFAULT_POLICY.brief_wait)
    monkeypatch.setattr(ModelsLabHook, "pacing", pacing)
    return clock


@pytest.fixture
def context() -> dict[str, Any]:
    return {"ti": RecordingTaskInstance()}


def serve(raw_server: RawServer, monkeypatch: pytest.MonkeyPatch, jobs: Jobs) -> None:
    raw_server.answer_to = jobs.answer_to
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)


def sensor(jobs: object, **kwargs: Any) -> ModelsLabJobSensor:
    return ModelsLabJobSensor(task_id="task", jobs=jobs, endpoint="v6/video", deferrable=True, **kwargs)


def operator(**kwargs: Any) -> ModelsLabGenerateOperator:
    return ModelsLabGenerateOperator(task_id="task", endpoint="v6/video/text2video", deferrable=True, **kwargs)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.0, 4.5])
def test_short_jobs_end_on_their_worker(raw_server, monkeypatch, clock, context, seconds):
    serve(raw_server, monkeypatch, Jobs(clock, seconds, eta=seconds))
    assert sensor("1").execute(context) == [URL]
    assert operator(payloads=[{"prompt": "a"}, {"prompt": "b"}]).execute(context) == [URL, URL]
    assert clock.monotonic() - 500.0 < 2 * DEFAULT_POLICY.brief_wait


def test_a_batch_goes_on_submitting_on_its_worker_while_its_jobs_are_short(raw_server, monkeypatch, clock, context):
    serve(raw_server, monkeypatch, Jobs(clock, 2.0, eta=2.0))
    payloads = [{"prompt": str(number)} for number in range(12)]
    assert operator(payloads=payloads, max_in_flight=3).execute(context) == [URL] * 12


@pytest.mark.parametrize("eta", [10.0, 600.0, None])
def test_long_jobs_are_deferred_at_once(raw_server, monkeypatch, clock, context, eta):
    jobs = Jobs(clock, 600.0, eta)
    serve(raw_server, monkeypatch, jobs)
    for task, polls in ((sensor("1"), 1), (operator(payload={"prompt": "a"}), 0)):
        with pytest.raises(TaskDeferred):
            task.execute(context)
        assert (jobs.polls, clock.naps) == (polls, [])
        jobs.polls = 0


def test_the_longest_of_many_jobs_decides(raw_server, monkeypatch, clock, context):
    serve(raw_server, monkeypatch, Jobs(clock, 600.0, eta=2.0))
    with pytest.raises(TaskDeferred):
        sensor([{"id": 1, "endpoint": "v6/video", "eta": 2}, {"id": 2, "endpoint": "v6/video", "eta": 60}]).execute(
            context
        )
    assert clock.naps == []


def test_jobs_too_many_to_be_polled_every_second_are_deferred_at_once(raw_server, monkeypatch, clock, context):
    jobs = Jobs(clock, 600.0, eta=2.0)
    serve(raw_server, monkeypatch, jobs)
    connection = json.loads(raw_server.connection) | {"extra": {"requests_per_second": 10}}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    with pytest.raises(TaskDeferred):
        sensor([{"id": number, "endpoint": "v6/video", "eta": 2} for number in range(1, 12)]).execute(context)
    assert (jobs.polls, clock.naps) == (1, [])


def test_a_job_that_is_late_is_deferred_in_the_end(raw_server, monkeypatch, clock, context):
    serve(raw_server, monkeypatch, Jobs(clock, 600.0, eta=2.0))
    for task in (sensor("1"), operator(payload={"prompt": "a"})):
        began = clock.monotonic()
        with pytest.raises(TaskDeferred) as caught:
            task.execute(context)
        assert clock.monotonic() - began == pytest.approx(DEFAULT_POLICY.brief_wait)
        assert caught.value.trigger.deferred == clock.wall()
        assert context["ti"].xcoms["jobs"][0]["status"] == "processing"


def test_a_fixed_pace_of_the_user_is_kept(raw_server, monkeypatch, clock, context):
    jobs = Jobs(clock, 600.0, eta=2.0)
    serve(raw_server, monkeypatch, jobs)
    for task, polls in ((sensor("1", poke_interval=30), 1), (operator(payload={"prompt": "a"}, poke_interval=30), 0)):
        with pytest.raises(TaskDeferred):
            task.execute(context)
        assert (jobs.polls, clock.naps) == (polls, [])
        jobs.polls = 0


def test_the_timeout_ends_a_short_wait_too(raw_server, monkeypatch, clock, context):
    serve(raw_server, monkeypatch, Jobs(clock, 600.0, eta=2.0))
    with pytest.raises(ModelsLabTimeout):
        sensor("1", timeout=3).execute(context)
    assert clock.monotonic() - 500.0 == pytest.approx(3.0)


def test_an_execution_timeout_ends_a_short_wait_with_what_is_known(raw_server, monkeypatch, clock, context):
    """Before Airflow breaks the task off, which would tell nothing of the jobs."""
    serve(raw_server, monkeypatch, Jobs(clock, 600.0, eta=2.0))
    limit = timedelta(seconds=4)
    for task in (sensor("1", execution_timeout=limit), operator(payload={"prompt": "a"}, execution_timeout=limit)):
        began = clock.monotonic()
        with pytest.raises(ModelsLabTimeout, match="execution_timeout of 4 s"):
            task.execute(context)
        assert clock.monotonic() - began <= 3.0
        assert [job["status"] for job in context["ti"].xcoms.pop("jobs")] == ["processing"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_pause_that_modelslab_asks_for_is_not_waited_out_beyond_an_execution_timeout(
    raw_server, monkeypatch, clock, context, deferrable
):
    running = reply({"status": "processing", "id": 1, "eta": 2.0})
    away = reply({"status": "error", "message": "Too Many Attempts.", "retry_after": 5}, 429)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    limit = timedelta(seconds=4)
    tasks: list[Any] = [operator(payload={"prompt": "a"}, execution_timeout=limit)]
    tasks[0].deferrable = deferrable
    if deferrable:  # poke and reschedule leave that to Airflow
        tasks.append(sensor("1", execution_timeout=limit))
    for task in tasks:
        raw_server.answer(running, away, running)
        began = clock.monotonic()
        with pytest.raises(ModelsLabTimeout, match="execution_timeout of 4 s"):
            task.execute(context)
        assert clock.monotonic() - began <= 3.0
        assert [job["status"] for job in context["ti"].xcoms.pop("jobs")] == ["processing"]


def test_nor_beyond_the_timeout_of_a_hook(raw_server, monkeypatch, clock):
    running = reply({"status": "processing", "id": 1, "eta": 2.0})
    away = reply({"status": "error", "message": "Too Many Attempts.", "retry_after": 5}, 429)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(running, away, running)
    with pytest.raises(ModelsLabTimeout):
        ModelsLabHook().wait("1", "v6/video", timeout=3)
    assert clock.monotonic() - 500.0 == pytest.approx(3.0)


def test_a_submission_that_is_repeated_in_some_seconds_is_awaited_on_the_worker(
    raw_server, monkeypatch, clock, context
):
    """However long the jobs take that are in flight: a deferral would take longer than the pause."""
    accepted = reply({"status": "processing", "id": 1, "eta": 600})
    away = reply({"status": "error", "message": "Too Many Attempts.", "retry_after": 3}, 429)
    second = reply({"status": "processing", "id": 2, "eta": 600})
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    answers = [accepted, away, second]
    raw_server.answer_to = lambda request: (
        reply({"status": "processing", "eta": 600}) if "/fetch" in path_of(request) else answers.pop(0)
    )
    with pytest.raises(TaskDeferred):
        operator(payloads=[{"prompt": "a"}, {"prompt": "b"}], max_in_flight=2).execute(context)
    assert answers == []
    assert [job["id"] for job in context["ti"].xcoms["jobs"]] == ["1", "2"]


def test_a_refusal_during_a_short_wait_fails_the_task_and_keeps_the_jobs(raw_server, monkeypatch, clock, context):
    running = reply({"status": "processing", "id": 1, "eta": 2.0})
    refused = reply({"status": "error", "message": "Invalid API key"}, 401)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    for task in (sensor("1"), operator(payload={"prompt": "a"})):
        raw_server.answer(running, refused)
        with pytest.raises(ModelsLabAuthError):
            task.execute(context)
        assert [job["id"] for job in context["ti"].xcoms.pop("jobs")] == ["1"]


# --- the event ---


@pytest.fixture
def done(raw_server: RawServer, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply({"status": "success", "output": [URL]}))
    return [{"id": "1", "endpoint": "v6/video"}]


@pytest.mark.parametrize(("ago", "waits"), [(0.0, 8.0), (3.0, 5.0), (60.0, 0.0), (-7200.0, 8.0)])
def test_no_event_comes_before_the_scheduler_has_heard_of_the_deferral(monkeypatch, clock, done, ago, waits):
    """However the wall clock was set meanwhile."""
    trigger: Any = make_trigger(done)
    trigger.started, trigger.deadline, trigger.deferred = START, START + 600, START - ago
    trigger.task_instance = RecordingTaskInstance()
    monkeypatch.setattr(type(trigger), "pacing", simulated(clock, settling=DEFAULT_POLICY.settling))
    began = clock.monotonic()

    async def run() -> tuple[float, dict[str, Any]]:
        (event,) = [event async for event in trigger.run()]
        return clock.monotonic() - began, event.payload

    passed, event = run_simulated(clock, run())
    assert event["status"] == "finished"
    assert passed == pytest.approx(waits, abs=0.5)


def test_an_error_is_told_no_sooner(monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_MODELSLAB_DEFAULT",
        json.dumps({"conn_type": "modelslab", "password": "the-api-key", "host": "ftp://x"}),
    )
    set_policy(monkeypatch, connection_attempts=1, settling=0.5)
    deferred = time.time()
    trigger: Any = make_trigger([{"id": "1", "endpoint": "v6/video"}], deferred=deferred)
    trigger.task_instance = RecordingTaskInstance()
    assert event_of(trigger)["status"] == "error"
    assert time.time() - deferred >= 0.49  # the two clocks do not go quite alike


def test_where_there_is_no_scheduler_no_event_waits_for_it(monkeypatch, done):
    """As in ``dag.test()``."""
    set_policy(monkeypatch, settling=1000.0)
    assert event_of(make_trigger(done, deferred=time.time()))["status"] == "finished"
