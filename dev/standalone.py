"""
Airflow and a ModelsLab sandbox on this machine, to try them by hand: what ``make airflow`` runs.

The sandbox stands in for the ModelsLab API, so no key and no network are needed. The DAGs are those of
``example_dags/``; their connection ``modelslab_default`` is stored in Airflow and leads to the sandbox, and the pool
``modelslab`` has its queue slots. The home persists: what has run is still there the next time. The sandbox's jobs do
not: they are gone, and later ones get other ids.

A component that dies, for example because you have killed it to see what happens, is reported and started again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from airflow_instance import HOST, AirflowInstance, AirflowInstanceError, port_is_free

from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.faults import parse_probabilities
from airflow_provider_modelslab.sandbox.state import FIRST_JOB_ID

REPOSITORY = Path(__file__).resolve().parent.parent

EXAMPLES = REPOSITORY / "example_dags"

CONNECTION_ID = "modelslab_default"

POOL = "modelslab"

OUTPUTS = Path(tempfile.gettempdir()) / "modelslab"
"""Where the examples store pictures: the page "Outputs" may show them."""

LONGEST_CRASH_LOOP = 3
"""How many times within a minute a component is started again."""


def main(argv: list[str] | None = None) -> None:
    """
    Serve until SIGINT or SIGTERM.

    :param argv: the arguments, without the name of the program.
    :raises SystemExit: with a message, if a port is taken or Airflow does not start or does not live on.
    """
    options = _parse(argv)
    for port, option in ((options.port, "PORT"), (options.sandbox_port, "SANDBOX_PORT")):
        if not port_is_free(port):
            sys.exit(f"End what listens on port {port} of {HOST}, or choose another port with {option}={port + 1}.")
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, _interrupt)
    try:
        _serve(options)
    except AirflowInstanceError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        _say("Stopped.")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run Airflow with the example DAGs against a ModelsLab sandbox, until Ctrl-C.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("home", nargs="?", type=Path, default=REPOSITORY / ".airflow", help="the AIRFLOW_HOME to use")
    add("--dags", type=Path, default=EXAMPLES, help="folder with the DAG files")
    add("--port", type=int, default=8080, help="port of the UI")
    add("--sandbox-port", type=int, default=8787, help="port of the sandbox")
    add("--duration", type=float, default=20.0, help="seconds that a job takes")
    add("--queue", type=int, default=5, help="queue slots of the account")
    add("--faults", type=parse_probabilities, default={}, help="faults of the sandbox, such as failed=0.2")
    return parser.parse_args(argv)


def _interrupt(*_: object) -> NoReturn:
    # A second Ctrl-C must not keep us from ending Airflow's processes, which do not get the first one.
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, signal.SIG_IGN)
    raise KeyboardInterrupt


def _serve(options: argparse.Namespace) -> None:
    if dropped := sorted(name for name in os.environ if name.startswith("AIRFLOW_")):
        _say(f"Not passed on to this Airflow: {', '.join(dropped)}")
    if (options.home / "airflow.db").exists():
        _say("The jobs of an earlier sandbox are gone: a task that still waits for one fails with 'Request not found'.")
    _say("Starting Airflow; this takes half a minute …")
    settings = {
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": str(options.dags.resolve() != EXAMPLES),
        "AIRFLOW__MODELSLAB__MEDIA_ROOTS": str(OUTPUTS),
    }
    sandbox = Sandbox(
        port=options.sandbox_port,
        duration=options.duration,
        queue_limit=options.queue,
        faults=options.faults,
        first_id=FIRST_JOB_ID + int(time.time()),
    )
    with sandbox, AirflowInstance(options.home, options.dags, settings, port=options.port) as airflow:
        # Airflow 3.3 tests a connection without a port as one with port 0, and refuses, since that differs.
        airflow.store_connection(CONNECTION_ID, {**json.loads(sandbox.connection), "port": 0})
        airflow.cli("pools", "set", POOL, str(options.queue), "queue slots of ModelsLab", "--include-deferred")
        triggerer = airflow.pid("triggerer")
        _say(
            f"""
Airflow:    {airflow.url}  (no login: every visitor is an administrator called Anonymous)
Sandbox:    {sandbox.url}  (its jobs, pictures and commands; connection {CONNECTION_ID} leads there)
DAGs:       {options.dags}  (changes are noticed within seconds)
Outputs:    {OUTPUTS}
Home:       {options.home}  (processes write to {airflow.log_folder})
Try this:   kill -9 {triggerer}  (the triggerer, while a task is deferred: it is started again, nothing is lost)

Ctrl-C stops everything.
"""
        )
        _watch(airflow)


def _watch(airflow: AirflowInstance) -> NoReturn:
    """Start components again that die."""
    restarts: list[float] = []
    while True:
        for component in airflow.dead():
            restarts = [moment for moment in restarts if time.monotonic() - moment < 60]
            if len(restarts) >= LONGEST_CRASH_LOOP:
                airflow.check()
            restarts.append(time.monotonic())
            _say(f"The {component} has died; starting it again …")
            airflow.restart(component)
            _say(f"The {component} runs again, as process {airflow.pid(component)}.")
        time.sleep(1)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
