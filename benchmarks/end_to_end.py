"""
What waiting costs in a real Airflow: scheduler, triggerer, api-server and dag-processor on PostgreSQL, LocalExecutor.

The same jobs, submitted beforehand to a sandbox in its own process, are waited for in different ways: one sensor of
ours for all, one of ours for each, and what people do without this provider. Every process of a waiting task is
measured by its supervisor, every request by the sandbox; see ``README.md`` of this folder.

    python benchmarks/end_to_end.py             # the table; takes 50 minutes
    python benchmarks/end_to_end.py floor:1 one_sensor:500
    python benchmarks/end_to_end.py --payload   # what 1,000 jobs leave in the metadata database
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

BENCHMARKS = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCHMARKS.parent / "dev"))

from airflow_instance import AirflowInstance  # noqa: E402
from measured_executor import FILE_VARIABLE  # noqa: E402
from postgres import Postgres  # noqa: E402
from sandbox_process import SandboxProcess, Submitted  # noqa: E402

from airflow_provider_modelslab._polling.clock import DEFAULT_PACING  # noqa: E402
from airflow_provider_modelslab._polling.schedule import DurationModel  # noqa: E402
from airflow_provider_modelslab._polling.waits import JobWaits  # noqa: E402
from airflow_provider_modelslab._protocol.replies import Reply, Verdict  # noqa: E402
from airflow_provider_modelslab.jobs import Job  # noqa: E402

DAGS = BENCHMARKS / "end_to_end_dags"

WORKERS = 16

#: Connections: as it comes, and with a ceiling on requests that 500 jobs at a time do not reach.
DEFAULT, UNHURRIED = "modelslab_default", "modelslab_unhurried"

#: What is measured, in this order, unless told otherwise.
RUNS = (
    "floor:1 one_sensor:50 sensor_each:50 requests_loop:50 vendor_client:50 http_sensor:50 "
    "one_sensor:500 one_sensor:500:unhurried sensor_each:500:unhurried requests_loop:500 vendor_client:500 "
    "http_sensor:500 floor:1"
)

TITLES = {
    "floor": "an empty deferrable sensor",
    "one_sensor": "**one `ModelsLabJobSensor` for all**",
    "sensor_each": "**a `ModelsLabJobSensor` for each**, mapped",
    "requests_loop": "`@task`, `requests`, sleep 5 s",
    "vendor_client": "`@task`, modelslab-py",
    "http_sensor": "`HttpSensor`, reschedule, 15 s",
}

COLUMNS = (
    "waiting by",
    "jobs",
    "worker processes",
    "worker-slot s",
    "worker CPU s: tasks",
    "… with supervisors",
    "all of Airflow CPU s",
    "… above idling",
    "ready → noticed s, mean",
    "95 %",
    "the schedule's own",
    "last ready → next task s",
    "last noticed → next task s",
    "requests a job",
    "whole run s",
    "load",
)

RUN_TIMEOUT = 1800.0

IDLE_SECONDS = 20.0


@dataclass(frozen=True)
class Plan:
    """
    One line of the table.

    :param dag_id: which DAG of ``end_to_end_dags``.
    :param jobs: how many jobs.
    :param unhurried: without the connection's default ceiling of ten requests a second.
    """

    dag_id: str
    jobs: int
    unhurried: bool = False

    @classmethod
    def parse(cls, text: str) -> Plan:
        dag_id, jobs, *unhurried = text.split(":")
        if dag_id not in TITLES or unhurried not in ([], ["unhurried"]):
            raise ValueError(text)
        return cls(dag_id, int(jobs), bool(unhurried))

    @property
    def title(self) -> str:
        return f"{TITLES[self.dag_id]}, 100 requests/s" if self.unhurried else TITLES[self.dag_id]


class Laboratory:
    """
    An Airflow and a ModelsLab to measure with.

    :param airflow: the Airflow.
    :param modelslab: the sandbox.
    :param files: a folder for what is exchanged with them.
    """

    def __init__(self, airflow: AirflowInstance, modelslab: SandboxProcess, files: Path) -> None:
        self.airflow = airflow
        self.modelslab = modelslab
        self._jobs_file = files / "jobs.json"
        self._workers_file = files / "workers"

    def start(self, plan: Plan) -> str:
        """Submit the jobs and start a run that waits for them; return its id."""
        self.airflow.unpause(plan.dag_id)
        submitted = self.modelslab.submit(plan.jobs)
        self._jobs_file.write_text(json.dumps([job.record() for job in submitted]))
        conn_id = UNHURRIED if plan.unhurried else DEFAULT
        return self.airflow.trigger(plan.dag_id, {"jobs": str(self._jobs_file), "conn_id": conn_id})

    def cpu(self) -> float:
        """Return the CPU seconds of all of Airflow's processes until now, ended ones included."""
        return sum(
            sum(psutil.Process(pid).cpu_times()[:4])  # its own, and that of its children that have ended
            for component in self.airflow.components
            for pid in self.airflow.pids(component)
            if psutil.pid_exists(pid)
        )

    def warm_up(self) -> None:
        """Let every worker run a task: the first one takes longer than all others."""
        self.airflow.wait_for_run("warm_up", self.airflow.trigger("warm_up"), RUN_TIMEOUT)

    def idle_cpu(self) -> float:
        """Return the CPU seconds that Airflow takes for each second in which nothing is to be done."""
        before = self.cpu()
        time.sleep(IDLE_SECONDS)
        return (self.cpu() - before) / IDLE_SECONDS

    def measure(self, plan: Plan, idle_cpu: float) -> list[str]:
        """Let a run go from start to end; return its line of the table."""
        began, cpu = time.time(), self.cpu()
        run_id = self.start(plan)
        if (state := self.airflow.wait_for_run(plan.dag_id, run_id, RUN_TIMEOUT)) != "success":
            return [plan.title, str(plan.jobs), state, *self._complaints(plan, run_id)]
        # A worker that has reported the success of its task has yet to notice its end.
        self.airflow.wait_until(lambda: self._have_ended(run_id), 60, "the workers have not ended")
        lasted, cpu = time.time() - began, self.cpu() - cpu
        workers = [worker["measured"] for worker in self._workers(run_id) if worker["task_id"] == "wait"]
        workers = [measured for measured in workers if measured]
        slot, task_cpu, supervisor_cpu = (
            sum(worker[name] for worker in workers) for name in ("slot", "task_cpu", "supervisor_cpu")
        )
        return [
            plan.title,
            str(plan.jobs) if plan.dag_id != "floor" else "–",
            str(len(workers)),
            f"{slot:.1f}",
            f"{task_cpu:.2f}",
            f"{task_cpu + supervisor_cpu:.2f}",
            f"{cpu:.1f}",
            f"{cpu - idle_cpu * lasted:.1f}",
            *self._moments(plan, run_id),
            f"{lasted:.0f}",
            f"{os.getloadavg()[1]:.1f}",
        ]

    def _complaints(self, plan: Plan, run_id: str) -> list[str]:
        """Return the end of the log of the first task that failed: a machine too busy for Airflow shows there."""
        failed = [task for task in self.airflow.task_instances(plan.dag_id, run_id) if task["state"] == "failed"]
        where = failed[0]["task_id"], failed[0]["try_number"], failed[0]["map_index"]
        log = self.airflow.task_log(plan.dag_id, run_id, *where)
        return [f"{len(failed)} tasks failed: {' '.join(log.split())[-500:]}"]

    def _moments(self, plan: Plan, run_id: str) -> list[str]:
        jobs = self.modelslab.seen()
        if plan.dag_id == "floor":
            return ["–"] * 6
        latencies = [job.noticed - job.ready for job in jobs]
        next_task = _epoch(self.airflow.task_instance(plan.dag_id, run_id, "used")["start_date"])
        own = f"{schedule_alone(jobs):.1f}" if plan.dag_id in ("one_sensor", "sensor_each") else "–"
        return [
            f"{fmean(latencies):.1f}",
            f"{sorted(latencies)[math.ceil(0.95 * len(latencies)) - 1]:.1f}",
            own,
            f"{next_task - max(job.ready for job in jobs):.1f}",
            f"{next_task - max(job.noticed for job in jobs):.1f}",
            f"{fmean(len(job.polls) for job in jobs):.1f}",
        ]

    def _workers(self, run_id: str) -> list[dict[str, Any]]:
        lines = self._workers_file.read_text().splitlines() if self._workers_file.exists() else []
        return [worker for worker in map(json.loads, lines) if worker["run_id"] == run_id]

    def _have_ended(self, run_id: str) -> bool:
        """Whether the last task has begun, and as many workers have ended as have begun."""
        workers = self._workers(run_id)
        ended = sum(bool(worker["measured"]) for worker in workers)
        return any(worker["task_id"] == "used" for worker in workers) and ended == len(workers) - ended


@contextmanager
def laboratory(**sandbox: Any) -> Iterator[Laboratory]:
    """Start everything, and end it."""
    with (
        tempfile.TemporaryDirectory(prefix="end-to-end-") as folder,
        SandboxProcess(**sandbox) as modelslab,
        Postgres() as postgres,
    ):
        files = Path(folder)
        connection = {"conn_type": "modelslab", "host": modelslab.url, "password": modelslab.key}
        http = {"conn_type": "http", "host": modelslab.url}
        env = {
            "AIRFLOW__CORE__EXECUTOR": "measured_executor.MeasuredLocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(WORKERS),
            # Otherwise only files with the word "dag" in them are parsed.
            "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "False",
            # A busy machine is neither a dead worker nor a broken DAG.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "120",
            "AIRFLOW_CONN_MODELSLAB_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_MODELSLAB_UNHURRIED": json.dumps({**connection, "extra": {"requests_per_second": 100}}),
            "AIRFLOW_CONN_MODELSLAB_HTTP": json.dumps(http),
            "BENCHMARK_MODELSLAB_URL": modelslab.url,
            "BENCHMARK_MODELSLAB_KEY": modelslab.key,
            FILE_VARIABLE: str(files / "workers"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")])),
        }
        with AirflowInstance(files / "airflow", DAGS, env, database=postgres.url) as airflow:
            yield Laboratory(airflow, modelslab, files)


def schedule_alone(jobs: Sequence[Submitted], repetitions: int = 20) -> float:
    """
    Return the mean seconds from ready to noticed that the schedule itself leads to, were everything else free.

    The provider's own waits are played through: replies come at once, and any number of requests may leave together.
    """
    started = min(poll for job in jobs for poll in job.polls)
    return fmean(_play(jobs, started) for _ in range(repetitions))


@dataclass
class _PlayedClock:
    """A clock that shows what it is set to."""

    now: float

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def _play(jobs: Sequence[Submitted], started: float) -> float:
    ready = {job.id: job.ready for job in jobs}
    durations = DurationModel()
    clock = _PlayedClock(started)
    waits = JobWaits(
        [Job(**job.record()) for job in jobs],
        replace(DEFAULT_PACING, clock=clock),
        durations=defaultdict(lambda: durations),
    ).unfinished()
    latencies = []
    # What is done already is found by the sensor's first poll; the rest is the trigger's.
    queue = [(started if ready[wait.job.id] <= started else wait.due, wait.job.id, wait) for wait in waits]
    heapq.heapify(queue)
    while queue:
        now, job_id, wait = heapq.heappop(queue)
        clock.now = now
        if now < ready[job_id]:
            wait.take(Reply(Verdict.PROCESSING, wait.job))
            heapq.heappush(queue, (wait.due, job_id, wait))
            continue
        wait.take(Reply(Verdict.SUCCESS, replace(wait.job, status="success")))
        latencies.append(now - ready[job_id])
        if wait.duration is not None:
            durations.observe(wait.first_eta, wait.duration)
    return fmean(latencies)


def compare(plans: Sequence[Plan], median: float) -> None:
    """Print the table."""
    sandbox = {"duration": median, "duration_sigma": 0.5, "eta_sigma": 0.3, "queue_limit": None, "seed": 1}
    with laboratory(**sandbox) as here:
        here.warm_up()
        idle = here.idle_cpu()
        _say(
            f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores, Python {sys.version.split()[0]}; {WORKERS} worker "
            f"slots; jobs of {median:g} s (median; log-normal, 0.5), ETAs within a factor of e^0.3. An idle "
            f"Airflow takes {idle:.2f} CPU s a second.\n"
        )
        _say(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for plan in plans:
            _say(f"| {' | '.join(here.measure(plan, idle))} |")


def weigh(count: int) -> None:
    """Print what a wait for many jobs adds to the metadata database, while it lasts and when it is over."""
    with laboratory(duration=float("inf"), queue_limit=None) as here:
        here.airflow.wait_for_dag("one_sensor")
        before = _stored(here.airflow)
        run_id = here.start(Plan("one_sensor", count, unhurried=True))
        here.airflow.wait_for_state("one_sensor", run_id, "wait", "deferred", timeout=RUN_TIMEOUT)
        waiting = _stored(here.airflow)
        here.modelslab.finish_all()
        resuming = here.airflow.wait_until(lambda: _event(here.airflow), RUN_TIMEOUT, "no event came")
        here.airflow.wait_for_run("one_sensor", run_id, RUN_TIMEOUT)
        after = _stored(here.airflow)
    _say(f"Bytes that a wait for {count} jobs adds to the metadata database, without the upstream task's own XCom.\n")
    _say("| where | while it waits | when it is over |\n|---|---|---|")
    rows = {place: (waiting[place] - before[place], after[place] - before[place]) for place in {*waiting, *after}}
    for place, sizes in sorted(rows.items(), key=lambda row: -max(row[1])):
        if max(sizes) >= 1000:
            _say(f"| `{place}` | {sizes[0]:,} | {sizes[1]:,} |")
    sums = [sum(column) for column in zip(*rows.values(), strict=True)]
    _say(f"| all | {sums[0]:,} | {sums[1]:,} |")
    _say(f"\nThe event, which `task_instance.next_kwargs` holds until the task resumes: {resuming:,} bytes.")


def _stored(airflow: AirflowInstance) -> Counter[str]:
    """Return the bytes of everything in the metadata database by ``table.column``."""
    sizes: Counter[str] = Counter()
    for place, text in airflow.database.texts():
        sizes[place] += len(text.encode())
    del sizes["xcom.value"]
    xcoms = airflow.database.sql("SELECT key, octet_length(value::text) AS size FROM xcom WHERE task_id = 'wait'")
    for xcom in xcoms:
        sizes[f"xcom.value of {xcom['key']}"] += xcom["size"]
    return sizes


def _event(airflow: AirflowInstance) -> int:
    found = airflow.database.sql(
        "SELECT octet_length(next_kwargs::text) AS size FROM task_instance "
        "WHERE task_id = 'wait' AND state <> 'deferred' AND next_kwargs::text LIKE '%\"event\"%'"
    )
    return int(found[0]["size"]) if found else 0


def _epoch(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what waiting costs in a real Airflow.")
    parser.add_argument("runs", nargs="*", help=f"what to measure, as DAG:JOBS[:unhurried]; by default {RUNS}")
    parser.add_argument("--median", type=float, default=40.0, help="median of the jobs' durations in seconds")
    parser.add_argument("--payload", action="store_true", help="measure bytes in the metadata database instead")
    parser.add_argument("--jobs", type=int, default=1000, help="how many jobs, with --payload")
    options = parser.parse_args()
    if options.payload:
        weigh(options.jobs)
    else:
        compare([Plan.parse(run) for run in options.runs or RUNS.split()], options.median)


if __name__ == "__main__":
    main()
