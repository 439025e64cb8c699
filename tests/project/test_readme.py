"""Every code block of the README runs, against the sandbox."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.dag_runs import DAGS_FOLDER, Run, load_dags

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON_BLOCKS = [code for language, code in BLOCKS if language == "python"]
DAG_BLOCKS = [code for code in PYTHON_BLOCKS if "schedule=None" in code]
TEST_BLOCKS = [code for code in PYTHON_BLOCKS if "def test_" in code]
PLUGIN_BLOCKS = [code for code in PYTHON_BLOCKS if "AirflowPlugin" in code]
PLAIN_BLOCKS = [code for code in PYTHON_BLOCKS if code not in DAG_BLOCKS + TEST_BLOCKS + PLUGIN_BLOCKS]
BASH_BLOCKS = [code for language, code in BLOCKS if language == "bash"]
MAKEFILE = (Path(__file__).parent.parent.parent / "Makefile").read_text()


@pytest.fixture
def quick_sandbox(monkeypatch):
    with Sandbox(duration=1.0) as quick:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", quick.connection)
        yield quick


def titled(blocks: list[str]) -> list:
    return [pytest.param(code, id=code.strip().splitlines()[-1][:40]) for code in blocks]


def json_in(output: bytes) -> list:
    """Return the JSON that a command has printed; some releases of Airflow put warnings before it."""
    return json.loads(output[output.index(b"[{") :])


def test_all_blocks_are_accounted_for():
    assert {language for language, _ in BLOCKS} == {"python", "bash", "console", "text"}
    assert [len(blocks) for blocks in (DAG_BLOCKS, TEST_BLOCKS, PLUGIN_BLOCKS, PLAIN_BLOCKS, BASH_BLOCKS)] == [
        3,
        1,
        1,
        1,
        4,
    ]


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.parametrize("code", titled(DAG_BLOCKS))
def test_dags_run(quick_sandbox: Sandbox, code: str):
    if sys.modules["airflow"].__version__ < "3":
        code = code.replace("from airflow.sdk import dag, task", "from airflow.decorators import dag, task")
        code = code.replace(
            "from airflow.sdk import Asset, dag",
            "from airflow.datasets import Dataset as Asset\nfrom airflow.decorators import dag",
        )
        code = code.replace("from airflow.sdk import DAG", "from airflow import DAG")
    file = DAGS_FOLDER / f"readme_{len(code)}.py"
    file.write_text(code)
    (dag,) = load_dags(file).values()
    run = Run(dag)
    assert run.state == "success", run.states


@pytest.mark.parametrize("code", titled(PLAIN_BLOCKS))
def test_plain_python_runs(quick_sandbox: Sandbox, code: str, capsys):
    exec(code, {})
    assert quick_sandbox.url in capsys.readouterr().out


@pytest.mark.parametrize("code", titled(TEST_BLOCKS))
def test_tests_pass(tmp_path: Path, code: str):
    (tmp_path / "test_block.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in result.stdout, result.stdout


@pytest.mark.parametrize("code", titled(PLUGIN_BLOCKS))
def test_the_plugin_frees_collections_of_what_is_loaded(tmp_path: Path, code: str):
    (tmp_path / "plugin.py").write_text(code)
    # What a triggerer does before it starts the process in which triggers run.
    starting = "import gc; from airflow.jobs.job import Job; Job(); print(gc.get_freeze_count(), len(gc.get_objects()))"
    environment = {**os.environ, "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path)}
    command = [sys.executable, "-c", starting]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    frozen, collected = map(int, result.stdout.split()[-2:])
    assert frozen > 20 * collected


@pytest.mark.usefixtures("airflow_database")
def test_the_connection_on_the_command_line():
    (command,) = (block for block in BASH_BLOCKS if block.startswith("airflow connections add"))
    environment = {
        **os.environ,
        "YOUR_KEY": "key-of-the-readme",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    subprocess.run(["bash", "-ec", command], env=environment, check=True, capture_output=True)
    shown = subprocess.run(
        ["airflow", "connections", "get", "modelslab_default", "-o", "json"],
        env=environment,
        check=True,
        capture_output=True,
    )
    (connection,) = json_in(shown.stdout)
    assert (connection["conn_type"], connection["password"]) == ("modelslab", "key-of-the-readme")
    subprocess.run(
        ["airflow", "connections", "delete", "modelslab_default"], env=environment, check=True, capture_output=True
    )


@pytest.mark.usefixtures("airflow_database")
def test_the_pool_on_the_command_line():
    (command,) = (block for block in BASH_BLOCKS if "pools" in block)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-ec", command], env=environment, check=True, capture_output=True)
    shown = subprocess.run(
        ["airflow", "pools", "get", "modelslab", "-o", "json"], env=environment, check=True, capture_output=True
    )
    (pool,) = json_in(shown.stdout)
    assert (str(pool["slots"]), str(pool["include_deferred"])) == ("5", "True")


def test_the_connection_as_a_variable(monkeypatch):
    from airflow_provider_modelslab.hooks import ModelsLabHook

    (command,) = (block for block in BASH_BLOCKS if block.startswith("export"))
    name, _, value = shlex.split(command)[1].partition("=")
    monkeypatch.setenv(name, value)
    options = ModelsLabHook().options
    assert (options.key, options.base_url, options.request_timeout) == ("your-key", None, 60)


def test_the_sandbox_on_the_command_line():
    (command,) = (block for block in BASH_BLOCKS if "sandbox" in block)
    arguments = shlex.split(command.replace("--port 8787", "--port 0"))
    process = subprocess.Popen([sys.executable, *arguments[1:]], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ModelsLab sandbox on http://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 0


def test_every_make_target_exists():
    targets = set(re.findall(r"(?:`|\$ )make ([a-z]+)", README))
    assert {"demo", "test", "airflow"} <= targets
    assert all(f"\n{target}:" in MAKEFILE for target in targets)


NAMED_TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", README)))


def test_the_table_of_what_to_rely_on_names_a_test_in_every_row():
    section = README.partition("## What you can rely on")[2].partition("\n## ")[0]
    (_, _, *rows) = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 20
    assert [row for row in rows if "::" not in row] == []


@pytest.mark.parametrize(("file", "test"), NAMED_TESTS)
def test_every_test_that_is_named_exists(file: str, test: str):
    assert f"\ndef {test}(" in (Path(__file__).parent.parent.parent / file).read_text()
