"""
The command line: ``python -m airflow_provider_modelslab.ledger PATH`` says what a ledger knows of paid jobs.

It reads the receipts and nothing else: no database, no ModelsLab, no key.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_provider_modelslab._ledger.report import Report
from airflow_provider_modelslab._protocol.prices import Prices, parse_prices

if TYPE_CHECKING:
    from airflow_provider_modelslab._ledger.stores import Records

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """
    Print a report.

    :param argv: the arguments, without the name of the program.
    :raises SystemExit: the arguments are wrong (2), or the ledger cannot be read (1).
    """
    options = _parser().parse_args(argv)
    # Airflow logs to the standard output, which is the report's.
    with redirect_stdout(sys.stderr):
        records = _records(options.path)
    report = Report.of(records, options.prices, options.since, options.until)
    if options.json:
        print(json.dumps(report.to_dict(options.prices), indent=1))  # noqa: T201 - what it is for
    elif not records:
        print("No receipts there")  # noqa: T201
    else:
        print("\n".join(report.lines()))  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_modelslab.ledger",
        description="What a ledger knows of paid jobs: when each was submitted, by which task, what became of it, what "
        "is in doubt, what was paid for more than once, and sums per day and endpoint.",
        epilog="Times are in UTC. 'intended' is a job whose submission has begun, and of which no reply is known. "
        "Amounts are estimates: the number of jobs times your own prices.",
    )
    add = parser.add_argument
    add("path", metavar="PATH", help="the ledger_path: a folder, or a URL such as s3://aws_default@bucket/ledger")
    add("--since", type=_moment, metavar="TIME", help="leave out what was submitted before, such as 2026-11-27T18:00")
    add("--until", type=_moment, metavar="TIME", help="leave out what was submitted then or later")
    add("--prices", type=_prices, default={}, metavar="JSON", help="""estimate amounts: '{"v6/images": 0.005}'""")
    add("--json", action="store_true", help="print JSON, with all that the receipts hold")
    return parser


def _records(path: str) -> Records:
    # Imported here: --help need not wait for Airflow.
    from airflow_provider_modelslab._ledger.stores import FolderStore
    from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabLedgerError

    try:
        return FolderStore(path if "://" in path else os.path.abspath(path)).read_all()
    except (ModelsLabArgumentError, ModelsLabLedgerError) as error:
        sys.exit(str(error))


def _moment(text: str) -> float:
    """Return the seconds since the epoch of an ISO time, which is in UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-11-27 or 2026-11-27T18:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _prices(text: str) -> Prices:
    try:
        return parse_prices(text, "the price table")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    main()
