"""Steps of the wall clock, as by NTP or a resumed machine, while jobs are waited for and while polls are under way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_modelslab._polling.clock import DEFAULT_PACING, SystemClock
from airflow_provider_modelslab.exceptions import ModelsLabTimeout
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger
from tests.support.pacing import SimulatedClock, simulated
from tests.support.raw_server import RawServer, reply
from tests.support.simulated_loop import run_simulated
from tests.support.tasks import RecordingTaskInstance, deferral_of
from tests.support.transport_faults import job_id_of
from tests.support.triggers import aevent_of, event_of, make_trigger

STEPS = [-7200.0, -20.0, 20.0, 7200.0]
TIMEOUT = 3600.0


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    with RawServer() as raw_server:
        yield raw_server


@pytest.fixture(autouse=True)
def connection(server: RawServer, no_key_from_outside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", server.connection)


class SteppingClock(SimulatedClock):
    """
    A clock whose wall time is set again and again.

    :param steps: seconds of true time from the step before, whether a poll is under way then, and how far it is set.
    """

    def __init__(self, steps: list[tuple[float, bool, float]]) -> None:
        super().__init__()
        self.began = self.monotonic()
        self._steps = list(steps)
        self._stepped = self.began

    def move(self, seconds: float) -> None:
        super().move(seconds)
        self.step(under_way=False)

    def step(self, under_way: bool) -> None:
        while self._steps and self._steps[0][1] == under_way and self.passed >= self._stepped + self._steps[0][0]:
            self._stepped = self.passed
            self.time += self._steps.pop(0)[2]


class World:
    """What ModelsLab knows of jobs that end after so many true seconds, and when it was asked."""

    def __init__(self, clock: SteppingClock, durations: list[float]) -> None:
        self.clock = clock
        self.ready = {str(number): clock.monotonic() + seconds for number, seconds in enumerate(durations)}
        self.polls: dict[str, list[float]] = {job_id: [] for job_id in self.ready}

    def answer(self, request: bytes) -> bytes:
        job_id, now = job_id_of(request), self.clock.monotonic()
        self.polls[job_id].append(now)
        self.clock.step(under_way=True)
        done = {"status": "success", "output": [f"https://cdn/{job_id}"]}
        return reply(done if now >= self.ready[job_id] else {"status": "processing", "eta": 60})

    def check(self) -> None:
        """Every job was found done once, and its polls never stopped for more than a minute of true time."""
        for job_id, moments in self.polls.items():
            assert [moment >= self.ready[job_id] for moment in moments].count(True) == 1
            assert all(later - earlier <= 60 for earlier, later in pairwise([self.clock.began, *moments]))


steps = st.lists(st.tuples(st.floats(0, 200), st.booleans(), st.sampled_from(STEPS)), max_size=8)
durations = st.lists(st.floats(0, 1200), min_size=1, max_size=3)
EACH_STEP = [(10.0, under_way, step) for under_way in (False, True) for step in STEPS]


@settings(max_examples=20)
@given(steps, st.floats(0, 1200))
@example(EACH_STEP, 600.0)
def test_a_worker_waits_through_any_steps(server: RawServer, steps, duration):
    clock = SteppingClock(steps)
    world = World(clock, [duration])
    server.answer_to = world.answer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelsLabHook, "pacing", simulated(clock))
        assert ModelsLabHook().wait(0, "v6/video", timeout=TIMEOUT).outputs == ["https://cdn/0"]
    world.check()


@settings(max_examples=20)
@given(steps)
@example(EACH_STEP)
def test_a_worker_gives_up_when_its_time_is_over_whatever_the_steps(server: RawServer, steps):
    clock = SteppingClock(steps)
    server.answer_to = World(clock, [1e9]).answer
    with pytest.MonkeyPatch.context() as patch, suppress(ModelsLabTimeout):
        patch.setattr(ModelsLabHook, "pacing", simulated(clock))
        ModelsLabHook().wait(0, "v6/video", timeout=TIMEOUT)
    assert clock.monotonic() - clock.began == pytest.approx(TIMEOUT)


@pytest.mark.parametrize("timeout", [300.0, TIMEOUT])
def test_an_operator_on_its_worker_waits_through_any_steps(server: RawServer, monkeypatch, timeout):
    """Its job takes ten minutes; the time that it has is over after five, or after an hour."""
    clock = SteppingClock(EACH_STEP)
    world = World(clock, [600.0])
    submitted = reply({"status": "processing", "id": 0, "eta": 60})
    server.answer_to = lambda request: world.answer(request) if b"/fetch/" in request else submitted
    monkeypatch.setattr(ModelsLabHook, "pacing", simulated(clock))
    operator = ModelsLabGenerateOperator(
        task_id="t", endpoint="v6/images/text2img", payload={"prompt": "a fox"}, deferrable=False, timeout=timeout
    )
    if timeout == TIMEOUT:
        assert operator.execute({"ti": RecordingTaskInstance()}) == ["https://cdn/0"]
        world.check()
        return
    with pytest.raises(ModelsLabTimeout):
        operator.execute({"ti": RecordingTaskInstance()})
    assert clock.monotonic() - clock.began == pytest.approx(timeout)


def simulated_event(clock: SteppingClock, trigger: ModelsLabJobTrigger) -> dict:
    """Run a trigger on simulated time."""
    trigger.pacing = simulated(clock)  # type: ignore[misc]
    return run_simulated(clock, aevent_of(trigger))


def trigger_of(clock: SteppingClock, count: int) -> ModelsLabJobTrigger:
    jobs = [{"id": str(number), "endpoint": "v6/video", "submitted": clock.wall()} for number in range(count)]
    now = clock.wall()
    return make_trigger(jobs, started=now, deadline=now + TIMEOUT, poke_interval=None)


@settings(max_examples=20)
@given(steps, durations)
@example(EACH_STEP, [5.0, 600.0, 1200.0])
def test_a_trigger_waits_through_any_steps(server: RawServer, steps, durations):
    clock = SteppingClock(steps)
    world = World(clock, durations)
    server.answer_to = world.answer
    event = simulated_event(clock, trigger_of(clock, len(durations)))
    assert event["status"] == "finished"
    assert [job["outputs"] for job in event["jobs"]] == [[f"https://cdn/{job_id}"] for job_id in world.ready]
    world.check()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("under_way", [False, True])
def test_a_trigger_gives_up_when_its_time_is_over(server: RawServer, step, under_way):
    clock = SteppingClock([(5.0, under_way, step)])
    server.answer_to = World(clock, [1e9]).answer
    assert simulated_event(clock, trigger_of(clock, 1))["status"] == "timeout"
    assert clock.monotonic() - clock.began == pytest.approx(TIMEOUT, abs=1)


# --- steps between processes, which only the wall clock joins ---


def test_a_clock_set_back_before_the_trigger_starts_does_not_prolong_the_wait(server: RawServer):
    clock = SteppingClock([])
    server.answer_to = World(clock, [1e9]).answer
    trigger = trigger_of(clock, 1)
    clock.time -= 7200
    assert simulated_event(clock, trigger)["status"] == "timeout"
    assert clock.monotonic() - clock.began == pytest.approx(TIMEOUT, abs=1)


def test_a_clock_set_forward_before_the_trigger_starts_loses_no_job_that_is_done(server: RawServer):
    """As when a virtual machine was away for two hours."""
    clock = SteppingClock([])
    world = World(clock, [0.0, 0.0, 0.0])
    server.answer_to = world.answer
    trigger = trigger_of(clock, 3)
    clock.time += 7200
    assert simulated_event(clock, trigger)["status"] == "finished"


def test_however_many_jobs_a_late_trigger_has_each_is_polled_once_more(server: RawServer, monkeypatch):
    connection = json.loads(server.connection)
    connection["extra"] = {"requests_per_second": 5}
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    clock = SteppingClock([])
    server.answer_to = World(clock, [0.0] * 60).answer
    trigger = trigger_of(clock, 60)
    clock.time += 7200
    assert simulated_event(clock, trigger)["status"] == "finished"


@pytest.mark.parametrize("step", STEPS)
def test_a_step_during_the_first_poll_of_a_sensor_does_not_move_its_deadline(server: RawServer, monkeypatch, step):
    clock = SteppingClock([(0.0, True, step)])
    server.answer_to = World(clock, [1e9]).answer
    monkeypatch.setattr(ModelsLabHook, "pacing", simulated(clock))
    sensor = ModelsLabJobSensor(task_id="t", jobs=0, endpoint="v6/video", deferrable=True, timeout=TIMEOUT)
    trigger = deferral_of(sensor, {"ti": RecordingTaskInstance()}).trigger
    assert trigger.deadline - clock.wall() == pytest.approx(TIMEOUT)
    assert trigger.deadline - trigger.started == pytest.approx(TIMEOUT)


# --- on the clock of this machine ---


class SetClock(SystemClock):
    """The clock of this machine, whose wall time a test sets."""

    def __init__(self) -> None:
        self.offset = 0.0

    def wall(self) -> float:
        return time.time() + self.offset


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("under_way", [False, True])
@pytest.mark.parametrize("way", ["hook", "trigger"])
def test_a_step_on_the_clock_of_this_machine(server: RawServer, monkeypatch, way, step, under_way):
    """The clock is set at the second of four polls: while it is under way, or once its reply has been sent."""
    clock = SetClock()
    pacing = replace(DEFAULT_PACING, clock=clock)
    polls = []

    def answer(request: bytes) -> bytes:
        polls.append(request)
        if len(polls) == (2 if under_way else 3):
            clock.offset = step
        return reply(
            {"status": "success", "output": ["https://cdn/0"]} if len(polls) == 4 else {"status": "processing"}
        )

    server.answer_to = answer
    if way == "hook":
        monkeypatch.setattr(ModelsLabHook, "pacing", pacing)
        assert ModelsLabHook().wait(0, "v6/video", poke_interval=0.05).status == "success"
    else:
        trigger = make_trigger([{"id": "0", "endpoint": "v6/video"}], poke_interval=0.05)
        trigger.pacing = pacing  # type: ignore[misc]
        assert event_of(trigger)["status"] == "finished"
    assert len(polls) == 4
