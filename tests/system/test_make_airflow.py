"""``make airflow``, started once for all that it promises."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS
from airflow_instance import HOST, PATIENCE, free_port
from airflow_instance.releases import installed

from tests.support.waiting import wait_until
from tests.system.test_installation import EXAMPLES

STANDALONE = Path(__file__).parents[2] / "dev" / "standalone.py"
QUEUE = 7


class Printed:
    """
    What a process prints.

    :param file: where that goes.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def match(self, pattern: str) -> re.Match[str]:
        """Wait for a match."""
        wait_until(lambda: re.search(pattern, self._text()) is not None, PATIENCE)
        found = re.search(pattern, self._text())
        assert found
        return found

    def _text(self) -> str:
        return self._file.read_text(errors="replace")  # it may end in the middle of a character


@pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="make airflow installs a later release")
def test_one_start_has_all_that_is_promised_and_a_killed_triggerer_comes_back(tmp_path: Path):
    port, sandbox_port = free_port(), free_port()
    (tmp_path / "airflow.db").touch()  # as if it had run before
    arguments = [str(tmp_path), "--port", str(port), "--sandbox-port", str(sandbox_port), "--queue", str(QUEUE)]
    with running(arguments, tmp_path / "printed", AIRFLOW__CORE__PARALLELISM="1") as printed:
        assert "AIRFLOW__CORE__PARALLELISM" in printed.match("Not passed on to this Airflow: (.*)")[1].split(", ")
        printed.match("The jobs of an earlier sandbox are gone")
        pid = int(printed.match(r"kill -9 (\d+)")[1])
        api = installed().rest_api(f"http://{HOST}:{port}")

        pool = api.get("pools/modelslab")
        assert (pool["slots"], pool["include_deferred"]) == (QUEUE, True)
        assert requests.get(f"http://{HOST}:{sandbox_port}/", timeout=PATIENCE).ok
        as_the_ui_asks = {"connection_id": "modelslab_default", "conn_type": "modelslab", "password": "***", "port": 0}
        tested = api.request("POST", "connections/test", json=as_the_ui_asks).json()
        assert tested["status"], tested["message"]

        def parsed() -> dict[str, bool]:
            return {dag["dag_id"]: dag["is_paused"] for dag in api.get("dags", limit=100)["dags"]}

        wait_until(lambda: parsed().keys() >= EXAMPLES, PATIENCE)
        assert not any(parsed().values())

        os.kill(pid, signal.SIGKILL)
        printed.match("The triggerer has died")
        assert int(printed.match(r"The triggerer runs again, as process (\d+)")[1]) != pid
        wait_until(lambda: api.get("monitor/health")["triggerer"]["status"] == "healthy", PATIENCE)


@contextmanager
def running(arguments: list[str], log: Path, **env: str) -> Iterator[Printed]:
    """Run ``dev/standalone.py``, and see it end well when it is interrupted."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, STANDALONE, *arguments], stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env}
        )
    try:
        yield Printed(log)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    assert process.returncode == 0
    assert log.read_text().endswith("Stopped.\n")
