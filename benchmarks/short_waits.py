"""
What waits of seconds cost in a real Airflow, one job for each task; and whether Airflow fails any of them.

Sensor and operator wait for short jobs on their worker. Here they are measured as they are, as they were before (every
job that is not done is deferred, and the trigger yields as soon as it can), and without a triggerer.

    python benchmarks/short_waits.py                   # the tables; takes 20 minutes
    python benchmarks/short_waits.py sensor_now sensor_poke
    python benchmarks/short_waits.py --race            # three runs of 500 tasks without retries; takes 20 minutes
    python benchmarks/short_waits.py --race --before   # the same, as it was
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from statistics import fmean
from typing import Any

from laboratory import DEFAULT, RUN_TIMEOUT, UNHURRIED, WORKERS, Laboratory, epoch, laboratory, percentile, say

#: The paths that are submitted to, and how many seconds their jobs take.
DURATIONS = {
    "v6/images/text2img": 2.0,
    "v6/realtime/text2img": 5.0,
    "v6/voice/music_gen": 10.0,
    "v6/video/text2video": 40.0,
}

RACING_DURATIONS = {
    "v6/images/text2img": 3.0,
    "v6/realtime/text2img": 4.0,
    "v6/voice/music_gen": 5.0,
    "v7/images/text-to-image": 6.0,
    "v6/video/text2video": 7.0,
    "v6/3d/text_to_3d": 8.0,
}

TITLES = {
    "sensor_now": "**sensor**",
    "sensor_before": "sensor that defers at once, as before",
    "sensor_poke": 'sensor, `mode="poke"`, 5 s',
    "sensor_reschedule": 'sensor, `mode="reschedule"`, 5 s',
    "operator_now": "**operator**",
    "operator_before": "operator that defers at once, as before",
    "operator_worker": "operator, `deferrable=False`",
}

COLUMNS = (
    "job",
    "waiting by",
    "jobs",
    "failed",
    "worker-slot s a task",
    "worker processes a task",
    "ready → noticed s, mean",
    "ready → next task s, mean",
    "95 %",
)

ETA_SIGMA = 0.3

#: Airflow's own default; the tests' Airflow is quicker. A worker often notices only then that its task has ended.
SETTINGS = {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5"}

MISMATCH = "finished with state success, but the task instance's state"
"""What the scheduler writes when it takes a resumed task for one that was killed."""


@dataclass
class Measured:
    """What the waits for jobs of one duration have cost."""

    jobs: int = 0
    failed: int = 0
    slots: list[float] = field(default_factory=list)
    noticed_after: list[float] = field(default_factory=list)
    used_after: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        """Return the end of the row."""
        return [
            str(self.jobs),
            str(self.failed),
            f"{sum(self.slots) / self.jobs:.1f}",
            f"{len(self.slots) / self.jobs:.2f}",
            shown(self.noticed_after, fmean),
            shown(self.used_after, fmean),
            shown(self.used_after, lambda late: percentile(late, 0.95)),
        ]


def shown(values: list[float], summary: Callable[[list[float]], float]) -> str:
    return f"{summary(values):.1f}" if values else "–"


def wait_for_run(here: Laboratory, dag_id: str, run_id: str) -> None:
    here.airflow.wait_for_run(dag_id, run_id, RUN_TIMEOUT)
    here.wait_for_workers(run_id)


def measure(here: Laboratory, dag_id: str, jobs: int) -> dict[str, Measured]:
    """Let a run wait for so many jobs of each duration, by turns; return what was measured, by path."""
    here.modelslab.submit(0)
    paths = [*DURATIONS] * jobs
    run_id = here.airflow.trigger(dag_id, {"paths": paths, "conn_id": DEFAULT})
    wait_for_run(here, dag_id, run_id)
    tasks = {(task["task_id"], task["map_index"]): task for task in here.airflow.task_instances(dag_id, run_id)}
    seen = {job.id: job for job in here.modelslab.seen()}
    results: dict[str, Measured] = defaultdict(Measured)
    for worker in here.workers(run_id, "wait"):
        results[paths[worker["map_index"]]].slots.append(worker["measured"]["slot"])
    for index, path in enumerate(paths):
        result = results[path]
        result.jobs += 1
        if tasks["wait", index]["state"] != "success":
            result.failed += 1
            continue
        (record,) = here.airflow.xcom(dag_id, run_id, "wait", "jobs", index)
        job = seen[record["id"]]
        result.noticed_after.append(job.noticed - job.ready)
        result.used_after.append(epoch(tasks["used", index]["start_date"]) - job.ready)
    return results


def compare(dag_ids: Sequence[str], jobs: int) -> None:
    """Print the table."""
    with laboratory(SETTINGS, **sandbox(DURATIONS)) as here:
        here.warm_up()
        results: dict[str, dict[str, Measured]] = {}
        for dag_id in dag_ids:
            results[dag_id] = measure(here, dag_id, jobs)
            sys.stderr.write(f"{dag_id}: {dict(results[dag_id])}\n")
        mismatches = here.airflow.component_log("scheduler").count(MISMATCH)
    say(f"{where()}; ETAs within a factor of e^{ETA_SIGMA:g}.\n")
    say(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for path, duration in DURATIONS.items():
        for dag_id in dag_ids:
            say(f"| {' | '.join([f'{duration:g} s', TITLES[dag_id], *results[dag_id][path].cells()])} |")
    say(f"\nThe scheduler wrote {mismatches} times: {MISMATCH} …")


def race(dag_id: str, jobs: int, runs: int) -> None:
    """Print how many tasks have failed of many that each wait for seconds, run by run."""
    with laboratory(SETTINGS, **sandbox(RACING_DURATIONS)) as here:
        here.warm_up()
        say(f"{where()}; {dag_id}.\n")
        say("| tasks | failed | deferred | lines of the scheduler | seconds | load |\n|---|---|---|---|---|---|")
        for _ in range(runs):
            say(f"| {' | '.join(race_once(here, dag_id, jobs))} |")


def race_once(here: Laboratory, dag_id: str, jobs: int) -> list[str]:
    """Let a run wait for so many jobs, each in a task of its own; return the row of the table."""
    here.modelslab.submit(0)
    began = time.time()
    paths = ([*RACING_DURATIONS] * jobs)[:jobs]
    run_id = here.airflow.trigger(dag_id, {"paths": paths, "conn_id": UNHURRIED})
    wait_for_run(here, dag_id, run_id)
    took = time.time() - began
    tasks = [task for task in here.airflow.task_instances(dag_id, run_id) if task["task_id"] == "wait"]
    processes = Counter(worker["map_index"] for worker in here.workers(run_id, "wait"))
    log = here.airflow.component_log("scheduler").splitlines()
    mismatches = [line for line in log if MISMATCH in line and run_id in line]
    sys.stderr.write("\n".join([*mismatches, here.airflow.failures(dag_id, run_id)[-4000:]]))
    return [
        str(len(tasks)),
        str(sum(task["state"] != "success" for task in tasks)),
        str(sum(count > 1 for count in processes.values())),
        str(len(mismatches)),
        f"{took:.0f}",
        f"{os.getloadavg()[1]:.1f}",
    ]


def sandbox(durations: dict[str, float]) -> dict[str, Any]:
    families = {path.rpartition("/")[0]: seconds for path, seconds in durations.items()}
    return {"durations": families, "eta_sigma": ETA_SIGMA, "queue_limit": None, "seed": 1}


def where() -> str:
    """Say when and on what it was measured."""
    return (
        f"{time.strftime('%Y-%m-%d')}; Airflow {version('apache-airflow')}, {os.cpu_count()} cores, Python "
        f"{sys.version.split()[0]}; {WORKERS} worker slots"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what waits of seconds cost in a real Airflow.")
    parser.add_argument("dags", nargs="*", choices=[*TITLES, []], help="what to measure; all, unless told otherwise")
    parser.add_argument("--jobs", type=int, help="how many jobs of each duration (8), or with --race of all (500)")
    parser.add_argument("--race", action="store_true", help="count tasks that Airflow fails instead")
    parser.add_argument("--runs", type=int, default=3, help="with --race: how many runs, one after another")
    parser.add_argument("--before", action="store_true", help="with --race: without short wait, and yield at once")
    options = parser.parse_args()
    if options.race:
        race("race_before" if options.before else "race_now", options.jobs or 500, options.runs)
    else:
        compare(options.dags or [*TITLES], options.jobs or 8)


if __name__ == "__main__":
    main()
