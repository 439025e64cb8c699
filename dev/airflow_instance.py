"""
A real Airflow 3 on this machine, started and stopped from Python.

:class:`AirflowInstance` runs the api-server, the scheduler, the dag-processor and the triggerer as separate
processes over one ``AIRFLOW_HOME`` and talks to them through the REST API, as a user would. Only such an
installation shows what ``dag.test()`` hides: deferral, restarts of triggers, timeouts, retries, masking.

For Airflow 3 only (written against 3.3): Airflow 2 has other components and another API.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import requests

T = TypeVar("T")

#: Everything listens on, and talks to, this address only.
HOST = "127.0.0.1"

#: The components in the order of their start, each with the job it reports in the metadata database.
JOB_TYPES = {
    "api-server": None,
    "scheduler": "SchedulerJob",
    "dag-processor": "DagProcessorJob",
    "triggerer": "TriggererJob",
}

#: Extra arguments of components. The log servers would listen on every network interface, which no setting can
#: change, and are not needed: all components write below one log folder, where the api-server reads.
ARGUMENTS = {"scheduler": ["--skip-serve-logs"], "triggerer": ["--skip-serve-logs"]}

#: The settings that are the same for every instance.
SETTINGS = {
    "AIRFLOW__API__HOST": HOST,
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    # The executor starts all its workers at once; more than a few only compete for the processor and for SQLite.
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # The default asks the resolver for the host's full name, which takes seconds where there is no network.
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    # start() migrates; a check by every process would only keep the api-server from starting meanwhile.
    "AIRFLOW__DATABASE__CHECK_MIGRATIONS": "False",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    # New and changed DAG files are noticed at every refresh; unchanged ones are parsed every 30 s, as by default.
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    # How long a triggerer must be silent until others take over its triggers.
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    # A task that has ended often occupies its worker until its next heartbeat, after 5 s by default.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
}

if sys.platform == "linux":
    # The default until Python 3.13. With that of 3.14 every worker imports Airflow anew before its first task.
    SETTINGS["AIRFLOW__CORE__MP_START_METHOD"] = "fork"

#: How many lines of a component's log an error message shows.
TAIL_LINES = 20

#: Seconds between two looks at something that is waited for.
POLL_INTERVAL = 0.2

#: Seconds to wait for a reply of the REST API.
REQUEST_TIMEOUT = 30.0

#: Seconds a component has to end on SIGTERM before it is killed.
STOP_GRACE = 3.0

#: Seconds during which import errors may belong to a file that is being written or to another DAG.
IMPORT_ERROR_GRACE = 5.0

#: What a log message carries apart from its text: rendered in its own way, or the same in a whole log.
LOG_BOILERPLATE = frozenset(
    {"timestamp", "level", "event", "error_detail", "logger", "filename", "lineno"}
    | {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"}
)

FINAL_RUN_STATES = frozenset({"success", "failed"})


class AirflowInstanceError(RuntimeError):
    """Airflow did not start, died, refused a request or did not get somewhere in time."""


class AirflowInstance:
    """
    One installation of Airflow 3 with four processes, LocalExecutor and, unless told otherwise, SQLite.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. Of the caller's environment it passes on
    everything but ``AIRFLOW_*``, so that neither settings nor connections of the caller leak in. Every visitor is an
    administrator without a login, and nothing listens outside the loopback interface.

    Components are called as in ``airflow <component>``: ``api-server``, ``scheduler``, ``dag-processor`` and
    ``triggerer``. A number makes another one of the same kind: ``instance.launch("triggerer-2")``.

    :param home: the ``AIRFLOW_HOME``: empty, missing, or left over from an earlier instance, which is then continued.
    :param dags_folder: the folder with the DAG files.
    :param env: environment variables for all processes, such as ``AIRFLOW_CONN_…`` or settings that replace ours.
    :param port: the port of the API and the UI; a free one if None.
    :param database_url: a SQLAlchemy URL of the metadata database instead of SQLite in the home.
    :param start_timeout: seconds that a component has to become healthy.
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        env: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        database_url: str | None = None,
        start_timeout: float = 120.0,
    ) -> None:
        self.home = home.absolute()
        self.dags_folder = dags_folder.absolute()
        self.port = port or free_port()
        self.start_timeout = start_timeout
        self._env = self._build_env(env or {}, database_url)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._session = requests.Session()
        self._session.trust_env = False  # Neither a proxy nor a .netrc stands between this machine and itself.
        self._session.headers["Accept"] = "application/json"

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://{HOST}:{self.port}"

    @property
    def log_folder(self) -> Path:
        """Where the components' own logs are, one file for each."""
        return self.home / "logs-processes"

    @property
    def env(self) -> dict[str, str]:
        """The environment of all processes: also for commands that shall see this installation."""
        return dict(self._env)

    # Life and death of the processes.

    def start(self) -> None:
        """
        Create or migrate the database, start the four components and wait until all are healthy.

        :raises AirflowInstanceError: if something fails, with the end of the logs; nothing is left running then.
        """
        self.log_folder.mkdir(parents=True, exist_ok=True)
        self._write_config()
        with ExitStack() as cleanup:
            cleanup.callback(self.stop)
            # The api-server spends more than 10 s on building its routes before it looks at the database.
            started = {"api-server": self._spawn("api-server")}
            self.cli("db", "migrate")
            started |= {component: self._spawn(component) for component, job_type in JOB_TYPES.items() if job_type}
            for component, moment in started.items():
                self._wait_until_healthy(component, moment)
            cleanup.pop_all()

    def stop(self) -> None:
        """End all processes, gently first; safe to call at any time, also twice."""
        processes, self._processes = self._processes, {}
        _end_process_trees(list(processes.values()), STOP_GRACE)
        self._session.close()

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
        self._wait_until_healthy(component, self._spawn(component))

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
            _end_process_trees([process], grace=0.0)
        else:
            process.send_signal(signal_number)
            process.wait(self.start_timeout)
        del self._processes[component]

    def restart(self, component: str) -> None:
        """Start a component again, ending it gently before if it runs, and wait until it is healthy."""
        if process := self._processes.pop(component, None):
            _end_process_trees([process], STOP_GRACE)
        self.launch(component)

    def pids(self, component: str) -> set[int]:
        """Find the processes of a component: its main process and all descendants."""
        return _trees([self._running(component)])

    def check(self) -> None:
        """
        See to it that no component has died.

        :raises AirflowInstanceError: if one has, with the end of its log.
        """
        dead = [component for component, process in self._processes.items() if process.poll() is not None]
        if dead:
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

    # DAGs, runs and what they leave behind.

    def wait_for_dag(self, dag_id: str, timeout: float = 60.0) -> None:
        """
        Wait until the dag-processor has stored a DAG.

        :raises AirflowInstanceError: if it does not in time; sooner, if there are import errors meanwhile. They are
            part of the message.
        """
        import_errors_until = time.monotonic() + IMPORT_ERROR_GRACE

        def parsed() -> bool:
            if self._get(f"dags/{_quoted(dag_id)}", missing_ok=True):
                return True
            if time.monotonic() > import_errors_until and (errors := self._import_errors()):
                raise AirflowInstanceError(f"no DAG {dag_id!r}, but import errors:\n{errors}")
            return False

        self._wait(parsed, timeout, f"the dag-processor has not found DAG {dag_id!r}")

    def store_connection(self, connection_id: str, connection: Mapping[str, Any]) -> None:
        """
        Put a connection into the metadata database, in place of any of that name: there, the UI shows it.

        :param connection_id: its name.
        :param connection: what it consists of, as in the JSON of an ``AIRFLOW_CONN_…`` variable.
        """
        self._request("DELETE", f"connections/{_quoted(connection_id)}", missing_ok=True)
        extra = connection.get("extra")
        text = extra if extra is None or isinstance(extra, str) else json.dumps(extra)
        self._request("POST", "connections", json={**connection, "connection_id": connection_id, "extra": text})

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run a DAG, once it is parsed."""
        self.wait_for_dag(dag_id)
        self._request("PATCH", f"dags/{_quoted(dag_id)}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """
        Unpause a DAG, once it is parsed, and start a run of it.

        :param dag_id: the DAG.
        :param conf: the ``conf`` of the run, which overrides the DAG's params.
        :return: the id of the run.
        """
        self.unpause(dag_id)
        body = {"logical_date": None, "conf": dict(conf or {})}
        run_id: str = self._request("POST", f"dags/{_quoted(dag_id)}/dagRuns", json=body).json()["dag_run_id"]
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run, such as ``queued``, ``running``, ``success`` or ``failed``."""
        state: str = self._get(_run_path(dag_id, run_id))["state"]
        return state

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = 120.0) -> str:
        """
        Wait for the end of a run.

        :return: its final state: ``success`` or ``failed``.
        :raises AirflowInstanceError: if it does not end in time, with the states of its task instances.
        """

        def final_state() -> str | None:
            state = self.run_state(dag_id, run_id)
            return state if state in FINAL_RUN_STATES else None

        try:
            return self._wait(final_state, timeout, f"run {run_id!r} of DAG {dag_id!r} has not ended")
        except AirflowInstanceError as error:
            raise AirflowInstanceError(f"{error}\n{self._states_of_tasks(dag_id, run_id)}") from error

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """List all task instances of a run, as the REST API describes them."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(path, limit=100, offset=len(found))
            found += page["task_instances"]
            if len(found) >= page["total_entries"]:
                return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """
        Read an XCom.

        :raises AirflowInstanceError: if there is none.
        """
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/xcomEntries/{_quoted(key)}"
        return self._get(path, map_index=map_index)["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """
        Read the log of one try of a task instance as text, one line for each message.

        The log of a task that was deferred contains what its trigger wrote.
        """
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/logs/{try_number}"
        parameters = {"map_index": map_index, "full_content": True}
        # As JSON, the log comes in pages, and each leaves a warning in the log of the api-server.
        reply = self._request("GET", path, params=parameters, headers={"Accept": "application/x-ndjson"})
        return "\n".join(_log_text(json.loads(line)) for line in reply.content.splitlines())

    # How it is done.

    def _write_config(self) -> None:
        """Give a new home its keys, which must outlive a restart; Airflow's own would be too short for its tokens."""
        path = self.home / "airflow.cfg"
        if path.exists():
            return
        keys = [
            ("core", "fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()),
            ("api", "secret_key", secrets.token_hex(32)),
            ("api_auth", "jwt_secret", secrets.token_hex(64)),
        ]
        path.touch(mode=0o600)
        path.write_text("".join(f"[{section}]\n{option} = {key}\n" for section, option, key in keys))

    def _build_env(self, env: Mapping[str, str], database_url: str | None) -> dict[str, str]:
        own = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url or f"sqlite:///{self.home / 'airflow.db'}",
            # Nobody listens there (see ARGUMENTS); the default ports might belong to another Airflow.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        }
        return {**_inherited_env(), **SETTINGS, **own, **env}

    def _spawn(self, component: str) -> datetime:
        """Start a component's process; returns a moment before it reports a job."""
        kind = _kind(component)
        if component in self._processes:
            raise AirflowInstanceError(f"{component} is running already")
        moment = datetime.now(timezone.utc)
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
        return moment

    def _running(self, component: str) -> subprocess.Popen[bytes]:
        try:
            return self._processes[component]
        except KeyError:
            raise AirflowInstanceError(f"{component} is not running; {sorted(self._processes)} are") from None

    def _log_file(self, component: str) -> Path:
        return self.log_folder / f"{component}.log"

    def _wait_until_healthy(self, component: str, started: datetime) -> None:
        def healthy() -> bool:
            job_type = JOB_TYPES[_kind(component)]
            return self._has_job(job_type, started) if job_type else self._serves_tasks()

        self._wait(healthy, self.start_timeout, f"{component} is not healthy", [component])

    def _serves_tasks(self) -> bool:
        """
        Tell whether the api-server is ready.

        Its first reply to a task takes 8 s, which no task shall have to wait: it begins with the first question here.
        """
        # Without a header of our own, the api-server logs the failure to read its own token.
        headers = {"Authorization": "none"}
        try:
            return self._session.get(f"{self.url}/execution/health", headers=headers, timeout=2).ok
        except requests.RequestException:
            return False

    def _has_job(self, job_type: str, started: datetime) -> bool:
        """Tell whether a component has reported since: the jobs of dead predecessors look alive for a while."""
        jobs = self._get("jobs", job_type=job_type, job_state="running", start_date_gte=started.isoformat())
        return bool(jobs["jobs"])

    def _wait(self, condition: Callable[[], T | None], timeout: float, problem: str, logs: Iterable[str] = ()) -> T:
        """Wait until a condition returns something true, and return that."""
        deadline = time.monotonic() + timeout
        while True:
            # The api-server may be about to start again; if not, the next line tells.
            with suppress(requests.ConnectionError):
                if result := condition():
                    return result
            self.check()
            if time.monotonic() > deadline:
                raise AirflowInstanceError(f"{problem} after {timeout:g} s\n{self._tails(logs or self._processes)}")
            time.sleep(POLL_INTERVAL)

    def _tails(self, components: Iterable[str]) -> str:
        logs = {component: self._log_file(component) for component in components}
        return "\n".join(f"--- {path}\n{_tail(path.read_text(errors='replace'))}" for path in logs.values())

    def _get(self, path: str, *, missing_ok: bool = False, **params: Any) -> Any:
        response = self._request("GET", path, missing_ok=missing_ok, params=params)
        return None if response.status_code == requests.codes.not_found else response.json()

    def _request(self, method: str, path: str, *, missing_ok: bool = False, **arguments: Any) -> requests.Response:
        if "Authorization" not in self._session.headers:
            token = self._session.get(f"{self.url}/auth/token", timeout=REQUEST_TIMEOUT).json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"
        response = self._session.request(method, f"{self.url}/api/v2/{path}", timeout=REQUEST_TIMEOUT, **arguments)
        if response.ok or (missing_ok and response.status_code == requests.codes.not_found):
            return response
        raise AirflowInstanceError(f"{method} {response.url}: {response.status_code} {response.text}")

    def _import_errors(self) -> str:
        errors = self._get("importErrors")["import_errors"]
        return "\n".join(f"--- {error['filename']}\n{error['stack_trace']}" for error in errors)

    def _states_of_tasks(self, dag_id: str, run_id: str) -> str:
        try:
            instances = self.task_instances(dag_id, run_id)
        except (AirflowInstanceError, requests.RequestException) as error:
            return f"task instances: {error}"
        return "\n".join(
            f"{instance['task_id']}[{instance['map_index']}] try {instance['try_number']}: {instance['state']}"
            for instance in instances
        )


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on a TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: not stopped by closed connections
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Find a TCP port of the loopback interface on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _kind(component: str) -> str:
    kind = re.sub(r"-\d+$", "", component)
    if kind not in JOB_TYPES:
        raise AirflowInstanceError(f"unknown component {component!r}; there are {', '.join(JOB_TYPES)}")
    return kind


def _airflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def _inherited_env() -> dict[str, str]:
    """Select what the processes get of the caller's environment."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    # Airflow calls "airflow" itself in places, and shall find this one.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    # Tasks call the api-server over HTTP, not to be sent through a proxy; it calls the log servers by host name.
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, [env.get(name), HOST, "localhost", socket.gethostname()]))
    # Without compiled modules every single process starts 6 s later.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


def _run_path(dag_id: str, run_id: str) -> str:
    return f"dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _quoted(segment: str) -> str:
    return quote(segment, safe="")


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-TAIL_LINES:])


def _log_text(message: Mapping[str, Any]) -> str:
    """Write a structured message as text: time, level, event, what else it carries, and the exceptions."""
    words = [message.get("timestamp", ""), message.get("level", "").upper(), message["event"]]
    words += [f"{name}={value}" for name, value in message.items() if name not in LOG_BOILERPLATE]
    exceptions = [_traceback(exception) for exception in message.get("error_detail") or ()]
    return "\n".join([" ".join(filter(None, words)), *exceptions])


def _traceback(exception: Mapping[str, Any]) -> str:
    frames = [
        f"  File {frame['filename']}, line {frame['lineno']}, in {frame['name']}" for frame in exception["frames"]
    ]
    return "\n".join([*frames, f"{exception['exc_type']}: {exception['exc_value']}", *exception["exc_notes"]])


def _end_process_trees(processes: list[subprocess.Popen[bytes]], grace: float) -> None:
    """End processes with all their descendants: with SIGTERM to each first, and SIGKILL after the grace."""
    members = _trees(processes)
    if grace:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(0.05)
    while alive := (members | _trees(processes)) & _parents().keys():
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in processes:
            process.wait()
        time.sleep(0.02)


def _trees(leaders: Iterable[subprocess.Popen[bytes]]) -> set[int]:
    """
    Find the processes of the sessions that the leaders have opened, and all descendants of these processes.

    Airflow puts every task into its own process group, and some operators open a session for their commands.
    """
    parents = _parents()
    sessions = {leader.pid for leader in leaders}
    tree = {pid for pid in parents if _session_of(pid) in sessions}
    while children := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= children
    return tree


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _parents() -> dict[int, int]:
    """List all processes that run, without zombies, each with its parent."""
    table = _proc_table() if Path("/proc/self/stat").exists() else _ps_table()
    return {pid: parent for pid, parent, state in table if not state.startswith("Z")}


def _proc_table() -> list[tuple[int, int, str]]:
    table = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            table.append((int(path.parent.name), int(parent), state))
    return table


def _ps_table() -> list[tuple[int, int, str]]:
    command = ["ps", "-A", "-o", "pid=,ppid=,stat="]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = (line.split() for line in listing.splitlines())
    return [(int(pid), int(parent), state) for pid, parent, state in rows]
