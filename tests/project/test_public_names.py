"""``__all__`` of each public module, the documentation and the modules themselves agree."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

import airflow_provider_modelslab

ROOT = Path(__file__).parents[2]
PACKAGE = airflow_provider_modelslab.__name__
NOT_PUBLIC = {"provider_info", "ui"}  # for Airflow alone
NOT_HERE = set() if AIRFLOW_V_3_1_PLUS else {"picking"}
MODULES = sorted(
    {file.stem for file in (ROOT / PACKAGE).glob("[a-z]*.py")}
    | {folder.name for folder in (ROOT / PACKAGE).glob("[a-z]*/")}
)
PUBLIC = [name for name in MODULES if name not in NOT_PUBLIC | NOT_HERE]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def exported(module: str) -> list[str]:
    return import_module(f"{PACKAGE}.{module}").__all__


def documented() -> dict[str, set[str]]:
    """Return the names of each module in the tables of the reference and of the errors."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)
    errors = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    names_of = {module: set(re.findall(r"`(\w+)`", names)) or set(errors) for module, names in rows}
    return {module: names for module, names in names_of.items() if module not in NOT_HERE}


def test_the_documentation_names_what_is_exported():
    assert documented() == {module: set(exported(module)) for module in PUBLIC}


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_exported_exists_and_says_what_it_is_for(module):
    assert exported(module) == sorted(exported(module))
    for name in exported(module):
        value = getattr(import_module(f"{PACKAGE}.{module}"), name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__.startswith(f"{PACKAGE}.{module}")
            assert value.__doc__


@pytest.mark.parametrize("module", PUBLIC)
def test_no_class_for_users_is_left_out(module):
    values = vars(import_module(f"{PACKAGE}.{module}")).items()
    ours = {name for name, value in values if inspect.isclass(value) and value.__module__ == f"{PACKAGE}.{module}"}
    assert {name for name in ours if name.startswith("ModelsLab")} <= set(exported(module))


def imports_of_users() -> set[tuple[str, str]]:
    blocks = [code for page in PAGES for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)]
    code = [*blocks, *(file.read_text() for file in (ROOT / "example_dags").glob("*.py"))]
    nodes = [node for text in code for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return {
        (node.module.removeprefix(f"{PACKAGE}."), alias.name)
        for node in nodes
        for alias in node.names
        if node.module and node.module.startswith(f"{PACKAGE}.")
    }


def test_examples_import_public_names_only():
    assert len(imports_of_users()) > 3
    imports = [(module, name) for module, name in imports_of_users() if module not in NOT_HERE]
    assert [(module, name) for module, name in imports if name not in exported(module)] == []
