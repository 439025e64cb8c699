"""
Airflow's LocalExecutor, which writes down what each worker process has cost: what ``end_to_end.py`` runs Airflow with.

Nothing is added to the process of the task itself: its supervisor, which waits for its end anyway, then asks the
system what it has used, to the last instruction, all its own children included.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.local_executor import LocalExecutor

#: The environment variable with the path of the file to append to: one JSON object per line.
FILE_VARIABLE = "BENCHMARK_WORKERS_FILE"

_run_workload = BaseExecutor.run_workload


class MeasuredLocalExecutor(LocalExecutor):
    """A LocalExecutor; its workers, forked from the process that has imported this module, measure."""


def _measured(workload: Any, **arguments: Any) -> int:
    began, before = time.time(), os.times()
    _note(workload)
    try:
        return _run_workload(workload, **arguments)
    finally:
        after = os.times()
        _note(
            workload,
            slot=time.time() - began,
            task_cpu=after.children_user + after.children_system - before.children_user - before.children_system,
            supervisor_cpu=after.user + after.system - before.user - before.system,
        )


def _note(workload: Any, **measured: float) -> None:
    """Note that a worker has begun, or what has been measured at its end."""
    ti = workload.ti
    line = {"run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index, "measured": measured}
    with Path(os.environ[FILE_VARIABLE]).open("a") as file:
        file.write(json.dumps(line) + "\n")


BaseExecutor.run_workload = staticmethod(_measured)  # type: ignore[method-assign]
