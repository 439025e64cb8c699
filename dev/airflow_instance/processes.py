"""Airflow's processes: finding all that belong together, and ending them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

#: How the name begins that LocalExecutor gives a worker; the task itself runs in a descendant of it.
_WORKER_TITLE = "airflow worker -- LocalExecutor"


def end_trees(leaders: list[subprocess.Popen[bytes]], grace: float) -> None:
    """
    End processes with all their descendants.

    :param leaders: processes that were started each in a session of its own.
    :param grace: seconds that they have to end on SIGTERM before all are killed; without, they are killed at once.
    """
    members = tree(leaders)
    if grace:
        for process in leaders:
            process.terminate()
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(process.poll() is None for process in leaders):
            time.sleep(0.05)
    while alive := (members | tree(leaders)) & _parents().keys():
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in leaders:
            process.wait()
        time.sleep(0.02)


def tree(leaders: Iterable[subprocess.Popen[bytes]]) -> set[int]:
    """
    Find the processes of the sessions that the leaders have opened, and all descendants of these processes.

    Airflow puts every task into its own process group, and some operators open a session for their commands.
    """
    parents = _parents()
    sessions = {leader.pid for leader in leaders}
    found = {pid for pid in parents if _session_of(pid) in sessions}
    while children := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= children
    return found


def local_worker(scheduler: subprocess.Popen[bytes], title: str) -> psutil.Process | None:
    """
    Find the worker of LocalExecutor that has a task instance in hand, by the title it gives itself (not on macOS).

    :param scheduler: the scheduler, whose children the workers are.
    :param title: what stands in the worker's title, only.
    """
    for worker in psutil.Process(scheduler.pid).children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            name = " ".join(worker.cmdline())
            if name.startswith(_WORKER_TITLE) and title in name:
                return worker
    return None


def kill(victims: list[psutil.Process]) -> None:
    """Send SIGKILL to processes, in this order, and wait until none of them runs."""
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    while any(_runs(victim) for victim in victims):
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    """Tell whether a process runs: a zombie does not, and waits perhaps long for its parent."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _parents() -> dict[int, int]:
    """List all processes that run, without zombies, each with its parent."""
    processes = psutil.process_iter(["ppid", "status"])
    return {each.pid: each.info["ppid"] for each in processes if each.info["status"] != psutil.STATUS_ZOMBIE}
