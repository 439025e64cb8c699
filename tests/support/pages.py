"""The README and the documentation as data: their code blocks, commands, links and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PROGRAM = re.compile(r"(?:airflow|curl|make|pip|pytest|python)\s")


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


@dataclass(frozen=True)
class Table:
    """
    A table.

    :param page: the name of its page.
    :param head: the titles of its columns.
    :param rows: its rows, each with its cells.
    :param generated: whether it is made from the code.
    """

    page: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    generated: bool = False


def name_of(page: Path) -> str:
    """Return the name of a page, in which that of the benchmarks differs from the README of all."""
    return str(page.relative_to(ROOT)).removeprefix("docs/")


def blocks() -> list[Block]:
    """Return all code blocks."""
    return [Block(name_of(page), *match) for page in ALL_PAGES for match in _FENCED.findall(page.read_text())]


def commands() -> dict[str, set[str]]:
    """Return the commands of all pages, each with the names of its pages: of blocks, and within sentences."""
    found: dict[str, set[str]] = {}
    for page in ALL_PAGES:
        text = page.read_text()
        shell = [code for language, code in _FENCED.findall(text) if language in ("bash", "console")]
        prose = re.findall(r"`([^`]+)`", _FENCED.sub("", text))
        inline = (" ".join(span.split()) for span in prose if _PROGRAM.match(span))
        for command in (*(command for code in shell for command in _commands_of(code)), *inline):
            found.setdefault(command, set()).add(name_of(page))
    return found


def _commands_of(code: str) -> Iterator[str]:
    """Yield the commands of a block: all its lines, or those after a prompt, without comments."""
    prompts = "$ " in code
    for line in code.splitlines():
        if line.startswith("$ ") or not prompts:
            yield re.sub(r"\s+# .*", "", line.removeprefix("$ ")).strip()


def tables(page: Path) -> list[Table]:
    """Return the tables of a page."""
    parts = re.split(r"(<!-- generated: \w+ -->.*?<!-- end -->)", page.read_text(), flags=re.DOTALL)
    return [
        Table(name_of(page), _cells(head), tuple(map(_cells, rows.splitlines())), part.startswith("<!-- generated"))
        for part in parts
        for head, rows in re.findall(r"^(\|.*)\n\|[-:| ]+\|\n((?:\|.*\n)+)", part, re.MULTILINE)
    ]


def _cells(row: str) -> tuple[str, ...]:
    return tuple(" ".join(cell.split()) for cell in re.split(r"(?<!\\)\|", row.strip().strip("|")))


def links(page: Path) -> list[tuple[str, str]]:
    """Return the targets of the links of a page that lead to other files, or to headings: path and anchor."""
    found = re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)]*)\)", _FENCED.sub("", page.read_text()))
    return [(path, anchor) for path, anchor in found if path or anchor]


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as forges and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
