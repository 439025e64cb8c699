"""
Airflow and a ModelsLab sandbox on this machine, to try them by hand: what ``make airflow`` runs.

The sandbox stands in for the ModelsLab API, so no key and no network are needed. The DAGs are those of
``example_dags/``; their connection ``modelslab_default`` is stored in Airflow and leads to the sandbox. The home
persists: what has run is still there the next time.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from airflow_instance import HOST, AirflowInstance, AirflowInstanceError, port_is_free

from airflow_provider_modelslab.sandbox import Sandbox

REPOSITORY = Path(__file__).resolve().parent.parent

CONNECTION_ID = "modelslab_default"


def main(argv: list[str] | None = None) -> None:
    """
    Serve until SIGINT or SIGTERM.

    :param argv: the arguments, without the name of the program.
    :raises SystemExit: with a message, if the port is taken or Airflow does not start or does not live on.
    """
    options = _parse(argv)
    if not port_is_free(options.port):
        sys.exit(f"Port {options.port} of {HOST} is taken: end what listens there, or choose another with --port.")
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, _interrupt)
    try:
        _serve(options.home, options.dags, options.port)
    except AirflowInstanceError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        _say("Stopped.")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run Airflow with the example DAGs against a ModelsLab sandbox, until Ctrl-C.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("home", nargs="?", type=Path, default=REPOSITORY / ".airflow", help="the AIRFLOW_HOME to use")
    parser.add_argument("--dags", type=Path, default=REPOSITORY / "example_dags", help="folder with the DAG files")
    parser.add_argument("--port", type=int, default=8080, help="port of the UI")
    return parser.parse_args(argv)


def _interrupt(*_: object) -> NoReturn:
    # A second Ctrl-C must not keep us from ending Airflow's processes, which do not get the first one.
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, signal.SIG_IGN)
    raise KeyboardInterrupt


def _serve(home: Path, dags: Path, port: int) -> None:
    _say("Starting Airflow; this takes half a minute …")
    with Sandbox() as sandbox, AirflowInstance(home, dags, port=port) as airflow:
        airflow.store_connection(CONNECTION_ID, json.loads(sandbox.connection))
        _say(
            f"""
Airflow:  {airflow.url}  (no login: every visitor is an administrator called Anonymous)
Sandbox:  {sandbox.url}  (the connection {CONNECTION_ID} leads there)
DAGs:     {dags}  (changes are noticed within seconds)
Home:     {home}  (processes write to {airflow.log_folder})

Ctrl-C stops everything.
"""
        )
        while True:
            airflow.check()
            time.sleep(1)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
