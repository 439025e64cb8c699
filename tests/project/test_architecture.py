"""Imports point downward by folder, pure modules are pure, and nothing outside needs what stands in underscored folders."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.imports import imported_modules

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_modelslab"

LAYERS = (
    {"jobs", "endpoints", "provider_info"},
    {"_protocol"},
    {"exceptions"},
    {"_http", "_telemetry", "_object_storage"},
    {"_client"},
    {"_polling", "_ledger", "_outputs"},
    {"_tasks"},
    {"hooks", "sensors", "operators", "triggers", "decorators", "links", "picking", "ledger", "ui"},
)
"""The parts of the package, lowest first: a part imports itself and those below, and in the uppermost layer each other."""

RANKS = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
APART = {"sandbox"}
"""It stands for ModelsLab, and knows nothing of Airflow."""

PURE_PARTS = {"_protocol", "_polling"}
IMPURE = {f"{PACKAGE}._polling.{module}" for module in ("clock", "poller", "reporting", "worker_poller")}
SOURCES = {"airflow", "aiohttp", "asyncio", "requests", "secrets", "socket", "time", "uuid"}
"""Where I/O, time and chance come from."""

OUTSIDERS = {
    # The tests of these folders, and what these tests have in common.
    "tests/unit",
    "tests/wire",
    "tests/support",
    # What they measure or describe has no public name: the requests of the transport, the schedule, the storing of files,
    # the tables behind pages.
    "benchmarks/ceiling.py",
    "benchmarks/loop_stalls.py",
    "dev/reference.py",
    "tests/project/test_pages.py",
    "benchmarks/end_to_end.py",
    "benchmarks/save_outputs.py",
    "benchmarks/schedule_study.py",
}
"""The files and folders outside that may import underscored folders."""


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    """Return the folder or the flat module directly below the package."""
    return module.split(".")[1] if "." in module else ""


TREES = {module_name(file): ast.parse(file.read_text()) for file in sorted((ROOT / PACKAGE).rglob("*.py"))}
PURE = sorted(module for module in TREES if part_of(module) in PURE_PARTS and module not in IMPURE)


def imports_of(module: str) -> set[str]:
    """Return the modules of this package that a module imports, anywhere in it, and the names of all others."""
    names = {name if name in TREES else name.rpartition(".")[0] for name in imported_modules(TREES[module])}
    return names - {module}


IMPORTS = {module: {name for name in imports_of(module) if name in TREES} for module in TREES}


def test_every_part_has_its_layer():
    assert {part_of(module) for module in TREES} <= {*RANKS, *APART, ""}


@pytest.mark.parametrize("module", TREES)
def test_imports_point_downward(module):
    part = part_of(module)
    uppermost = len(LAYERS) - 1
    for imported in IMPORTS[module]:
        other = part_of(imported)
        if part in RANKS and other not in {part, ""}:
            assert other in RANKS, imported
            assert RANKS[other] < RANKS[part] or RANKS[other] == RANKS[part] == uppermost, imported


def test_the_sandbox_knows_addresses_and_jobs_only():
    imported = {part_of(name) for module in TREES if part_of(module) == "sandbox" for name in IMPORTS[module]}
    assert imported <= {"sandbox", "endpoints", "jobs", ""}


def test_no_module_imports_itself_by_way_of_others():
    TopologicalSorter(IMPORTS).prepare()


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_are_handed_time_and_chance(module):
    assert {part_of(name) for name in IMPORTS[module]} <= {*PURE_PARTS, "jobs", "endpoints"}
    assert IMPORTS[module].isdisjoint(IMPURE)
    imported = set(imported_modules(TREES[module]))
    assert {name.partition(".")[0] for name in imported}.isdisjoint(SOURCES)
    assert {name for name in imported if name.startswith("random")} <= {"random.Random"}
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func).rpartition(".")[2] not in {"Random", "now", "today", "utcnow"}, node.lineno


def underscored_folders(file: Path) -> set[str]:
    """Return the private folders of the package that a file imports, or names in a string, as for a patch."""
    tree = ast.parse(file.read_text())
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {*imported_modules(tree), *(text for text in strings if " " not in text)}
    parts = {part_of(name) for name in names if name.startswith(f"{PACKAGE}.")}
    return {part for part in parts if part.startswith("_") and not part.startswith("__")}


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "dev", "example_dags"])
def test_underscored_folders_are_imported_by_their_own_tests_only(folder):
    found = {file.relative_to(ROOT).as_posix() for file in (ROOT / folder).rglob("*.py") if underscored_folders(file)}
    assert {file for file in found if not file.startswith(tuple(OUTSIDERS))} == set()


PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_module_that_the_page_names_exists():
    names = set(re.findall(r"\b[\w/]+\.py\b", PAGE)) - {"tests/project/test_architecture.py"}
    assert len(names) > 15
    assert [name for name in names if not (ROOT / PACKAGE / name).is_file()] == []


def test_the_page_names_every_part():
    parts = {part_of(module) for module in TREES} - {""}
    named = set(re.findall(r"`(\w+)(?:\.py)?`", PAGE))
    assert parts <= named


def test_the_page_is_one_screen():
    assert len(PAGE.splitlines()) <= 60
