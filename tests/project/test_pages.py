"""What the pages name exists, each table stands on one page, and what is generated is current."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import reference
from airflow.providers.common.compat.sdk import BaseSensorOperator
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_modelslab._ledger.identity import TaskTry
from airflow_provider_modelslab._ledger.receipts import Receipt
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.provider_info import CONNECTION_FIELDS
from airflow_provider_modelslab.sandbox.faults import FAULTS
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.pages import ALL_PAGES, PAGES, ROOT, Table, anchors, links, tables

EVERY_PAGE = pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@EVERY_PAGE
def test_every_link_between_pages_resolves(page: Path):
    for path, anchor in links(page):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@EVERY_PAGE
def test_every_make_target_exists(page: Path):
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text())
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def test_the_readme_is_short():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    assert len(readme.split()) <= 1200


def test_every_page_is_in_the_navigation_and_on_the_first_page():
    pages = {page.name for page in PAGES[1:]}
    navigation = set(re.findall(r"([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert pages - navigation == set(), "add the page to mkdocs.yml"
    index = {path for path, _ in links(ROOT / "docs" / "index.md")}
    assert sorted(pages - {"index.md"} - index) == []


@pytest.mark.parametrize("picture", (ROOT / "docs" / "pictures").iterdir(), ids=lambda path: path.name)
def test_pictures_load_quickly(picture: Path):
    assert picture.stat().st_size < 200_000


@pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="the pages describe an operator of 3.1, too")
def test_what_is_generated_is_current():
    outdated = [path.name for path, content in reference.generated().items() if path.read_text() != content]
    assert outdated == [], "run: python dev/reference.py"


# --- tables ---------------------------------------------------------------------------------------------


def test_no_page_repeats_the_table_of_another_one():
    found = [table for page in ALL_PAGES for table in tables(page)]
    assert len(found) > 50
    repeated = {
        (one.page, other.page): repeats
        for number, one in enumerate(found)
        for other in found[number + 1 :]
        if one.page != other.page and not (one.generated and other.generated)
        if (repeats := repeated_rows(one, other))
    }
    assert {pages: repeats for pages, repeats in repeated.items() if pages not in ABOUT_THE_SAME} == {}
    assert [pages for pages in ABOUT_THE_SAME if pages not in repeated] == []


ABOUT_THE_SAME = {
    ("README.md", "xcoms.md"): "the first four XComs to know of, and all of them with their schemas",
    ("arguments.md", "operator.md"): "which values are refused when, and what arguments mean",
    ("arguments.md", "sensor.md"): "the same",
    ("ledger.md", "xcoms.md"): "the fields of a receipt, and those of a job's record",
}
"""Pages with tables about the same things that say something else about them."""


def repeated_rows(one: Table, other: Table) -> list[str]:
    """
    Return the first cells of the rows that two tables have in common.

    Few may be chance: whole rows count where they are long, equal first cells where there are three.
    """
    whole = {row[0] for row in set(one.rows) & set(other.rows) if sum(map(len, row)) > 40}
    first = ({row[0] for row in one.rows} & {row[0] for row in other.rows}) - {""}
    return sorted(whole | first if whole or len(first) > 2 else ())


def test_a_table_that_is_repeated_is_found():
    one = Table("one", ("XCom", "content"), (("`jobs`", "records"), ("`files`", "paths"), ("`items`", "payloads")))
    words = Table("other", ("key", "what it is"), (("`jobs`", "a"), ("`files`", "b"), ("`items`", "c"), ("x", "d")))
    assert repeated_rows(one, words) == ["`files`", "`items`", "`jobs`"]
    assert repeated_rows(one, Table("other", words.head, words.rows[1:])) == []
    row = ("`batch`", "a row so long that nobody writes it twice by chance")
    assert repeated_rows(Table("one", one.head, (row,)), Table("other", words.head, (row,))) == ["`batch`"]


# --- what the code has ----------------------------------------------------------------------------------


def names_in(page: str, head: str) -> set[str]:
    """Return the names in the first column of the tables of a page whose first head is this."""
    found = [table for table in tables(ROOT / "docs" / page) if table.head[0] == head]
    return {name for table in found for row in table.rows for name in re.findall(r"`(\w+)`", row[0])}


def test_the_page_of_the_connection_has_its_fields():
    assert names_in("connection.md", "field") == set(CONNECTION_FIELDS)


def test_the_page_of_the_sandbox_has_its_faults():
    assert names_in("sandbox.md", "faults") == set(FAULTS)


def test_the_page_of_the_ledger_has_the_fields_of_a_receipt():
    task = TaskTry(dag_id="gallery", task_id="draw", run_id="run")
    receipt = Receipt(state="intended", endpoint="v6/video", account="", payload_digest="", item="0", task=task)
    assert names_in("ledger.md", "field") == set(receipt.to_dict())


def test_the_page_of_arguments_names_arguments():
    takers = (ModelsLabGenerateOperator, ModelsLabJobSensor, BaseSensorOperator, ModelsLabHook.submit)
    known = {name for taker in takers for name in inspect.signature(taker).parameters}
    assert names_in("arguments.md", "argument") - {"ObjectStoragePath"} <= known


# --- promises -------------------------------------------------------------------------------------------


def test_every_row_about_security_names_a_test():
    rows = [row for table in tables(ROOT / "docs" / "security.md") for row in table.rows]
    assert len(rows) > 20
    assert [row for row in rows if "::" not in row[-1]] == []


@pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="some of the tests can only be read with a later Airflow")
def test_every_named_test_is_collected_and_not_skipped():
    guaranteed = {test for section in reference.guarantees() for row in section["guarantee"] for test in row["tests"]}
    assert len(guaranteed) > 80
    named = {test for page in ALL_PAGES for test in re.findall(r"`(tests/[\w/]+\.py::\w+)`", page.read_text())}
    assert guaranteed <= named
    runs = collected({test.partition("::")[0] for test in named})
    assert sorted(named - runs.keys()) == [], "there are no such tests"
    assert [test for test in sorted(named) if not runs[test]] == [], "these never run"


def collected(files: set[str]) -> dict[str, bool]:
    """Return the tests that pytest collects from these files, and whether each runs."""
    command = [sys.executable, "-m", "tests.support.collected_tests", *sorted(files)]
    environment = {**os.environ, "REQUIRE_BROWSER": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
