"""The imports of a source file, read from its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of each module that is imported, those for type checkers only apart."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # "from a.b import c" may import the module a.b.c, or something of a.b.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imported_modules(node)
