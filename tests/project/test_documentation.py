"""Every code block and every command of the pages runs, against the sandbox, or is listed with the reason why not."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest
import requests
from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.dag_runs import DAGS_FOLDER, Run, load_dags
from tests.support.pacing import set_policy
from tests.support.pages import ALL_PAGES, ROOT, Block, blocks, commands

ONLY_SHOWN = {
    ("architecture.md", "text"): "a diagram",
    ("howto.md", "text"): "needs a queue and two providers; tried by hand, as the page says",
}
"""Blocks that are not executed, with the reason."""

KINDS: dict[str, Callable[[Block], bool]] = {
    "command": lambda block: block.language in ("bash", "console"),
    "test": lambda block: block.language == "python" and "def test_" in block.code,
    "dag": lambda block: block.language == "python" and "schedule=None" in block.code,
    "plugin": lambda block: block.language == "python" and "AirflowPlugin" in block.code,
    "task": lambda block: block.language == "python" and "draw.output" in block.code and "def " not in block.code,
    "plain": lambda block: block.language == "python",
    "configuration": lambda block: block.language == "ini",
    "request": lambda block: block.language == "json",
    "shown": lambda block: (block.page, block.language) in ONLY_SHOWN,
}
"""What is to be done with a block: the first that fits."""

HERE = "tests/project/test_documentation.py"
RUN_BY = {
    'airflow connections add modelslab_default --conn-type modelslab --conn-password "$YOUR_KEY"': (
        f"{HERE}::test_the_connection_on_the_command_line"
    ),
    "airflow connections add …": f"{HERE}::test_the_command_that_the_sandbox_prints_connects_to_it",
    "airflow connections delete modelslab_default": f"{HERE}::test_the_command_that_the_sandbox_prints_connects_to_it",
    "airflow connections test modelslab_default": f"{HERE}::test_the_command_that_the_sandbox_prints_connects_to_it",
    "airflow db migrate": "the fixture airflow_database in tests/conftest.py",
    'airflow pools set modelslab 5 "queue slots of ModelsLab" --include-deferred': (
        f"{HERE}::test_the_pool_on_the_command_line"
    ),
    "export AIRFLOW_CONN_MODELSLAB_DEFAULT=": f"{HERE}::test_the_connection_as_a_variable",
    "make demo": ".ci/run",
    "make demo FAULTS=failed=1": ".ci/run",
    "make docs": ".ci/run",
    "make help": f"{HERE}::test_the_targets_of_make",
    "make system-newest": ".ci/run",
    "make system-oldest": ".ci/run",
    "make test": ".ci/run",
    "make unit": ".ci/run, as a part of make test",
    "pytest tests/wire/test_paid_once.py -k hundred": (
        "tests/wire/test_paid_once.py::test_a_hundred_items_cost_three_writes_each_and_no_list_of_the_store"
    ),
    "python -m airflow_provider_modelslab.ledger": "tests/wire/test_ledger_command.py",
    "python -m airflow_provider_modelslab.sandbox": f"{HERE}::test_the_sandbox_on_the_command_line",
    "python dev/reference.py": "tests/project/test_pages.py::test_what_is_generated_is_current",
}
"""The commands of the pages, or how they begin, and what runs them."""

NOT_RUN = {
    "make airflow": "it goes on until somebody ends it, on fixed ports",
    "make distributed": "20 minutes, and Redis",
    "make first-hour": "it takes minutes, on fixed ports",
    "make matrix-system": "an hour, and an environment for each Airflow",
    "make pictures": "it changes the pictures of the pages; make test runs the same tests without that",
    "make sandbox": "python -m airflow_provider_modelslab.sandbox, which is run",
    "pip install": "there is no release yet; tests/project/test_packaging.py builds the wheel",
    "python benchmarks/": "measurements of up to an hour, which need a machine without other work",
}
"""How the commands begin that nothing runs, with the reason."""


def every(kind: str) -> pytest.MarkDecorator:
    """Parametrise a test with the blocks of a kind."""
    chosen = [block for block in blocks() if kind_of(block) == kind]
    assert chosen, kind
    ids = [f"{block.page}: {block.code.strip().splitlines()[-1][:40]}" for block in chosen]
    return pytest.mark.parametrize("code", [block.code for block in chosen], ids=ids)


def kind_of(block: Block) -> str | None:
    return next((kind for kind, fits in KINDS.items() if fits(block)), None)


def listed(command: str, table: dict[str, str]) -> list[str]:
    """Return the entry that a command has in a table: the longest with which it begins."""
    return sorted((start for start in table if command.startswith(start)), key=len)[-1:]


def the_command(start: str) -> str:
    """Return the command that starts like that, on however many pages it stands."""
    (command,) = (command for command in commands() if command.startswith(start))
    return command


@pytest.fixture
def quick_sandbox(monkeypatch):
    with Sandbox(duration=1.0) as quick:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", quick.connection)
        set_policy(monkeypatch, min_long_delay=1.0)  # trainings take a second here
        yield quick


def json_in(output: bytes) -> list:
    """Return the JSON that a command has printed; some releases of Airflow put warnings before it."""
    return json.loads(output[output.index(b"[{") :])


def shell(*command: str, **variables: str) -> bytes:
    """Run a command of this environment; return what it prints."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(command, env=environment, check=True, capture_output=True).stdout


def test_every_block_is_executed_or_listed():
    assert [block for block in blocks() if kind_of(block) is None] == []
    fences = sum(len(re.findall("^```", page.read_text(), re.MULTILINE)) for page in ALL_PAGES)
    assert fences == 2 * len(blocks())
    assert {(block.page, block.language) for block in blocks()} >= ONLY_SHOWN.keys()


def test_every_command_is_run_or_listed():
    entries = {command: [*listed(command, RUN_BY), *listed(command, NOT_RUN)] for command in commands()}
    assert [command for command, found in entries.items() if len(found) != 1] == [], "neither run nor listed, or both"
    assert {found for (found,) in entries.values()} == RUN_BY.keys() | NOT_RUN.keys(), "on no page any more"


def test_what_is_said_to_run_a_command_does():
    build = (ROOT / ".ci" / "run").read_text()
    for command, where in RUN_BY.items():
        if where == ".ci/run":
            target = re.escape(command.removeprefix("make "))
            assert re.search(rf"^(if )?make (.* )?{target}( |;|$)", build, re.MULTILINE), command
        file, _, test = where.partition("::")
        assert not test or f"\ndef {test}(" in (ROOT / file).read_text(), where
    assert re.search(r"^test:.* unit\b", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_example_dag_is_run():
    tests = [ROOT / "tests" / "runs" / "test_example_dags.py", ROOT / "tests" / "system" / "test_examples.py"]
    code = "".join(test.read_text() for test in tests)
    names = [file.stem for file in (ROOT / "example_dags").glob("*.py")]
    assert [name for name in names if f'"{name}"' not in code] == []


def test_the_options_of_benchmarks_exist():
    for command in commands():
        if command.startswith("python benchmarks/"):
            script, *options = shlex.split(command)[1:]
            code = (ROOT / script).read_text()
            assert [each for each in options if each.startswith("--") and f'"{each}"' not in code] == [], command


def test_the_targets_of_make():
    shown = shell("make", "-C", str(ROOT), "--no-print-directory", "help").decode()
    assert {"demo", "test", "airflow", "docs"} <= set(re.findall(r"^make ([a-z-]+)", shown, re.MULTILINE))


@pytest.mark.usefixtures("airflow_database")
@every("dag")
def test_dags_run(quick_sandbox: Sandbox, code: str):
    file = DAGS_FOLDER / f"documentation_{len(code)}.py"
    file.write_text(code)
    (dag,) = load_dags(file).values()
    run = Run(dag)
    assert run.state == "success", run.states


@every("plain")
def test_plain_python_runs(quick_sandbox: Sandbox, code: str, capsys):
    exec(code, {})
    assert quick_sandbox.url in capsys.readouterr().out


@every("test")
def test_tests_pass(tmp_path: Path, code: str):
    (tmp_path / "test_block.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in result.stdout, result.stdout


@every("plugin")
def test_the_plugin_frees_collections_of_what_is_loaded(tmp_path: Path, code: str):
    (tmp_path / "plugin.py").write_text(code)
    # What a triggerer does before it starts the process in which triggers run.
    starting = "import gc; from airflow.jobs.job import Job; Job(); print(gc.get_freeze_count(), len(gc.get_objects()))"
    printed = shell(sys.executable, "-c", starting, AIRFLOW__CORE__PLUGINS_FOLDER=str(tmp_path))
    frozen, collected = map(int, printed.split()[-2:])
    assert frozen > 20 * collected


@pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="earlier releases ask nobody")
@every("task")
def test_tasks_of_a_dag_are_accepted(code: str):
    with DAG("documentation", schedule=None) as dag:
        draw = ModelsLabGenerateOperator(task_id="draw", endpoint="v6/images/text2img", payload={"prompt": "a fox"})
        exec(code, {"draw": draw})
    assert len(dag.tasks) == 2


@every("configuration")
def test_the_configuration_is_read(tmp_path: Path, code: str):
    (tmp_path / "airflow.cfg").write_text(code)
    written = configparser.ConfigParser()
    written.read_string(code)
    for section in written.sections():
        for name, value in written[section].items():
            printed = shell("airflow", "config", "get-value", section, name, AIRFLOW_HOME=str(tmp_path))
            assert printed.decode().splitlines()[-1] == value


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="the requests are those of Airflow 3")
@every("request")
def test_the_api_accepts_the_body_of_a_request(code: str):
    from airflow.api_fastapi.core_api.datamodels.dag_run import TriggerDAGRunPostBody

    assert TriggerDAGRunPostBody.model_validate_json(code).conf


@pytest.mark.usefixtures("airflow_database")
def test_the_connection_on_the_command_line():
    shell("bash", "-ec", the_command("airflow connections add modelslab_default"), YOUR_KEY="key-of-the-readme")
    (connection,) = json_in(shell("airflow", "connections", "get", "modelslab_default", "-o", "json"))
    assert (connection["conn_type"], connection["password"]) == ("modelslab", "key-of-the-readme")
    shell("airflow", "connections", "delete", "modelslab_default")


@pytest.mark.usefixtures("airflow_database")
def test_the_pool_on_the_command_line():
    shell("bash", "-ec", the_command("airflow pools set"))
    (pool,) = json_in(shell("airflow", "pools", "get", "modelslab", "-o", "json"))
    assert (str(pool["slots"]), str(pool["include_deferred"])) == ("5", "True")


def test_the_connection_as_a_variable(monkeypatch):
    from airflow_provider_modelslab.hooks import ModelsLabHook

    name, _, value = shlex.split(the_command("export"))[1].partition("=")
    monkeypatch.setenv(name, value)
    options = ModelsLabHook().options
    assert (options.key, options.base_url, options.request_timeout) == ("your-key", None, 60)


def test_the_sandbox_on_the_command_line():
    with serving(
        the_command("python -m airflow_provider_modelslab.sandbox --port").replace("8787", "0")
    ) as first_lines:
        assert first_lines[0].startswith("ModelsLab sandbox on http://127.0.0.1:")


@pytest.mark.usefixtures("airflow_database")
def test_the_command_that_the_sandbox_prints_connects_to_it():
    with serving("python -m airflow_provider_modelslab.sandbox --port 0") as printed:
        (command,) = (line for line in printed if line.startswith("airflow connections add "))
        shell(*shlex.split(command))
        tested = shell(*shlex.split(the_command("airflow connections test")), AIRFLOW__CORE__TEST_CONNECTION="Enabled")
    shell(*shlex.split(the_command("airflow connections delete")))
    assert b"Connection success" in tested


@contextmanager
def serving(command: str) -> Iterator[list[str]]:
    """Run the command of a sandbox; yield what it prints first, and see it end well."""
    process = subprocess.Popen([sys.executable, *shlex.split(command)[1:]], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield [process.stdout.readline() for _ in range(4)]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0


def test_the_commands_of_the_sandbox_over_http():
    text = (ROOT / "docs" / "sandbox.md").read_text()
    rows = re.findall(r"^\| `(GET|POST) (/\S*)` \| (?:.*?`(\{.*\})`)?.* \|", text, re.MULTILINE)
    assert len(rows) > 6
    with Sandbox(duration=float("inf")) as sandbox:
        for method, path, body in rows:
            sandbox.reset()
            sandbox.submit("v6/images/text2img", {"prompt": "a fox"})
            reply = requests.request(method, f"{sandbox.url}{path}", data=body or None, timeout=10)
            assert reply.status_code == 200, (path, reply.text)


@pytest.mark.usefixtures("airflow_database")
def test_xcoms_are_as_their_schemas_say(quick_sandbox: Sandbox):
    (code,) = (block.code for block in blocks() if block.page == "howto.md" and "def zoo" in block.code)
    quick_sandbox.script("submit", [None, "rate_limit"])
    file = DAGS_FOLDER / "documentation_schemas.py"
    file.write_text(code)
    (dag,) = load_dags(file).values()
    run = Run(dag)
    for key in ("jobs", "manifest"):
        schema = json.loads((ROOT / "docs" / "schemas" / f"{key}.schema.json").read_text())
        jsonschema.validate(run.xcom("draw", key), schema)
