"""
The README as the package index shows it, made while the package is built.

There, links to other files of the repository lead nowhere. They become links to the project's "Source" in
``[project.urls]``; where none is given, what they name is shown as text, and pictures are left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Puts the README into the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme``."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source", "")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_absolute_links(text, source)}


def with_absolute_links(text: str, source: str) -> str:
    """
    Return a Markdown text whose links work anywhere.

    :param text: the text.
    :param source: the address below which the files of the repository are; empty where there is none.
    """

    def replace(match: re.Match[str]) -> str:
        picture, label, path = match.groups()
        if source:
            return f"{picture}[{label}]({source.rstrip('/')}/{path})"
        return "" if picture else label

    return _LINK.sub(replace, text)
