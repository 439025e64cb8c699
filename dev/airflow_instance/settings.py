"""How Airflow is configured here: settings, environment and keys."""

from __future__ import annotations

import base64
import os
import secrets
import socket
import sys
from pathlib import Path

from airflow_instance.network import HOST

#: The settings that are the same for every instance of every release.
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    # The executor starts all its workers at once; more than a few only compete for the processor and for SQLite.
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
    # The default asks the resolver for the host's full name, which takes seconds where there is no network.
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    # A busy machine is no broken DAG file, and a task that ends slowly is none that hangs.
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "600",
    "AIRFLOW__CORE__TASK_SUCCESS_OVERTIME": "600",
    # start() migrates; a check by every process would only keep the api-server from starting meanwhile.
    "AIRFLOW__DATABASE__CHECK_MIGRATIONS": "False",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
    # Seconds without a heartbeat after which a scheduler counts as dead, also to itself.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "300",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    # Seconds without a heartbeat after which others take over a triggerer's triggers.
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
}

#: Those that only Airflow 2 knows.
AIRFLOW_2 = {
    "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": HOST,
    "AIRFLOW__WEBSERVER__WORKERS": "1",
    # Seconds that the webserver has to start, and to answer, before it ends itself.
    "AIRFLOW__WEBSERVER__WEB_SERVER_MASTER_TIMEOUT": "600",
    "AIRFLOW__WEBSERVER__WEB_SERVER_WORKER_TIMEOUT": "600",
    "AIRFLOW__CORE__DAG_FILE_PROCESSOR_TIMEOUT": "600",
    # New DAG files are noticed at every refresh; unchanged ones are parsed every 30 s, as by default.
    "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "1",
    # How often the scheduler looks for tasks without heartbeats.
    "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "2",
}

#: Those that only Airflow 3 knows.
AIRFLOW_3 = {
    "AIRFLOW__API__HOST": HOST,
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    # New and changed DAG files are noticed at every refresh; unchanged ones are parsed every 30 s, as by default.
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "600",
    # How often the scheduler looks for tasks without heartbeats.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    # Seconds that the api-server has to answer a worker: after 5, by default, it would be asked again, with a warning.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
    # A task that has ended often occupies its worker until its next heartbeat, after 5 s by default.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
}

#: What the webserver of Airflow 2 reads: every visitor is an administrator.
WEBSERVER_CONFIG = 'AUTH_ROLE_PUBLIC = "Admin"\nWTF_CSRF_ENABLED = True\n'

if sys.platform == "linux":
    # The default until Python 3.13. With that of 3.14 every worker imports Airflow again before its first task.
    SETTINGS["AIRFLOW__CORE__MP_START_METHOD"] = "fork"


def inherited_env() -> dict[str, str]:
    """Select what the processes get of the caller's environment."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    # Airflow calls "airflow" itself in places, and must find this one.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    # Tasks call the api-server over HTTP, not to be sent through a proxy; it calls the log servers by host name.
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, [env.get(name), HOST, "localhost", socket.gethostname()]))
    # Without compiled modules every single process starts 6 s later.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


def write_config(home: Path) -> None:
    """
    Give a new home its keys, which must outlive a restart; Airflow's own would be too short for its tokens.

    Each release reads those that it knows.
    """
    path = home / "airflow.cfg"
    if path.exists():
        return
    keys = [
        ("core", "fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()),
        ("api", "secret_key", secrets.token_hex(32)),
        ("webserver", "secret_key", secrets.token_hex(32)),
        ("api_auth", "jwt_secret", secrets.token_hex(64)),
    ]
    path.touch(mode=0o600)
    path.write_text("".join(f"[{section}]\n{option} = {key}\n" for section, option, key in keys))
    (home / "webserver_config.py").write_text(WEBSERVER_CONFIG)
