"""
Whatever dies and whenever, nothing is paid for that the table of docs/durability.md does not allow, and no id is lost.

The operator, the ledger and its stores are the real ones. ModelsLab is a count of what was accepted; time is simulated.
Every call of a store, every submission and every poll is a place where the worker may die, or the store may fail. Once
it is dead, nothing that the code still does has an effect.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    TaskDeferred,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from airflow_provider_modelslab._ledger.stores import FolderStore
from airflow_provider_modelslab._polling.worker_poller import WorkerPoller
from airflow_provider_modelslab._protocol.replies import Reply
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab._tasks.events import job_records, write_event
from airflow_provider_modelslab._tasks.ledgers import STATE_IS_EMPTIED_BY_A_CLEAR
from airflow_provider_modelslab.exceptions import (
    ModelsLabAmbiguousSubmission,
    ModelsLabJobFailed,
    ModelsLabLedgerError,
    ModelsLabRateLimited,
    ModelsLabRequestError,
)
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from tests.support.pacing import SimulatedClock, simulated
from tests.support.tasks import RecordingTaskInstance, StateStore

PATH = "v6/images/text2img"

ITEMS = {
    "owl": {"prompt": "an owl", "track_id": "owl"},
    # The same payload twice: two jobs. What the count tells them apart by is no part of it.
    "hare": {"prompt": "a hare", "track_id": "hare"},
    "twin": {"prompt": "a hare", "track_id": "twin"},
}

CONNECTION = json.dumps({"conn_type": "modelslab", "password": "the-key-of-this-test"})


class Killed(BaseException):
    """The worker has died: nothing that would still run in it runs."""


@dataclass
class Generation:
    """One job that ModelsLab has accepted."""

    id: str
    series: int
    status: str = "processing"
    named: bool = False
    told_in: int | None = None
    was_returned: bool = False


@dataclass
class World:
    """What outlives workers: ModelsLab's jobs, and what may be said of them."""

    ids_on_paper: Callable[[], set[str]]
    series: int = 0
    generations: dict[str, list[Generation]] = field(default_factory=lambda: {name: [] for name in ITEMS})
    regenerates: bool = False
    forgets_at_clears: bool = False
    # Of the try that runs.
    calls: int = 0
    faults: dict[int, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    dead: bool = False

    def begin(self, faults: dict[int, str], answers: list[str]) -> None:
        self.calls, self.faults, self.answers, self.dead = 0, dict(faults), list(answers), False

    def step(self) -> str:
        """Count a call, and return the fault that it meets."""
        if self.dead:
            raise Killed
        self.calls += 1
        return self.faults.get(self.calls, "")

    def die(self) -> None:
        self.dead = True
        raise Killed

    def jobs(self) -> dict[str, Generation]:
        return {each.id: each for generations in self.generations.values() for each in generations}

    # --- what the table allows ---

    def may_pay(self, item: str) -> bool:
        """Whether one more submission of an item is allowed now."""
        if not self.generations[item]:
            return True
        last = self.generations[item][-1]
        is_cleared = self.series > last.series
        if last.status == "forgotten":
            return True
        if not is_cleared:
            return False
        if self.forgets_at_clears:
            return True
        if last.status == "failed":
            return True
        if last.id not in self.ids_on_paper():
            return last.told_in is not None and self.series > last.told_in
        return self.regenerates and last.was_returned

    def accept(self, item: str) -> Generation:
        assert self.may_pay(item), f"{item} is paid for again: {self.generations[item]}, series {self.series}"
        number = 1 + len(self.jobs())
        generation = Generation(str(number), self.series)
        self.generations[item].append(generation)
        return generation

    def told(self, item: str) -> None:
        """The user reads that it may have been billed."""
        for last in self.generations[item][-1:]:
            if last.told_in is None:
                last.told_in = self.series

    def returned(self, item: str) -> None:
        for each in self.generations[item]:
            each.was_returned = True


class ModelsLab:
    """Stands where the hook's requests would leave."""

    def __init__(self, world: World) -> None:
        self.world = world

    def submit(self, hook: Any, path: str, payload: Any, queue_timeout: float = 0, name: str = "") -> Job:
        world, item = self.world, payload["track_id"]
        fault = world.step()
        if fault == "dies before":
            world.die()
        answer = world.answers.pop(0) if world.answers else "accepted"
        if answer == "queue full":
            raise ModelsLabRateLimited("Try again later", retry_after=30)
        if answer == "refused":
            raise ModelsLabRequestError("Correct the prompt")
        if answer == "not even sent":
            raise ModelsLabAmbiguousSubmission("This may have been billed")
        generation = world.accept(item)
        if fault == "dies after":
            world.die()
        if answer == "no reply":
            raise ModelsLabAmbiguousSubmission("This may have been billed")
        if answer == "fails at once":
            generation.status = "failed"
            raise ModelsLabJobFailed("No GPU left")
        # Between the reply and the ledger, the hook's log line alone has the id.
        generation.named = world.faults.get(world.calls + 1) != "dies before"
        if answer == "done at once":
            generation.status = "success"
            return Job(generation.id, "v6/images", "success", [f"https://cdn/{generation.id}.png"])
        return Job(generation.id, "v6/images", submitted=hook.pacing.clock.wall())

    def poll_many(self, jobs: Any) -> list[Reply]:
        if self.world.step() in ("dies before", "dies after"):
            self.world.die()
        return list(map(self.poll, jobs))

    def poll(self, job: Job) -> Reply:
        status = self.world.jobs()[job.id].status
        if status == "forgotten":
            return Reply(Verdict.NOT_FOUND, job)
        if status == "failed":
            return Reply(Verdict.FAILED, job.failed("No GPU left"))
        if status == "success":
            done = Job.from_dict({**job.to_dict(), "status": "success", "outputs": [f"https://cdn/{job.id}.png"]})
            return Reply(Verdict.SUCCESS, done)
        return Reply(Verdict.PROCESSING, job)


def breaking(world: World, call: Callable[..., Any], *, is_write: bool) -> Callable[..., Any]:
    """Return a store's method that meets the faults."""

    def broken(store: Any, *arguments: Any) -> Any:
        fault = world.step()
        if fault == "dies before":
            world.die()
        if fault == "fails before":
            raise ModelsLabLedgerError("the store does not work")
        result = call(store, *arguments)
        if is_write:
            note_what_is_told(world, arguments)
        if fault == "leaves half a file" and call.__name__ == "create" and isinstance(store, FolderStore):
            Path(store.path, arguments[0]).write_bytes(b"")
            world.die()
        if fault in ("dies after", "leaves half a file"):
            world.die()
        if fault == "fails after":
            raise ModelsLabLedgerError("the store does not work")
        return result

    return broken


def note_what_is_told(world: World, arguments: tuple[Any, ...]) -> None:
    """A receipt that says so is written when the user is told."""
    for records in arguments:
        for record in records.values() if isinstance(records, dict) else ():
            state = record.get("state") if isinstance(record, dict) else None
            items = [record["item"]] if state and record["item"] else ITEMS  # Half a file has lost the item's name.
            for item in items if state in ("in_doubt", "succeeded") else ():
                if state == "in_doubt":
                    world.told(item)
                else:
                    world.returned(item)


FAULTS = ["dies before", "dies after", "fails before", "fails after", "leaves half a file"]

ANSWERS = ["accepted", "done at once", "no reply", "not even sent", "queue full", "refused", "fails at once"]

faults: st.SearchStrategy[dict[int, str]] = st.just({}) | st.dictionaries(
    st.integers(1, 16), st.sampled_from(FAULTS), min_size=1, max_size=3
)

answers = st.lists(st.sampled_from(ANSWERS), min_size=3, max_size=5)


class PayingOnce(RuleBasedStateMachine):
    """One task, from its first try on."""

    folder = True
    """Whether the ledger is in a folder; else in Airflow's task state store."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.home = TemporaryDirectory()
        self.world = World(self.ids_on_paper)
        self.clock = SimulatedClock(wall=1_800_000_000.0)
        self.state = StateStore()
        self.tries = 0
        self.cleared_at = 0
        self.may_retry = True
        self.deferrable = False
        self.parked: tuple[RecordingTaskInstance, Any] | None = None
        self.written: set[str] = set()
        self.lines: list[str] = []
        self.lab = lab = ModelsLab(self.world)
        self.patches.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", CONNECTION)
        self.patches.setattr(ModelsLabHook, "pacing", simulated(self.clock))
        self.patches.setattr(ModelsLabHook, "submit", lambda hook, *a, **k: lab.submit(hook, *a, **k))
        self.patches.setattr(WorkerPoller, "poll_many", lambda poller, jobs, end: lab.poll_many(jobs))
        for kind, names in {FolderStore: ("read_folder", "read", "create", "write", "delete")}.items():
            for name in names:
                method = breaking(self.world, getattr(kind, name), is_write=name in ("create", "write"))
                self.patches.setattr(kind, name, method)
        logger = logging.getLogger("paying_once")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.handlers = [_Lines(self.lines)]
        self.patches.setattr(ModelsLabGenerateOperator, "log", logger)
        self.patches.setattr(ModelsLabHook, "log", logger)

    def teardown(self) -> None:
        try:
            self.ends_well()
        finally:
            self.patches.undo()
            self.home.cleanup()

    @initialize(regenerates=st.booleans(), deferrable=st.booleans())
    def begin(self, regenerates: bool, deferrable: bool) -> None:
        self.world.regenerates = regenerates
        self.deferrable = deferrable
        self.world.forgets_at_clears = not self.folder and STATE_IS_EMPTIED_BY_A_CLEAR

    # --- what happens to a task ---

    @precondition(lambda self: self.may_retry)
    @rule(faults=faults, answers=answers)
    def try_it(self, faults: dict[int, str], answers: list[str]) -> None:
        """The first try, or Airflow's own retry."""
        self.run(faults, answers)

    @precondition(lambda self: self.parked)
    @rule(faults=faults, answers=answers)
    def resume(self, faults: dict[int, str], answers: list[str]) -> None:
        """The trigger has ended, and another worker goes on."""
        assert self.parked
        ti, trigger = self.parked
        given = map(Job.from_dict, trigger["jobs"])
        jobs = [job if job.finished else self.lab.poll(job).job for job in given]
        unfinished = sum(not job.finished for job in jobs)
        over = "timeout" if unfinished else "finished"
        status = over if unfinished > (trigger["max_pending"] or 0) or not unfinished else "partial"
        event = write_event(status, job_records(jobs), trigger["state"])
        self.work(ti, faults, answers, lambda operator, context: operator.execute_complete(context, event))

    @precondition(lambda self: self.tries > 0)
    @rule(faults=faults, answers=answers)
    def clear(self, faults: dict[int, str], answers: list[str]) -> None:
        self.world.series += 1
        self.cleared_at = self.tries
        if self.world.forgets_at_clears:
            self.state = StateStore()
            self.written.clear()
        self.run(faults, answers)

    @rule(choice=st.integers(0, 5), status=st.sampled_from(["success", "failed", "forgotten"]))
    def a_job_ends(self, choice: int, status: str) -> None:
        running = [each for each in self.world.jobs().values() if each.status == "processing"]
        if running:
            running[choice % len(running)].status = status

    # --- how it is done ---

    def run(self, faults: dict[int, str], answers: list[str]) -> Any:
        self.tries += 1
        ti = RecordingTaskInstance()
        ti.try_number, ti.max_tries = self.tries, self.cleared_at + 3
        return self.work(ti, faults, answers, lambda operator, context: operator.execute(context))

    def work(
        self,
        ti: RecordingTaskInstance,
        faults: dict[int, str],
        answers: list[str],
        step: Callable[[ModelsLabGenerateOperator, Any], Any],
    ) -> Any:
        """Let a worker of its own do a step of a try, as far as it comes."""
        self.world.begin(faults, answers)
        self.parked = None
        push = type(ti).xcom_push

        def xcom_push(key: str, value: object) -> None:
            self.world.step()
            push(ti, key, value)

        ti.xcom_push = xcom_push  # type: ignore[method-assign]
        context: Any = {"ti": ti} if self.folder else {"ti": ti, "task_state_store": BreakingState(self)}
        before = set(self.world.jobs())
        self.lines.clear()
        result = None
        try:
            result = step(self.operator(), context)
            self.may_retry = False
            for item in ITEMS:
                self.world.returned(item)
        except TaskDeferred as deferred:
            self.may_retry = False
            self.parked = ti, json.loads(json.dumps(deferred.trigger.serialize()[1]))
        except Killed:
            self.may_retry = True
        except (AirflowFailException, AirflowSensorTimeout) as error:
            self.may_retry = False
            if "may have been billed" in str(error):
                self.tell()
        except AirflowException:
            self.may_retry = True
        self.check_ids(set(self.world.jobs()) - before, ti)
        return result

    def operator(self) -> ModelsLabGenerateOperator:
        return ModelsLabGenerateOperator(
            task_id="task",
            endpoint=PATH,
            payloads=ITEMS,
            deferrable=self.deferrable,
            timeout=600,
            poke_interval=60,
            ledger_path=self.home.name if self.folder else None,
            on_clear="regenerate" if self.world.regenerates else "reuse",
        )

    def tell(self) -> None:
        for item in ITEMS:
            self.world.told(item)

    def ids_on_paper(self) -> set[str]:
        if self.folder:
            records = [json.loads(file.read_bytes() or b"{}") for file in Path(self.home.name).rglob("*.json")]
        else:
            parts = [json.loads(text) for text in self.state.texts.values()]
            records = [record for part in parts for record in part.values()]
        return {record["job"]["id"] for record in records if record.get("job") and "id" in record["job"]}

    def check_ids(self, new: set[str], ti: RecordingTaskInstance) -> None:
        """No id that a reply has named is lost, and none that is written vanishes."""
        on_paper = self.ids_on_paper()
        assert self.written <= on_paper
        self.written |= on_paper
        told = {record["id"] for record in ti.xcoms.get("jobs", [])}
        logged = " ".join(self.lines)
        for item, generations in self.world.generations.items():
            for each in generations:
                if each.id in new and each.named:
                    assert each.id in on_paper | told or f"v6/images:{each.id}" in logged, (item, each)

    def ends_well(self) -> None:
        """With everything working again, and every doubt told, some clears bring the task to a good end."""
        if not self.tries:
            return
        result = None
        for _ in range(4):
            for each in self.world.jobs().values():
                if each.status == "processing":
                    each.status = "success"
            self.world.series += 1
            self.cleared_at = self.tries
            if self.world.forgets_at_clears:
                self.state = StateStore()
                self.written.clear()
            self.deferrable = False
            result = self.run({}, ["done at once"] * 9)
            if result is not None:
                break
        assert result == [f"https://cdn/{self.world.generations[item][-1].id}.png" for item in ITEMS]


class BreakingState:
    """Airflow's task state store, which meets the faults, too."""

    def __init__(self, machine: PayingOnce) -> None:
        self.machine = machine

    def get(self, key: str) -> Any:
        return self._meet(lambda: self.machine.state.get(key))

    def set(self, key: str, value: Any) -> None:
        def keep() -> None:
            self.machine.state.set(key, value)
            note_what_is_told(self.machine.world, (value,))

        self._meet(keep)

    def _meet(self, call: Callable[[], Any]) -> Any:
        world = self.machine.world
        fault = world.step()
        if fault == "dies before":
            world.die()
        if fault == "fails before":
            raise RuntimeError("the API does not answer")
        result = call()
        if fault in ("dies after", "leaves half a file"):
            world.die()
        if fault == "fails after":
            raise RuntimeError("the API does not answer")
        return result


class PayingOnceWithTaskState(PayingOnce):
    folder = False


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


LIMITS = settings(max_examples=settings().max_examples // 4, stateful_step_count=10, deadline=None)


def test_with_a_ledger_nothing_is_paid_for_that_the_table_does_not_allow():
    run_state_machine_as_test(PayingOnce, settings=LIMITS)


def test_with_task_states_nothing_is_paid_for_that_the_table_does_not_allow():
    run_state_machine_as_test(PayingOnceWithTaskState, settings=LIMITS)
