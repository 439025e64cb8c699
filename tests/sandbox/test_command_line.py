from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import requests

from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.__main__ import main

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts the command line as a process of its own, and leaves none behind."""
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "airflow_provider_modelslab.sandbox", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def introduction(process: subprocess.Popen[str]) -> tuple[str, dict[str, str], list[str]]:
    """Return the URL, the connection and the command that the program prints."""
    assert process.stdout is not None
    first, export, command = (process.stdout.readline() for _ in range(3))
    name, _, value = export.removeprefix("export ").partition("=")
    assert name == "AIRFLOW_CONN_MODELSLAB_DEFAULT"
    connection = json.loads(shlex.split(value)[0])
    assert connection["host"] in first
    return connection["host"], connection, shlex.split(command)


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_interrupted(run: Run, interruption: signal.Signals) -> None:
    process = run("--port", "0", "--key", "it's a key", "--queue-limit", "1", "--duration", "inf")
    url, connection, command = introduction(process)
    assert connection == {"conn_type": "modelslab", "host": url, "password": "it's a key"}
    assert command[:4] == ["airflow", "connections", "add", "modelslab_default"]
    assert dict(zip(command[4::2], command[5::2], strict=True)) == {
        "--conn-type": "modelslab",
        "--conn-host": url,
        "--conn-password": "it's a key",
    }
    body = {"key": "it's a key", "prompt": "confidential"}
    replies = [requests.post(f"{url}/api/v6/video/text2video", json=body, timeout=60) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 429]
    process.send_signal(interruption)
    out, log = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert [line.partition("INFO ")[2] for line in log.splitlines()] == [
        "POST /api/v6/video/text2video 200",
        "POST /api/v6/video/text2video 429",
    ]


@pytest.fixture
def no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the signals to pytest."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.mark.usefixtures("no_signals")
def test_a_port_in_use_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Sandbox() as sandbox, pytest.raises(SystemExit) as exit_:
        main(["--port", sandbox.url.rpartition(":")[2]])
    assert exit_.value.code == 1
    out, errors = capsys.readouterr()
    assert (out, len(errors.splitlines())) == ("", 1)
    assert "address already in use" in errors


@pytest.mark.usefixtures("no_signals")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--faults", "http_418=0.1"], "unknown fault 'http_418'"),
        (["--faults", "http_500"], "failed=0.1,html=0.05"),
        (["--instant", "2"], "instant is a probability"),
        (["--duration", "-1"], "not negative"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--port", "0", *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_options_reach_the_sandbox_and_an_open_port_is_warned_of(run: Run) -> None:
    arguments = ["--instant", "1", "--faults", "http_500=0, failed=1", "--requests-per-second", "1e-6"]
    process = run("--host", "0.0.0.0", "--port", "0", *arguments)
    url, connection, _ = introduction(process)
    assert url.startswith("http://127.0.0.1:")
    body = {"key": connection["password"], "prompt": "a lighthouse at dusk"}
    assert requests.post(f"{url}/api/v6/video/text2video", json=body, timeout=60).json()["status"] == "failed"
    assert requests.post(f"{url}/api/v6/video/text2video", json=body, timeout=60).status_code == 429
    process.terminate()
    assert "test server: anyone who can reach 0.0.0.0 can use and control it" in process.communicate(timeout=60)[1]
