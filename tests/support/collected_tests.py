"""
Prints, as the last line, which tests pytest collects, and whether each runs: ``python -m tests.support.collected_tests``.

A process of its own, because a second pytest in the process of the first would read the configuration twice.
"""

from __future__ import annotations

import inspect
import json
import re
import sys

import pytest

_SKIPS_AT_ONCE = re.compile(r"^    pytest\.(skip|xfail)\(", re.MULTILINE)


class Collected:
    """A plugin of pytest that keeps what was collected."""

    def __init__(self) -> None:
        self.runs: dict[str, bool] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            name = item.nodeid.partition("[")[0]
            self.runs[name] = self.runs.get(name, False) or _runs(item)


def _runs(item: pytest.Item) -> bool:
    """Tell whether there is no condition under which it is left out, or taken for one that fails."""
    marked = any(item.get_closest_marker(name) for name in ("skip", "xfail"))
    return not marked and not _SKIPS_AT_ONCE.search(inspect.getsource(item.function))  # type: ignore[attr-defined]


if __name__ == "__main__":
    collected = Collected()
    code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *sys.argv[1:]], plugins=[collected])
    print()
    print(json.dumps(collected.runs))
    sys.exit(code)
