"""An installation of Airflow: its processes, its REST API and its logs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import psutil
import requests

from airflow_instance import processes
from airflow_instance.database import Database
from airflow_instance.logs import complaints
from airflow_instance.network import HOST, free_port
from airflow_instance.releases import Release, installed
from airflow_instance.rest import AirflowInstanceError, quoted, run_path, task_path
from airflow_instance.settings import SETTINGS, inherited_env, write_config

T = TypeVar("T")

#: Extra arguments of components. The log servers would listen on every network interface, which no setting can
#: change, and are not needed: all components write below one log folder, where the api-server reads.
ARGUMENTS = {"scheduler": ["--skip-serve-logs"], "triggerer": ["--skip-serve-logs"]}

#: How many lines of a component's log an error message shows.
TAIL_LINES = 20

#: Seconds between two polls at something that is waited for.
POLL_INTERVAL = 0.2

#: Seconds within which everything happens, however busy the machine is.
PATIENCE = 600.0

#: Seconds a component has to end on SIGTERM before it is killed.
STOP_GRACE = 3.0

#: Seconds during which import errors may belong to a file that is being written or to another DAG.
IMPORT_ERROR_GRACE = 5.0

FINAL_RUN_STATES = frozenset({"success", "failed"})

#: The states of a task that waits without a worker: for its trigger, and for a person's answer.
PARKED_STATES = frozenset({"deferred", "awaiting_input"})


class AirflowInstance:
    """
    One installation of the Airflow in this environment, with LocalExecutor and, unless told otherwise, SQLite.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. Of the caller's environment it passes on
    everything but ``AIRFLOW_*``, so that neither settings nor connections of the caller leak in. Every visitor is an
    administrator without a login, and nothing listens outside the loopback interface.

    Components are called as in ``airflow <component>``: ``api-server``, ``scheduler``, ``dag-processor`` and
    ``triggerer``; in Airflow 2 ``webserver``, ``scheduler`` and ``triggerer``. A number makes another one of the same
    kind: ``instance.launch("triggerer-2")``.

    :param home: the ``AIRFLOW_HOME``: empty, missing, or left over from an earlier instance, which is then continued.
    :param dags_folder: the folder with the DAG files.
    :param env: environment variables for all processes, such as ``AIRFLOW_CONN_…`` or settings that replace ours.
    :param port: the port of the API and the UI; a free one if None.
    :param database: the SQLAlchemy URL of the metadata database, instead of SQLite in the home.
    :param start_timeout: seconds that a component has to become healthy.
    :param login: name and password of the user who asks here, where ``env`` replaces the settings by which every
        visitor is an administrator.
    :param path: where the UI and the API are below their host, such as ``/airflow``.
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        env: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        database: str | None = None,
        start_timeout: float = PATIENCE,
        login: tuple[str, str] | None = None,
        path: str = "",
    ) -> None:
        self.home = home.absolute()
        self.dags_folder = dags_folder.absolute()
        self.port = port or free_port()
        self.path = path
        self.start_timeout = start_timeout
        self._release: Release = installed()
        self._env = self._build_env(env or {}, database or f"sqlite:///{self.home / 'airflow.db'}?timeout={PATIENCE:g}")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._rest = self._release.rest_api(self.url, login)

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://{HOST}:{self.port}{self.path}"

    @property
    def components(self) -> tuple[str, ...]:
        """The components that :meth:`start` starts, in this order."""
        return tuple(self._release.components)

    @property
    def log_folder(self) -> Path:
        """Where the components' own logs are, one file for each."""
        return self.home / "logs-processes"

    @property
    def env(self) -> dict[str, str]:
        """The environment of all processes: also for commands that are to see this installation."""
        return dict(self._env)

    @cached_property
    def database(self) -> Database:
        """The metadata database, for what the REST API does not show."""
        return Database(self._env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])

    # The processes.

    def start(self) -> None:
        """
        Create or migrate the database, start the components and wait until all are healthy.

        :raises AirflowInstanceError: if something fails, with the end of the logs; nothing is left running then.
        """
        self.log_folder.mkdir(parents=True, exist_ok=True)
        write_config(self.home)
        with ExitStack() as cleanup:
            cleanup.callback(self.stop)
            first, *others = self.components
            if self._release.needs_database:
                others.insert(0, first)
            else:
                # The api-server spends more than 10 s on building its routes before it reads the database.
                self._spawn(first)
            self.cli("db", "migrate")
            newest_job = self._newest_job()
            for component in others:
                self._spawn(component)
            for component in self.components:
                self._wait_until_healthy(component, newest_job)
            cleanup.pop_all()

    def stop(self) -> None:
        """End all processes, gently first; safe to call at any time, also twice."""
        ending, self._processes = self._processes, {}
        processes.end_trees(list(ending.values()), STOP_GRACE)
        self._rest.close()

    def __enter__(self) -> AirflowInstance:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def launch(self, component: str) -> None:
        """
        Start a component that is not running and wait until it is healthy.

        :param component: its name, with a number for another one of its kind, as in ``triggerer-2``.
        """
        newest_job = self._newest_job()
        self._spawn(component)
        self._wait_until_healthy(component, newest_job)

    def kill(self, component: str, signal_number: int = signal.SIGKILL) -> None:
        """
        Send a signal to a component and wait for its end.

        SIGKILL goes to the component with all its children, as if its machine had died; any other signal goes to
        its main process only, which passes on to its children what they need to know.

        :param component: the name of a running component.
        :param signal_number: a signal that ends the component.
        """
        process = self._running(component)
        if signal_number == signal.SIGKILL:
            processes.end_trees([process], grace=0.0)
        else:
            process.send_signal(signal_number)
            process.wait(self.start_timeout)
        del self._processes[component]

    def restart(self, component: str) -> None:
        """Start a component again, ending it gently before if it runs, and wait until it is healthy."""
        if process := self._processes.pop(component, None):
            processes.end_trees([process], STOP_GRACE)
        self.launch(component)

    def restore(self) -> None:
        """Have the components run again and no other, after some were killed or launched since :meth:`start`."""
        extra = [self._processes.pop(component) for component in self._processes.keys() - set(self.components)]
        processes.end_trees(extra, STOP_GRACE)
        for component in self.components:
            process = self._processes.get(component)
            if process is None or process.poll() is not None:
                self.restart(component)

    def pid(self, component: str) -> int:
        """Return the main process of a component."""
        return self._running(component).pid

    def pids(self, component: str) -> set[int]:
        """Find the processes of a component: its main process and all descendants."""
        return processes.tree([self._running(component)])

    def kill_worker(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """
        Send SIGKILL to the worker that runs a task instance, with the task, as if their machine had died.

        Nobody reports the end: the scheduler has to notice that the heartbeats are missing.

        :return: the task instance, as :meth:`task_instance` describes it.
        """
        task = self.task_instance(dag_id, run_id, task_id, map_index)
        worker = self._worker_of(task)
        processes.kill([worker, *worker.children(recursive=True)])
        return task

    def expire_heartbeat(self, task: Mapping[str, Any]) -> None:
        """
        Let the last heartbeat of a try be a day old, for the scheduler to notice at once that its worker is dead.

        Repeat it until the scheduler has: what the worker has sent last may still be on its way.

        :param task: the task in that try, as :meth:`kill_worker` returns it; of a mapped one, all that are running.
        """
        key = {name: task[name] for name in ("dag_id", "task_id", "try_number")}
        yesterday = datetime.now(timezone.utc) - timedelta(days=1)
        self.database.sql(self._release.expire_heartbeat, run_id=task["dag_run_id"], moment=yesterday, **key)

    def dead(self) -> list[str]:
        """Return the components that have died."""
        return [component for component, process in self._processes.items() if process.poll() is not None]

    def check(self) -> None:
        """
        Check that no component has died.

        :raises AirflowInstanceError: if one has, with the end of its log.
        """
        if dead := self.dead():
            raise AirflowInstanceError(f"{' and '.join(dead)} died\n{self._tails(dead)}")

    def cli(self, *arguments: str) -> str:
        """
        Run an ``airflow`` command in this installation.

        :param arguments: the words after ``airflow``.
        :return: what it wrote to its standard output.
        :raises AirflowInstanceError: if it fails, with all its output.
        """
        done = subprocess.run(
            _airflow(*arguments), env=self._env, cwd=self.home, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            command = " ".join(arguments[:2])
            raise AirflowInstanceError(f"airflow {command} failed:\n{_tail(done.stdout)}\n{_tail(done.stderr)}")
        return done.stdout

    def wait_until(
        self, condition: Callable[[], T | None], timeout: float, problem: str, logs: Iterable[str] = ()
    ) -> T:
        """
        Wait until a condition returns something true, and return that.

        :param condition: called until it returns something true.
        :param timeout: seconds that it may take.
        :param problem: what is wrong if it takes longer, as the beginning of a sentence.
        :param logs: the components whose logs tell why; all, unless told otherwise.
        :raises AirflowInstanceError: if it takes longer, or a component dies meanwhile.
        """
        deadline = time.monotonic() + timeout
        while True:
            # The api-server may be about to start again, or slow; the next line raises if it is dead.
            with suppress(requests.ConnectionError, requests.Timeout):
                if result := condition():
                    return result
            self.check()
            if time.monotonic() > deadline:
                raise AirflowInstanceError(f"{problem} after {timeout:g} s\n{self._tails(logs or self._processes)}")
            time.sleep(POLL_INTERVAL)

    # DAGs, runs and what they leave behind.

    def wait_for_dag(self, dag_id: str, timeout: float = PATIENCE) -> None:
        """
        Wait until the dag-processor has stored a DAG.

        :raises AirflowInstanceError: if it does not in time; sooner, if there are import errors meanwhile. They are
            part of the message.
        """
        import_errors_until = time.monotonic() + IMPORT_ERROR_GRACE

        def parsed() -> bool:
            if self._rest.get(f"dags/{quoted(dag_id)}", missing_ok=True):
                return True
            if time.monotonic() > import_errors_until and (errors := self.import_errors()):
                raise AirflowInstanceError(f"no DAG {dag_id!r}, but import errors:\n{errors}")
            return False

        self.wait_until(parsed, timeout, f"the dag-processor has not found DAG {dag_id!r}")

    def store_connection(self, connection_id: str, connection: Mapping[str, Any]) -> None:
        """
        Put a connection into the metadata database, in place of any of that name: there, the UI shows it.

        :param connection_id: its name.
        :param connection: what it consists of, as in the JSON of an ``AIRFLOW_CONN_…`` variable.
        """
        self._rest.request("DELETE", f"connections/{quoted(connection_id)}", missing_ok=True)
        extra = connection.get("extra")
        text = extra if extra is None or isinstance(extra, str) else json.dumps(extra)
        self._rest.request("POST", "connections", json={**connection, "connection_id": connection_id, "extra": text})

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run a DAG, once it is parsed."""
        self.wait_for_dag(dag_id)
        self._rest.request("PATCH", f"dags/{quoted(dag_id)}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """
        Unpause a DAG, once it is parsed, and start a run of it.

        :param dag_id: the DAG.
        :param conf: the ``conf`` of the run, which overrides the DAG's params.
        :return: the id of the run.
        """
        self.unpause(dag_id)
        return self._rest.start_run(dag_id, conf or {})

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run, such as ``queued``, ``running``, ``success`` or ``failed``."""
        state: str = self._rest.get(run_path(dag_id, run_id))["state"]
        return state

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = PATIENCE) -> str:
        """
        Wait for the end of a run.

        :return: its final state: ``success`` or ``failed``.
        :raises AirflowInstanceError: if it does not end in time, with the states of its task instances.
        """

        def final_state() -> str | None:
            state = self.run_state(dag_id, run_id)
            return state if state in FINAL_RUN_STATES else None

        try:
            return self.wait_until(final_state, timeout, f"run {run_id!r} of DAG {dag_id!r} has not ended")
        except AirflowInstanceError as error:
            raise AirflowInstanceError(f"{error}\n{self._states_of_tasks(dag_id, run_id)}") from error

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """List all task instances of a run, as the REST API describes them."""
        path = f"{run_path(dag_id, run_id)}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self._rest.get(path, limit=100, offset=len(found))
            found += page["task_instances"]
            if len(found) >= page["total_entries"]:
                return found

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Describe a task instance as the REST API does."""
        path = task_path(dag_id, run_id, task_id)
        found: dict[str, Any] = self._rest.get(path if map_index < 0 else f"{path}/{map_index}")
        return found

    def wait_for_state(
        self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1, timeout: float = PATIENCE
    ) -> None:
        """
        Wait until a task instance is in a state, such as ``running`` or ``deferred``.

        :raises AirflowInstanceError: if it does not get there in time.
        """
        self.wait_until(
            lambda: self.task_instance(dag_id, run_id, task_id, map_index)["state"] == state,
            timeout,
            f"task {task_id!r} of run {run_id!r} of DAG {dag_id!r} is not {state}",
        )

    def is_parked(self, task: Mapping[str, Any], deferrals: int = 1) -> bool:
        """
        Tell whether a task instance waits without a worker, and the scheduler has heard that the worker has ended.

        A test that resumes a task must wait for the second: the scheduler may fail a task that is resumed sooner
        ("finished with state success, but the task instance's state attribute is queued").

        :param task: the task instance, as :meth:`task_instance` describes it.
        :param deferrals: how many times its worker has ended by then.
        """
        if task["state"] not in PARKED_STATES:
            return False
        heard, key = "Received executor event with state success for task instance", _key(task)
        lines = self.component_log("scheduler").splitlines()
        return sum(heard in line and key in line for line in lines) >= deferrals

    def failures(self, dag_id: str, run_id: str) -> str:
        """Return why tasks of a run have failed: their logs, and the scheduler's lines about them."""
        failed = [task for task in self.task_instances(dag_id, run_id) if task["state"] == "failed"]
        return "\n\n".join(map(self._failure, failed))

    def clear(self, dag_id: str, run_id: str, task_id: str, **options: bool) -> None:
        """
        Clear a task of a run, in any state, as a user does for it to run again; others stay as they are.

        :param options: what else a release asks, such as ``keep_task_state`` from Airflow 3.4 on.
        """
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run_id, "task_ids": [task_id], **options}
        body["reset_dag_runs"] = True
        self._rest.request("POST", f"dags/{quoted(dag_id)}/clearTaskInstances", json=body)

    def clear_run(self, dag_id: str, run_id: str) -> None:
        """Clear all tasks of a run, in any state."""
        self._rest.request("POST", f"{run_path(dag_id, run_id)}/clear", json={"dry_run": False})

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task of a run as ``success``, ``failed`` or ``skipped``, as a user does, in any state."""
        self._rest.mark(task_path(dag_id, run_id, task_id), state)

    def answer(self, dag_id: str, run_id: str, task_id: str, *options: str) -> None:
        """Choose options where a task asks a person."""
        path = f"{task_path(dag_id, run_id, task_id)}/-1/hitlDetails"
        self._rest.request("PATCH", path, json={"chosen_options": list(options), "params_input": {}})

    def runs(self, dag_id: str) -> list[str]:
        """Return the ids of a DAG's runs."""
        return [run["dag_run_id"] for run in self._rest.get(f"dags/{quoted(dag_id)}/dagRuns")["dag_runs"]]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """
        Read an XCom.

        :raises AirflowInstanceError: if there is none.
        """
        return self._rest.xcom(task_path(dag_id, run_id, task_id), key, map_index)

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """
        Read the log of one try of a task instance as text, one line for each message.

        The log of a task that was deferred contains what its trigger wrote.
        """
        return "\n".join(self._rest.log(task_path(dag_id, run_id, task_id), try_number, map_index))

    def links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """Return the extra links of a task instance: the URL of each name, None where there is none yet."""
        links: dict[str, str | None] = self._rest.get(f"{task_path(dag_id, run_id, task_id)}/links")
        return links.get("extra_links", links)  # type: ignore[return-value]

    def connection_form(self, connection_type: str) -> str:
        """Return what the UI makes the form of a connection type from, as text: JSON, or HTML in Airflow 2."""
        return self._rest.connection_form(connection_type)

    def test_connection(self, connection: Mapping[str, Any]) -> tuple[bool, str]:
        """
        Do what the button "Test" of the connection form does.

        :param connection: as for :meth:`store_connection`.
        :return: whether it succeeded, and the message.
        """
        body = {"connection_id": "under_test", **connection}
        reply = self._rest.request("POST", "connections/test", json=body).json()
        return reply["status"], reply["message"]

    def import_errors(self) -> str:
        """Tell what the dag-processor could not import, and why; empty if there is nothing."""
        errors = self._rest.get("importErrors")["import_errors"]
        return "\n".join(f"--- {error['filename']}\n{error['stack_trace']}" for error in errors)

    def component_log(self, component: str) -> str:
        """Read what a component has written to its own log, since :meth:`start` and over all its restarts."""
        return self._log_file(component).read_text(errors="replace")

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Find all warnings and errors in all logs of components, DAG files, triggers and tasks, each with its file."""
        for file in sorted(file for file in self.home.glob("logs*/**/*.log") if not file.is_symlink()):
            for complaint in complaints(file.read_text(errors="replace")):
                yield str(file.relative_to(self.home)), complaint

    # How it is done.

    def _build_env(self, env: Mapping[str, str], database: str) -> dict[str, str]:
        own = {
            "AIRFLOW_HOME": str(self.home),
            **dict(zip(self._release.address, (self.url, str(self.port)), strict=True)),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            # Nobody listens there (see ARGUMENTS); the default ports might belong to another Airflow.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        }
        return {**inherited_env(), **SETTINGS, **self._release.settings, **own, **env}

    def _spawn(self, component: str) -> None:
        kind = self._kind(component)
        if component in self._processes:
            raise AirflowInstanceError(f"{component} is running already")
        with self._log_file(component).open("ab") as log:
            self._processes[component] = subprocess.Popen(
                _airflow(kind, *ARGUMENTS.get(kind, [])),
                env=self._env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _running(self, component: str) -> subprocess.Popen[bytes]:
        try:
            return self._processes[component]
        except KeyError:
            raise AirflowInstanceError(f"{component} is not running; {sorted(self._processes)} are") from None

    def _worker_of(self, task: Mapping[str, Any]) -> psutil.Process:
        # In Airflow 2, which does not tell the id, a worker's title is its command.
        title = task.get("id") or repr([task["dag_id"], task["task_id"], task["dag_run_id"]])[1:-1]
        worker = processes.local_worker(self._running("scheduler"), title)
        if worker is None:
            raise AirflowInstanceError(f"no worker runs task {task['task_id']!r}, which is {task['state']}")
        return worker

    def _log_file(self, component: str) -> Path:
        return self.log_folder / f"{component}.log"

    def _wait_until_healthy(self, component: str, newest_job: int) -> None:
        """Wait until a component has reported a job after that one: those of dead predecessors look alive a while."""
        job_type = self._release.components[self._kind(component)]
        job = "SELECT id FROM job WHERE job_type = :type AND state = 'running' AND id > :newest"

        def healthy() -> bool:
            return bool(self.database.sql(job, type=job_type, newest=newest_job)) if job_type else self._rest.serves()

        self.wait_until(healthy, self.start_timeout, f"{component} is not healthy", [component])

    def _newest_job(self) -> int:
        (newest,) = self.database.sql("SELECT coalesce(max(id), 0) AS id FROM job")
        return int(newest["id"])

    def _kind(self, component: str) -> str:
        kind = re.sub(r"-\d+$", "", component)
        if kind not in self.components:
            raise AirflowInstanceError(f"unknown component {component!r}; there are {', '.join(self.components)}")
        return kind

    def _tails(self, components: Iterable[str]) -> str:
        logs = {component: self._log_file(component) for component in components}
        return "\n".join(f"--- {path}\n{_tail(path.read_text(errors='replace'))}" for path in logs.values())

    def _failure(self, task: Mapping[str, Any]) -> str:
        name, attempt, map_index = task["task_id"], task["try_number"], task["map_index"]
        log = self.task_log(task["dag_id"], task["dag_run_id"], name, attempt, map_index)
        # Airflow 2 does not tell the id.
        about = "|".join(map(re.escape, {task.get("id", _key(task)), f"{task['dag_id']}.{name} {task['dag_run_id']}"}))
        errors = re.compile(rf"^(?=.*error)(?=.*({about})).*$", re.IGNORECASE | re.MULTILINE)
        objections = [found[0] for found in errors.finditer(self.component_log("scheduler"))]
        return "\n".join([f"{name}[{map_index}] try {attempt}:", log, *objections])

    def _states_of_tasks(self, dag_id: str, run_id: str) -> str:
        try:
            instances = self.task_instances(dag_id, run_id)
        except (AirflowInstanceError, requests.RequestException) as error:
            return f"task instances: {error}"
        return "\n".join(
            f"{instance['task_id']}[{instance['map_index']}] try {instance['try_number']}: {instance['state']}"
            for instance in instances
        )


def _key(task: Mapping[str, Any]) -> str:
    """Return what Airflow calls a try of a task instance in its logs."""
    return (
        f"TaskInstanceKey(dag_id={task['dag_id']!r}, task_id={task['task_id']!r}, run_id={task['dag_run_id']!r}, "
        f"try_number={task['try_number']}, map_index={task['map_index']})"
    )


def _airflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-TAIL_LINES:])
