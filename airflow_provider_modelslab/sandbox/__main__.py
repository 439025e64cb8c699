"""The command line: ``python -m airflow_provider_modelslab.sandbox`` serves a sandbox until it is interrupted."""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import sys
from threading import Event
from typing import get_args

from airflow_provider_modelslab.sandbox.faults import FAULTS, QueueReply, parse_probabilities
from airflow_provider_modelslab.sandbox.sandbox import DEFAULT_KEY, Sandbox


def main(argv: list[str] | None = None) -> None:
    """
    Serve until SIGINT or SIGTERM.

    :param argv: the arguments, without the name of the program.
    :raises SystemExit: the arguments are wrong (2), or the address is not available (1).
    """
    stopping = Event()
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, lambda *_: stopping.set())
    parser = _parser()
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        sandbox = _sandbox(options)
    except ValueError as error:
        parser.error(str(error))
    try:
        sandbox.start()
    except (OSError, OverflowError) as error:
        parser.exit(1, f"Cannot listen on {options.host}, port {options.port}: {error}\n")
    try:
        _introduce(sandbox)
        stopping.wait()
    finally:
        sandbox.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_modelslab.sandbox",
        description="A stateful stand-in for the ModelsLab API on this machine: no key, no credits, no network.",
        epilog=f"Faults: {', '.join(FAULTS)}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; beyond loopback, everyone is served")
    add("--port", type=int, default=8787, help="port to listen on; 0 for any free one")
    add("--key", default=DEFAULT_KEY, help="API key that clients must send")
    add("--enterprise-key", help="API key of the enterprise endpoints, with an account of their own")
    add("--duration", type=float, default=3.0, metavar="SECONDS", help="how long a job takes; inf for ever")
    add("--duration-sigma", type=float, default=0.0, metavar="S", help="log-normal spread of the durations")
    add("--eta-sigma", type=float, default=0.2, metavar="S", help="log-normal error of the estimates")
    add("--no-eta", action="store_true", help="replies carry no estimate")
    add("--instant", type=float, default=0.0, metavar="P", help="probability that a job is done at its submission")
    add(
        "--queue-limit",
        type=int,
        default=15,
        metavar="N",
        help="queue slots, beyond which submissions get HTTP 429; 0: no limit",
    )
    add(
        "--requests-per-second",
        type=float,
        default=0.0,
        metavar="N",
        help="requests a second, beyond which all clients together get HTTP 429; 0: no limit",
    )
    add("--queue-reply", choices=get_args(QueueReply), default="limit", help="what a full queue names in its refusal")
    add("--faults", type=_probabilities, default="", metavar="NAME=P,...", help="faults and their probabilities")
    add("--webhooks-anywhere", action="store_true", help="call webhooks on other machines, too")
    add("--seed", type=int, default=0, metavar="N", help="seed of all random choices")
    return parser


def _sandbox(options: argparse.Namespace) -> Sandbox:
    return Sandbox(
        host=options.host,
        port=options.port,
        key=options.key,
        enterprise_key=options.enterprise_key,
        duration=options.duration,
        duration_sigma=options.duration_sigma,
        eta_sigma=None if options.no_eta else options.eta_sigma,
        instant=options.instant,
        queue_limit=options.queue_limit or None,
        queue_reply=options.queue_reply,
        requests_per_second=options.requests_per_second or None,
        faults=options.faults,
        webhooks_anywhere=options.webhooks_anywhere,
        seed=options.seed,
    )


def _probabilities(text: str) -> dict[str, float]:
    try:
        return parse_probabilities(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _introduce(sandbox: Sandbox) -> None:
    """Say how to connect."""
    command = ("airflow", "connections", "add", "modelslab_default", "--conn-type", "modelslab")
    add_connection = shlex.join((*command, "--conn-host", sandbox.url, "--conn-password", sandbox.key))
    sys.stdout.write(
        f"ModelsLab sandbox on {sandbox.url}. Connect Airflow to it with either of\n"
        f"export AIRFLOW_CONN_MODELSLAB_DEFAULT={shlex.quote(sandbox.connection)}\n"
        f"{add_connection}\n"
        f"Its jobs, pictures and commands: {sandbox.url}/\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
