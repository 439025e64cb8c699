"""
The README as the package index shows it, made while the package is built.

There, links to other files of the repository lead nowhere. They become links to the addresses that ``pyproject.toml``
names for files and pictures. While it names none, the words of a link stay, and pictures and the list of the
documentation are left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")
_DOCUMENTATION = "## Documentation\n"


class ReadmeHook(MetadataHookInterface):
    """Puts the README into the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme``."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = readme_of_package(text, self.config.get("files", ""), self.config.get("pictures", ""))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def readme_of_package(text: str, files: str = "", pictures: str = "") -> str:
    """
    Return the README with links that work anywhere.

    :param text: the README.
    :param files: the address below which the files of the repository are shown; empty where there is none.
    :param pictures: the address below which its pictures are.
    """

    def replace(match: re.Match[str]) -> str:
        picture, label, path = match.groups()
        address = pictures if picture else files
        if address:
            return f"{picture}[{label}]({address.rstrip('/')}/{path})"
        return "" if picture else label

    if not files:  # its list would be words that lead nowhere
        text = f"{text.partition(_DOCUMENTATION)[0]}{_DOCUMENTATION}\nThe source distribution has it, in `docs/`.\n"
    return _LINK.sub(replace, text)
