"""Every code block of the README and of docs/ runs, against the sandbox, and what these pages name exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
import reference
import requests

from airflow_provider_modelslab.sandbox import Sandbox
from tests.support.dag_runs import DAGS_FOLDER, Run, load_dags
from tests.support.pacing import set_policy

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text()


@dataclass(frozen=True)
class Block:
    """
    A code block.

    :param page: the name of its page.
    :param language: what follows the fence.
    :param code: its text.
    """

    page: str
    language: str
    code: str

    @property
    def kind(self) -> str:
        """What is to be done with it."""
        if self.language != "python":
            return self.language
        marks = {"def test_": "test", "schedule=None": "dag", "AirflowPlugin": "plugin"}
        return next((kind for mark, kind in marks.items() if mark in self.code), "plain")


BLOCKS = [
    Block(page.name, language, code)
    for page in PAGES
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
]
EXECUTED = {"dag", "test", "plugin", "plain", "bash"}
SHOWN = {"console", "text"}
"""Blocks that are not executed: what a shell shows, and diagrams."""


def every(kind: str) -> pytest.MarkDecorator:
    """Parametrise a test with the blocks of a kind."""
    blocks = [block for block in BLOCKS if block.kind == kind]
    ids = [f"{block.page}: {block.code.strip().splitlines()[-1][:40]}" for block in blocks]
    return pytest.mark.parametrize("code", [block.code for block in blocks], ids=ids)


def bash_block(start: str) -> str:
    """Return the command that starts like that, on however many pages it stands."""
    (command,) = {block.code for block in BLOCKS if block.kind == "bash" and block.code.startswith(start)}
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


def test_every_block_is_executed_or_only_shown():
    assert {block.kind for block in BLOCKS} == EXECUTED | SHOWN
    fences = sum(len(re.findall("^```", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert fences == 2 * len(BLOCKS)
    commands = [block.code for block in BLOCKS if block.kind == "bash"]
    assert [each for each in commands if not each.startswith(tuple(COMMANDS))] == []
    assert all(name in globals() for name in COMMANDS.values())


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


COMMANDS = {
    "airflow connections add": "test_the_connection_on_the_command_line",
    "airflow pools set": "test_the_pool_on_the_command_line",
    "export": "test_the_connection_as_a_variable",
    "python -m airflow_provider_modelslab.sandbox": "test_the_sandbox_on_the_command_line",
}
"""The commands of the pages, and the tests that run them."""


@pytest.mark.usefixtures("airflow_database")
def test_the_connection_on_the_command_line():
    shell("bash", "-ec", bash_block("airflow connections add"), YOUR_KEY="key-of-the-readme")
    (connection,) = json_in(shell("airflow", "connections", "get", "modelslab_default", "-o", "json"))
    assert (connection["conn_type"], connection["password"]) == ("modelslab", "key-of-the-readme")
    shell("airflow", "connections", "delete", "modelslab_default")


@pytest.mark.usefixtures("airflow_database")
def test_the_pool_on_the_command_line():
    shell("bash", "-ec", bash_block("airflow pools set"))
    (pool,) = json_in(shell("airflow", "pools", "get", "modelslab", "-o", "json"))
    assert (str(pool["slots"]), str(pool["include_deferred"])) == ("5", "True")


def test_the_connection_as_a_variable(monkeypatch):
    from airflow_provider_modelslab.hooks import ModelsLabHook

    name, _, value = shlex.split(bash_block("export"))[1].partition("=")
    monkeypatch.setenv(name, value)
    options = ModelsLabHook().options
    assert (options.key, options.base_url, options.request_timeout) == ("your-key", None, 60)


def test_the_sandbox_on_the_command_line():
    command = bash_block("python -m airflow_provider_modelslab.sandbox").replace("--port 8787", "--port 0")
    process = subprocess.Popen([sys.executable, *shlex.split(command)[1:]], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ModelsLab sandbox on http://127.0.0.1:")
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page: Path):
    targets = re.findall(r"(?:`|\$ )make ([a-z]+)", page.read_text())
    assert [target for target in targets if f"\n{target}:" not in MAKEFILE] == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"], ids=str)
def test_every_link_between_pages_resolves(page: Path):
    for path, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#?)([^)]*)\)", page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), anchor


def test_the_readme_is_short():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    assert len(readme.split()) <= 1200


def test_every_page_is_in_the_navigation_and_on_the_first_page():
    pages = {page.name for page in PAGES[1:]}
    navigation = set(re.findall(r"([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert pages - navigation == set(), "add the page to mkdocs.yml"
    index = (ROOT / "docs" / "index.md").read_text()
    assert [page for page in sorted(pages - {"index.md"}) if f"({page})" not in index] == []


def rows_of(page: Path) -> set[str]:
    """Return the rows of the tables of a page, without their heads."""
    tables = re.findall(r"^\|[-:| ]+\|\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    rows = {" ".join(row.split()) for table in tables for row in table.splitlines()}
    return {row for row in rows if len(row) > 40}


def test_no_page_repeats_a_row_of_another_ones_table():
    for number, page in enumerate(PAGES):
        for other in PAGES[number + 1 :]:
            assert rows_of(page) & rows_of(other) == set(), f"{page.name} and {other.name}"


def test_what_is_generated_is_current():
    pytest.importorskip(
        "airflow_provider_modelslab.picking", reason="The page of all arguments has the operator of 3.1"
    )
    outdated = [path.name for path, content in reference.generated().items() if path.read_text() != content]
    assert outdated == [], "run: python dev/reference.py"


@pytest.mark.parametrize("picture", (ROOT / "docs" / "pictures").iterdir(), ids=lambda path: path.name)
def test_pictures_load_quickly(picture: Path):
    assert picture.stat().st_size < 200_000


@pytest.mark.usefixtures("airflow_database")
def test_xcoms_are_as_their_schemas_say(quick_sandbox: Sandbox):
    (code,) = (block.code for block in BLOCKS if block.page == "howto.md" and "def zoo" in block.code)
    quick_sandbox.script("submit", [None, "rate_limit"])
    file = DAGS_FOLDER / "documentation_schemas.py"
    file.write_text(code)
    (dag,) = load_dags(file).values()
    run = Run(dag)
    for key in ("jobs", "manifest"):
        schema = json.loads((ROOT / "docs" / "schemas" / f"{key}.schema.json").read_text())
        jsonschema.validate(run.xcom("draw", key), schema)


@pytest.mark.parametrize("page", ["guarantees", "security"])
def test_every_promise_names_a_test(page: str):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    rows = [
        row for table in re.findall(r"^\|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE) for row in table.splitlines()
    ]
    assert len(rows) > 20
    assert [row for row in rows if "::" not in row] == []


NAMED_TESTS = sorted(
    {match for page in PAGES for match in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())}
)


@pytest.mark.parametrize(("file", "test"), NAMED_TESTS)
def test_every_named_test_exists(file: str, test: str):
    assert f"\ndef {test}(" in (ROOT / file).read_text()
