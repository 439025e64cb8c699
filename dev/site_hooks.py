"""
What ``make docs`` adds to MkDocs: pages of the site for the files beside ``docs/`` that its pages link to.

On a forge, links such as ``../README.md`` lead to the file; on the site, to a page made from it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

REPOSITORY = Path(__file__).resolve().parent.parent

PAGES = {
    "README.md": "first-steps.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks": "benchmarks.md",
    "example_dags": "example-dags.md",
}
"""Files and folders of the repository, and the pages that stand for them."""

_LINK = re.compile(r"(!?\[[^\]]*\])\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    for path, page in PAGES.items():
        source = REPOSITORY / path
        if source.is_file():
            files.append(File.generated(config, page, content=_moved(source.read_text(encoding="utf-8"), path)))
    files.append(File.generated(config, PAGES["example_dags"], content=_example_dags()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let the links of a page in ``docs/`` lead to pages of the site."""
    made = page.file.src_uri in PAGES.values()
    return _with_plain_pipes(markdown if made else _moved(markdown, f"docs/{page.file.src_uri}"))


def _moved(markdown: str, path: str) -> str:
    """Return the text of a file of the repository with links as the site has them."""

    def replace(match: re.Match[str]) -> str:
        text, link, anchor = match.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        if target.startswith("docs/"):
            return f"{text}({target.removeprefix('docs/')}{anchor or ''})"
        if target in PAGES:
            return f"{text}({PAGES[target]}{anchor or ''})"
        if target.startswith("example_dags/"):
            return f"{text}({PAGES['example_dags']}#{Path(target).stem})"
        return text.lstrip("!").strip("[]")

    return _LINK.sub(replace, markdown)


def _with_plain_pipes(markdown: str) -> str:
    """Return a text whose code in tables has no escaped pipes: forges need the escape, MkDocs would show it."""

    def replace(row: re.Match[str]) -> str:
        return re.sub(r"`[^`]+`", lambda code: code[0].replace(r"\|", "|"), row[0])

    return re.sub(r"^\|.*", replace, markdown, flags=re.MULTILINE)


def _example_dags() -> str:
    files = sorted((REPOSITORY / "example_dags").glob("*.py"))
    blocks = [f"## {file.stem}\n\n```python\n{file.read_text(encoding='utf-8')}```\n" for file in files]
    return "\n".join(["# Example DAGs\n\nEach runs unchanged against the sandbox and against ModelsLab.\n", *blocks])
