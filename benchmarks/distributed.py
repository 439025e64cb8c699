"""
Many jobs on Airflow's distributed parts: CeleryExecutor with Redis, PostgreSQL, two workers and two triggerers.

Three scenes: a task for each job, without retries; ten sensors that share many jobs; and one sensor for many jobs,
whose triggerer is killed. Everything is started here and ended again, on loopback. It needs Debian's ``redis-server``
and the environment that ``make distributed`` makes.

    make distributed                                  # all scenes at full size; takes a quarter of an hour
    make distributed ARGUMENTS="--scale 0.1 one_sensor"
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread

import psutil

BENCHMARKS = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCHMARKS.parent / "dev"))

from airflow_instance import AirflowInstance  # noqa: E402
from airflow_instance.network import HOST, free_port  # noqa: E402
from airflow_instance.processes import end_trees  # noqa: E402
from postgres import Postgres  # noqa: E402
from sandbox_process import SandboxProcess, Submitted  # noqa: E402

DAGS = BENCHMARKS / "distributed_dags"

WORKERS = 2
SLOTS = 8
"""Tasks at a time of each worker."""

TRIGGERERS = ("triggerer", "triggerer-2")
REQUESTS_PER_SECOND = 100

TIMEOUT = 3000.0

JOBS = {"sensor_each": 300, "ten_sensors": 10_000, "one_sensor": 5_000}
"""The scenes, in this order, and how many jobs each has."""


class Cluster:
    """
    An Airflow with Celery, and ModelsLab twice.

    :param airflow: the Airflow.
    :param held: a sandbox whose jobs end when they are told to.
    :param short: one whose jobs take about a minute.
    :param files: a folder for what is exchanged with them.
    """

    def __init__(self, airflow: AirflowInstance, held: SandboxProcess, short: SandboxProcess, files: Path) -> None:
        self.airflow = airflow
        self.held = held
        self.short = short
        self._jobs_file = files / "jobs.json"
        self.memory = dict.fromkeys(TRIGGERERS, 0.0)

    def start(self, dag_id: str, jobs: Sequence[Submitted]) -> str:
        """Start a run that waits for jobs; return its id."""
        self._jobs_file.write_text(json.dumps([job.record() for job in jobs]))
        return self.airflow.trigger(dag_id, {"jobs": str(self._jobs_file)})

    def wait_until_polled(self, polls: int) -> None:
        """Wait until so many polls have come."""
        self.airflow.wait_until(lambda: self.held.polls() >= polls, TIMEOUT, f"there were no {polls} polls")

    def failed(self, dag_id: str, run_id: str) -> int:
        return sum(task["state"] == "failed" for task in self.airflow.task_instances(dag_id, run_id))

    def stored(self) -> Counter[str]:
        """Return the bytes of everything in the metadata database by ``table.column``."""
        sizes: Counter[str] = Counter()
        for place, text in self.airflow.database.texts():
            sizes[place] += len(text.encode())
        return sizes

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the most memory that each triggerer has in use while the block runs."""
        over = Event()

        def watch() -> None:
            while not over.wait(2.0):
                for name in TRIGGERERS:
                    self.memory[name] = max(self.memory[name], self._megabytes(name))

        self.memory = {name: self._megabytes(name) for name in TRIGGERERS}
        _say(f"Memory of the triggerers before: {_megabytes(self.memory)}")
        thread = Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _megabytes(self, component: str) -> float:
        """Return what a triggerer's processes have in use; what they share counts once."""
        try:
            in_use = [psutil.Process(pid).memory_full_info().pss for pid in self.airflow.pids(component)]
        except (psutil.Error, RuntimeError):  # it has just been killed
            return 0.0
        return float(sum(in_use)) / 2**20


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start everything, and end it."""
    with (
        tempfile.TemporaryDirectory(prefix="distributed-") as folder,
        SandboxProcess(duration=float("inf"), queue_limit=None) as held,
        SandboxProcess(duration=60.0, duration_sigma=0.5, eta_sigma=0.3, seed=1) as short,
        Postgres() as postgres,
        redis(Path(folder)) as broker,
    ):
        files = Path(folder)
        env = {
            "AIRFLOW__CORE__EXECUTOR": "airflow.providers.celery.executors.celery_executor.CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{postgres.url}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(SLOTS),
            "AIRFLOW__CORE__PARALLELISM": str(WORKERS * SLOTS),
            "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "False",
            # A busy machine is neither a dead worker nor a broken DAG.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "30",
            "AIRFLOW_CONN_MODELSLAB_DEFAULT": _connection(held),
            "AIRFLOW_CONN_MODELSLAB_SHORT": _connection(short),
        }
        with AirflowInstance(files / "airflow", DAGS, env, database=postgres.url) as airflow:
            workers = [_start_worker(airflow, number) for number in range(1, WORKERS + 1)]
            try:
                airflow.launch(TRIGGERERS[1])
                yield Cluster(airflow, held, short, files)
            finally:
                end_trees(workers, grace=5.0)


def _connection(modelslab: SandboxProcess) -> str:
    extra = {"requests_per_second": REQUESTS_PER_SECOND}
    return json.dumps({"conn_type": "modelslab", "host": modelslab.url, "password": modelslab.key, "extra": extra})


def _start_worker(airflow: AirflowInstance, number: int) -> subprocess.Popen[bytes]:
    command = ["celery", "worker", "--celery-hostname", f"worker-{number}@%h", "--skip-serve-logs"]
    with (airflow.log_folder / f"worker-{number}.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "airflow", *command],
            env=airflow.env,
            cwd=airflow.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a Redis while the block runs; yield its URL."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("Install Redis first: apt-get install redis-server")
    port = free_port()
    options = {"port": port, "bind": HOST, "dir": folder, "save": "", "appendonly": "no", "loglevel": "warning"}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        yield f"redis://{HOST}:{port}/0"
    finally:
        process.terminate()
        process.wait()


# --- the scenes -----------------------------------------------------------------------------------------


def sensor_each(here: Cluster, count: int) -> list[str]:
    began = time.time()
    jobs = here.short.submit(count)
    run_id = here.start("sensor_each", jobs)
    state = here.airflow.wait_for_run("sensor_each", run_id, TIMEOUT)
    took = time.time() - began
    return [state, str(here.failed("sensor_each", run_id)), "–", "–", f"{took:.0f}", str(here.short.polls())]


def ten_sensors(here: Cluster, count: int) -> list[str]:
    began, before = time.time(), here.stored()
    run_id = here.start("ten_sensors", here.held.submit(count))
    return _ends(here, "ten_sensors", run_id, count, began, before)


def one_sensor(here: Cluster, count: int) -> list[str]:
    began, stored = time.time(), here.stored()
    run_id = here.start("one_sensor", here.held.submit(count))
    here.wait_until_polled(count)
    # The jobs of triggerers are numbered as they started.
    query = "SELECT id FROM job WHERE job_type = 'TriggererJob' ORDER BY id"
    started = [row["id"] for row in here.airflow.database.sql(query)]
    (having,) = {row["triggerer_id"] for row in here.airflow.database.sql("SELECT triggerer_id FROM trigger")}
    victim = TRIGGERERS[started.index(having)]
    here.airflow.kill(victim)
    killed, before = time.time(), here.held.polls()
    here.wait_until_polled(before + 1)
    _say(f"The other triggerer polled {time.time() - killed:.0f} s after {victim} was killed.")
    here.wait_until_polled(before + count)
    _say(f"It had polled each of {count} jobs after {time.time() - killed:.0f} s.")
    row = _ends(here, "one_sensor", run_id, count, began, stored)
    outputs = len(here.airflow.xcom("one_sensor", run_id, "wait"))
    _say(f"{outputs} outputs of {count} jobs came out.")
    return row


def _ends(here: Cluster, dag_id: str, run_id: str, count: int, began: float, before: Counter[str]) -> list[str]:
    """Weigh what the scene stores while jobs are waited for, let them finish, and return the end of the row."""
    here.wait_until_polled(count)
    waiting = here.stored() - before
    here.held.finish_all()
    ready = time.time()
    state = here.airflow.wait_for_run(dag_id, run_id, TIMEOUT)
    now = time.time()
    _say(f"Stored while waiting: {_largest(waiting)}.\nStored at the end: {_largest(here.stored() - before)}.")
    size = f"{sum(waiting.values()) / 1e6:.1f} MB"
    times = [f"{now - ready:.0f}", f"{now - began:.0f}"]
    return [state, str(here.failed(dag_id, run_id)), size, *times, str(here.held.polls())]


def _largest(sizes: Counter[str]) -> str:
    return ", ".join(f"{place} {size / 1e6:.2f} MB" for place, size in sizes.most_common(5))


SCENES: dict[str, Callable[[Cluster, int], list[str]]] = {
    "sensor_each": sensor_each,
    "ten_sensors": ten_sensors,
    "one_sensor": one_sensor,  # the last, because it ends a triggerer
}

COLUMNS = (
    "scene",
    "jobs",
    "run",
    "failed tasks",
    "database while waiting",
    "last ready → end, s",
    "whole run, s",
    "polls",
    "most memory of the triggerers",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Wait for many jobs on Airflow's distributed parts.")
    parser.add_argument("scenes", nargs="*", choices=[*SCENES, []], help="all, unless told otherwise")
    parser.add_argument("--scale", type=float, default=1.0, help="the part of the full number of jobs")
    options = parser.parse_args()
    _say(
        f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores, Python {sys.version.split()[0]}, Airflow "
        f"{version('apache-airflow')}, celery provider {version('apache-airflow-providers-celery')}; {WORKERS} workers "
        f"with {SLOTS} slots each, {len(TRIGGERERS)} triggerers, {REQUESTS_PER_SECOND} requests/s each."
    )
    rows = []
    with cluster() as here:
        for name, scene in SCENES.items():
            if options.scenes and name not in options.scenes:
                continue
            count = max(10, round(JOBS[name] * options.scale))
            _say(f"--- {name}, {count} jobs")
            with here.watched():
                row = scene(here, count)
            rows.append([name, str(count), *row, _megabytes(here.memory)])
            _say(f"load {os.getloadavg()[1]:.1f}: {' | '.join(rows[-1])}")
    _say(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows:
        _say(f"| {' | '.join(row)} |")


def _megabytes(memory: dict[str, float]) -> str:
    return " and ".join(f"{each:.0f}" for each in memory.values()) + " MB"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
