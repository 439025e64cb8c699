"""The built wheel holds the package and nothing else, and its metadata say what they should."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from readme_of_package import readme_of_package

from tests.support.imports import imported_modules

REPOSITORY = Path(__file__).parent.parent.parent
PACKAGE = "airflow_provider_modelslab"
BROUGHT_BY_OTHERS = {
    "pytest",  # by the user of the pytest plugin
    "flask_appbuilder",  # by Airflow before 3.2, whose connection form needs it
    "wtforms",
    "fastapi",  # by the api-server of Airflow 3, which alone imports what serves the page
    "opentelemetry",  # by Airflow, where traces are on
}


def run(command: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=folder, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], REPOSITORY)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def metadata_file(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_contents(wheel):
    tops = {path.partition("/")[0] for path in wheel.namelist()}
    assert {re.sub(r"-[\d.]+\.dist-info", ".dist-info", top) for top in tops} == {
        "airflow_provider_modelslab",
        "airflow_provider_modelslab.dist-info",
    }
    assert "airflow_provider_modelslab/py.typed" in wheel.namelist()
    assert "airflow_provider_modelslab/sandbox/media/lighthouse.mp4" in wheel.namelist()
    assert any(path.endswith("licenses/LICENSE") for path in wheel.namelist())


def test_the_sdist_holds_all_that_its_tests_import(tmp_path):
    run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], REPOSITORY)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        filtered = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
        sdist.extractall(tmp_path, **filtered)  # type: ignore[arg-type]
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    # Only what stands there, and not this working tree, which may be installed.
    path = {"PYTHONPATH": str(unpacked)}
    run([sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"], unpacked, path)


def test_metadata(wheel):
    metadata = message_from_string(metadata_file(wheel, "METADATA"))
    assert metadata["Name"] == "airflow-provider-modelslab"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {"Framework :: Apache Airflow", "Framework :: Apache Airflow :: Provider"} <= set(
        metadata.get_all("Classifier", [])
    )
    assert all(">=" in each for each in metadata.get_all("Requires-Dist", []))
    assert "generate images" in metadata["Summary"]
    assert "wait" in metadata["Summary"]


def test_the_readme_of_the_package_index_has_no_link_that_leads_nowhere(wheel):
    readme = str(message_from_string(metadata_file(wheel, "METADATA")).get_payload())
    assert "# airflow-provider-modelslab" in readme
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_links_of_the_readme_follow_the_addresses_of_files_and_pictures():
    text = "![a](docs/a.png) [b](docs/b.md) [c](https://c.example) [d](#d)\n\n## Documentation\n\n[e](docs/e.md)\n"
    assert readme_of_package(text, "https://forge.example/x/blob/main", "https://forge.example/x/raw/main/") == (
        "![a](https://forge.example/x/raw/main/docs/a.png) [b](https://forge.example/x/blob/main/docs/b.md) "
        "[c](https://c.example) [d](#d)\n\n## Documentation\n\n[e](https://forge.example/x/blob/main/docs/e.md)\n"
    )
    without = " b [c](https://c.example) [d](#d)\n\n## Documentation\n\nThe source distribution has it, in `docs/`.\n"
    assert readme_of_package(text) == without


def test_the_readme_has_the_list_of_the_documentation_at_its_end():
    assert re.findall("^## .*", (REPOSITORY / "README.md").read_text(), re.MULTILINE)[-1] == "## Documentation"


def test_every_imported_distribution_is_declared(wheel):
    metadata = message_from_string(metadata_file(wheel, "METADATA"))
    declared = {re.split("[^a-z0-9-]", each)[0] for each in metadata.get_all("Requires-Dist", [])}
    assert declared == {
        *("apache-airflow", "apache-airflow-providers-common-compat"),
        *(imported_distributions() - BROUGHT_BY_OTHERS - {"airflow"}),
    }


def imported_distributions() -> set[str]:
    modules = {
        name.partition(".")[0]
        for file in (REPOSITORY / PACKAGE).rglob("*.py")
        for name in imported_modules(ast.parse(file.read_text()))
    }
    return modules - sys.stdlib_module_names - {PACKAGE}


def test_entry_points(wheel):
    entry_points = metadata_file(wheel, "entry_points.txt")
    assert "[apache_airflow_provider]" in entry_points
    assert "[pytest11]" in entry_points
