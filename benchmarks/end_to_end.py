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
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from laboratory import DEFAULT, RUN_TIMEOUT, UNHURRIED, WORKERS, Laboratory, epoch, laboratory, percentile, say
from sandbox_process import Submitted

from airflow_provider_modelslab._polling.clock import DEFAULT_PACING
from airflow_provider_modelslab._polling.schedule import DurationModel
from airflow_provider_modelslab._polling.waits import JobWaits
from airflow_provider_modelslab._protocol.replies import Reply, Verdict
from airflow_provider_modelslab.jobs import Job

if TYPE_CHECKING:
    from airflow_instance import AirflowInstance

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


def start(here: Laboratory, plan: Plan) -> str:
    """Submit the jobs and start a run that waits for them; return its id."""
    here.airflow.unpause(plan.dag_id)
    submitted = here.modelslab.submit(plan.jobs)
    here.jobs_file.write_text(json.dumps([job.record() for job in submitted]))
    conn_id = UNHURRIED if plan.unhurried else DEFAULT
    return here.airflow.trigger(plan.dag_id, {"jobs": str(here.jobs_file), "conn_id": conn_id})


def measure(here: Laboratory, plan: Plan, idle_cpu: float) -> list[str]:
    """Let a run go from start to end; return its line of the table."""
    began, cpu = time.time(), here.cpu()
    run_id = start(here, plan)
    if (state := here.airflow.wait_for_run(plan.dag_id, run_id, RUN_TIMEOUT)) != "success":
        return [plan.title, str(plan.jobs), state, *_complaints(here, plan, run_id)]
    here.wait_for_workers(run_id)
    lasted, cpu = time.time() - began, here.cpu() - cpu
    workers = [worker["measured"] for worker in here.workers(run_id, "wait")]
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
        *_moments(here, plan, run_id),
        f"{lasted:.0f}",
        f"{os.getloadavg()[1]:.1f}",
    ]


def _complaints(here: Laboratory, plan: Plan, run_id: str) -> list[str]:
    """Return the end of the log of the first task that failed: a machine too busy for Airflow shows there."""
    failed = [task for task in here.airflow.task_instances(plan.dag_id, run_id) if task["state"] == "failed"]
    where = failed[0]["task_id"], failed[0]["try_number"], failed[0]["map_index"]
    log = here.airflow.task_log(plan.dag_id, run_id, *where)
    return [f"{len(failed)} tasks failed: {' '.join(log.split())[-500:]}"]


def _moments(here: Laboratory, plan: Plan, run_id: str) -> list[str]:
    jobs = here.modelslab.seen()
    if plan.dag_id == "floor":
        return ["–"] * 6
    latencies = [job.noticed - job.ready for job in jobs]
    next_task = epoch(here.airflow.task_instance(plan.dag_id, run_id, "used")["start_date"])
    own = f"{schedule_alone(jobs):.1f}" if plan.dag_id in ("one_sensor", "sensor_each") else "–"
    return [
        f"{fmean(latencies):.1f}",
        f"{percentile(latencies, 0.95):.1f}",
        own,
        f"{next_task - max(job.ready for job in jobs):.1f}",
        f"{next_task - max(job.noticed for job in jobs):.1f}",
        f"{fmean(len(job.polls) for job in jobs):.1f}",
    ]


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
    with laboratory(duration=median, duration_sigma=0.5, eta_sigma=0.3, queue_limit=None, seed=1) as here:
        here.warm_up()
        idle = here.idle_cpu()
        say(
            f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores, Python {sys.version.split()[0]}; {WORKERS} worker "
            f"slots; jobs of {median:g} s (median; log-normal, 0.5), ETAs within a factor of e^0.3. An idle "
            f"Airflow takes {idle:.2f} CPU s a second.\n"
        )
        say(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for plan in plans:
            say(f"| {' | '.join(measure(here, plan, idle))} |")


def weigh(count: int) -> None:
    """Print what a wait for many jobs adds to the metadata database, while it lasts and when it is over."""
    with laboratory(duration=float("inf"), queue_limit=None) as here:
        here.airflow.wait_for_dag("one_sensor")
        before = _stored(here.airflow)
        run_id = start(here, Plan("one_sensor", count, unhurried=True))
        here.airflow.wait_for_state("one_sensor", run_id, "wait", "deferred", timeout=RUN_TIMEOUT)
        waiting = _stored(here.airflow)
        here.modelslab.finish_all()
        resuming = here.airflow.wait_until(lambda: _event(here.airflow), RUN_TIMEOUT, "no event came")
        here.airflow.wait_for_run("one_sensor", run_id, RUN_TIMEOUT)
        after = _stored(here.airflow)
    say(f"Bytes that a wait for {count} jobs adds to the metadata database, without the upstream task's own XCom.\n")
    say("| where | while it waits | when it is over |\n|---|---|---|")
    rows = {place: (waiting[place] - before[place], after[place] - before[place]) for place in {*waiting, *after}}
    for place, sizes in sorted(rows.items(), key=lambda row: -max(row[1])):
        if max(sizes) >= 1000:
            say(f"| `{place}` | {sizes[0]:,} | {sizes[1]:,} |")
    sums = [sum(column) for column in zip(*rows.values(), strict=True)]
    say(f"| all | {sums[0]:,} | {sums[1]:,} |")
    say(f"\nThe event, which `task_instance.next_kwargs` holds until the task resumes: {resuming:,} bytes.")


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
