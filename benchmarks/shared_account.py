"""
What several triggerers make of one account that takes only so many requests a second.

Each has more jobs to poll than it may, and knows nothing of the others: it slows down where a request is refused, and
climbs again (``_polling/pace.py``). In simulated time, for two to ten of them; and with ``--real``, in real time, with
Airflow's own trigger runners (see ``runner.py``), each in processes of its own, against the sandbox.

    python benchmarks/shared_account.py                           # the table, simulated; takes 5 minutes
    python benchmarks/shared_account.py --real 2 --minutes 120    # two triggerers, of which the second hour counts
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from stand_in import PROCESSES

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.shared_account import Account, Bucket, Session, Shares, SlidingWindow, Windows, shares, simulate

LIMIT = CEILING = 10.0
HOUR = 3600.0
JOBS = 200
"""Jobs of each triggerer, polled every second or as often as it may."""

COLUMNS = ("in use, least", "mean", "refused, most", "largest / smallest share, most", "mean", "longest gap, s")


def start_apart(count: int) -> Callable[[Random], list[Session]]:
    """Return a scene in which sessions start within a quarter of an hour."""
    return lambda random: [Session(random.uniform(0, 900)) for _ in range(count)]


def one_leaves(count: int) -> Callable[[Random], list[Session]]:
    """Return a scene in which one of the sessions ends after two hours."""
    return lambda random: [*start_apart(count - 1)(random), Session(leaves=2 * HOUR)]


def one_is_late(count: int) -> Callable[[Random], list[Session]]:
    """Return a scene in which one of the sessions starts after two hours."""
    return lambda random: [*start_apart(count - 1)(random), Session(starts=2 * HOUR)]


SCENES: dict[str, tuple[Callable[[Random], list[Session]], float, dict[str, Any]]] = {
    # (sessions, when what is measured begins, how the account or the ceiling differs)
    "2 triggerers": (start_apart(2), HOUR, {}),
    "3 triggerers": (start_apart(3), HOUR, {}),
    "5 triggerers": (start_apart(5), HOUR, {}),
    "10 triggerers": (start_apart(10), HOUR, {}),
    "3, of which one leaves an hour before": (one_leaves(3), 3 * HOUR, {}),
    "5, of which one leaves an hour before": (one_leaves(5), 3 * HOUR, {}),
    "3, of which one comes an hour before": (one_is_late(3), 3 * HOUR, {}),
    "3, refusals ask for 1 s": (start_apart(3), HOUR, {"account": lambda: Bucket(LIMIT, 1.0)}),
    "3, `requests_per_second` twice the limit": (start_apart(3), HOUR, {"ceiling": 2 * LIMIT}),
    "3, `requests_per_second` half the limit": (start_apart(3), HOUR, {"ceiling": LIMIT / 2}),
    "3, 600 a minute, refusals ask for the rest of it": (
        start_apart(3),
        HOUR,
        {"account": lambda: Windows(LIMIT, 60.0)},
    ),
    "8, 600 a minute, refusals ask for the rest of it": (
        start_apart(8),
        HOUR,
        {"account": lambda: Windows(LIMIT, 60.0)},
    ),
    "3, 600 a minute": (start_apart(3), HOUR, {"account": lambda: Windows(LIMIT, 60.0, 30.0)}),
    "3, 600 in any minute": (start_apart(3), HOUR, {"account": lambda: SlidingWindow(LIMIT, 60.0, 30.0)}),
    "3, 10 in each second, refusals ask for 1 s": (start_apart(3), HOUR, {"account": lambda: Windows(LIMIT, 1.0, 1.0)}),
    "3, 10 in each second": (start_apart(3), HOUR, {"account": lambda: Windows(LIMIT, 1.0, 30.0)}),
    "3, 10 in any second": (start_apart(3), HOUR, {"account": lambda: SlidingWindow(LIMIT, 1.0, 30.0)}),
}


def simulated(seeds: int) -> None:
    """Print the table of the scenes."""
    _say(f"| {' | '.join(('scene', *COLUMNS))} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for name, (scene, begin, differing) in SCENES.items():
        outcomes = [_outcome(scene, begin, differing, seed) for seed in range(seeds)]
        figures = (
            f"{min(each.used for each in outcomes):.1%}",
            f"{fmean(each.used for each in outcomes):.1%}",
            f"{max(each.refused for each in outcomes):.2%}",
            f"{max(each.ratio for each in outcomes):.2f}",
            f"{fmean(each.ratio for each in outcomes):.2f}",
            f"{max(each.longest_gap for each in outcomes):.0f}",
        )
        _say(f"| {' | '.join((name, *figures))} |")


def _outcome(scene: Callable[[Random], list[Session]], begin: float, differing: dict[str, Any], seed: int) -> Shares:
    sessions, end = scene(Random(seed)), begin + 3 * HOUR
    account: Account = differing.get("account", lambda: Bucket(LIMIT, 30.0))()
    simulate(sessions, account, ceiling=differing.get("ceiling", CEILING), seconds=end, seed=seed)
    return shares(sessions, LIMIT, begin, end)


class _Log(logging.Handler):
    """Reads, from the lines that the sandbox logs, when which triggerer's request was answered what."""

    def __init__(self, families: Sequence[str]) -> None:
        super().__init__()
        self.sessions = {family: Session() for family in families}

    def emit(self, record: logging.LogRecord) -> None:
        if match := re.match(r"POST /api/(\w+/\w+)/fetch/\d+ (\d+)", record.getMessage()):
            session = self.sessions[match[1]]
            (session.accepted if match[2] == "200" else session.refused).append(time.monotonic())


def real(count: int, minutes: float, pause: int) -> None:
    """Run so many triggerers, each with jobs of a family of its own, and print their shares every five minutes."""
    families = ["v6/video", "v6/voice", "v6/3d", "v6/realtime", "v6/interior"][:count]
    log = _Log(families)
    logger = logging.getLogger("airflow_provider_modelslab.sandbox.server")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(log)
    options: dict[str, Any] = {"duration": float("inf"), "queue_limit": None, "retry_after": pause}
    with Sandbox(**options, requests_per_second=LIMIT) as sandbox, tempfile.TemporaryDirectory() as home:
        os.environ.update(
            AIRFLOW_HOME=home,
            AIRFLOW__LOGGING__LOGGING_LEVEL="CRITICAL",
            AIRFLOW_CONN_MODELSLAB_DEFAULT=sandbox.connection,
        )
        stopping = PROCESSES.Event()
        processes = []
        began = time.monotonic()
        for family in families:
            jobs = [sandbox.submit(_PATHS[family], {"prompt": "a fox"}) for _ in range(JOBS)]
            arguments = ([{"id": str(job["id"]), "endpoint": family} for job in jobs], stopping)
            processes.append(PROCESSES.Process(target=_triggerer, args=arguments, daemon=False))
            processes[-1].start()
            time.sleep(20)
        _say("| minutes | in use | refused | largest / smallest share | longest gap, s |\n|---|---|---|---|---|")
        try:
            step = 300.0
            while time.monotonic() < began + 60 * minutes:
                time.sleep(step)
                now = time.monotonic()
                _tell(log, began, now - step, now)
            _tell(log, began, began + 30 * minutes, time.monotonic())  # the second half
        finally:
            stopping.set()
            for process in processes:
                process.join()


_PATHS = {
    "v6/video": "v6/video/text2video",
    "v6/voice": "v6/voice/text_to_speech",
    "v6/3d": "v6/3d/text_to_3d",
    "v6/realtime": "v6/realtime/text2img",
    "v6/interior": "v6/interior/make",
}


def _tell(log: _Log, began: float, begin: float, end: float) -> None:
    each = shares(list(log.sessions.values()), LIMIT, begin, end)
    minutes = f"{(begin - began) / 60:.0f} to {(end - began) / 60:.0f}"
    _say(f"| {minutes} | {each.used:.1%} | {each.refused:.2%} | {each.ratio:.2f} | {each.longest_gap:.0f} |")


def _triggerer(jobs: list[dict[str, str]], stopping: Event) -> None:
    from runner import running

    now = time.time()
    arguments = {
        "modelslab_conn_id": "modelslab_default",
        "jobs": jobs,
        "started": now,
        "deadline": now + 1e6,
        "poke_interval": 1.0,
    }
    with running() as runner:
        runner.start([("airflow_provider_modelslab.triggers.ModelsLabJobTrigger", arguments)])
        runner.work_until(stopping.is_set)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="Let triggerers share an account that limits requests.")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each simulated scene")
    parser.add_argument("--real", type=int, default=0, metavar="N", help="instead, so many real triggerers, 5 at most")
    parser.add_argument("--minutes", type=float, default=120.0, help="how long the real ones go")
    parser.add_argument("--pause", type=int, default=30, help="seconds that the sandbox's refusals ask for")
    options = parser.parse_args()
    if options.real:
        real(options.real, options.minutes, options.pause)
    else:
        simulated(options.seeds)


if __name__ == "__main__":
    main()
