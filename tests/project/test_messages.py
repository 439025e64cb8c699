"""
Every text of the package that people read stands in ``messages.txt``, too, so that a change of one is seen.

After a change: ``python -m tests.project.test_messages``, and read the difference. How the texts look when they are put
together is in ``tests/wire/test_messages.py``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "airflow_provider_modelslab"
SNAPSHOT = Path(__file__).parent / "messages.txt"

NO_MESSAGES = {
    "sandbox",
    "ui",
    "provider_info.py",  # what the form of the connection says
    "_protocol/phrases.py",  # what ModelsLab says
    "_telemetry/metrics.py",  # what the page about metrics says
}


def texts_of(tree: ast.AST) -> Iterator[str]:
    """Yield the texts that look like messages, docstrings apart, with ``{}`` for what is put in."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values)
            yield from [text] if is_message(text) else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and is_message(node.value):
            yield node.value
        yield from texts_of(node) if not isinstance(node, ast.JoinedStr) else texts_inside(node)


def texts_inside(text: ast.JoinedStr) -> Iterator[str]:
    for each in text.values:
        if isinstance(each, ast.FormattedValue):
            yield from texts_of(each)


def is_message(text: str) -> bool:
    """Whether a text has three words, or a word and what is put in by a logger."""
    return re.fullmatch(r"[A-Z][a-z ]+: %s", text) is not None or (
        len(re.findall(r"(?<![^\s'(])[\w'{}%-]+(?=[\s,.:;)]|$)", text)) >= 3 and "(?" not in text
    )


def messages() -> list[str]:
    lines = []
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE)
        if NO_MESSAGES.isdisjoint({path.parts[0], path.as_posix()}):
            lines += [f"{path.as_posix()}: {' '.join(text.split())}" for text in texts_of(ast.parse(file.read_text()))]
    return lines


def test_every_text_is_as_it_was_read_last():
    assert messages() == SNAPSHOT.read_text().splitlines()


def test_one_of_something_is_not_called_several():
    """``count()`` puts numbers before nouns, where there may be one."""
    wrong = r"(?<!more than )(?<!Paid for )(%d|\{\}) (jobs|items|outputs|payloads|files|times|polls|requests)\b"
    lines = [line for line in messages() if not line.startswith("_polling/statistics.py")]  # of the level "debug"
    assert [line for line in lines if re.search(wrong, line)] == []


if __name__ == "__main__":
    SNAPSHOT.write_text("".join(f"{line}\n" for line in messages()))
