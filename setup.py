"""Packaging entry point: pyproject.toml declares everything but the description: the README with absolute links.

The README links pages by their place in the repository. A package index shows the README alone, so links become
addresses of the released version there: those of `Source` under `[project.urls]`, in the form that GitHub has. Without
such an address the README stays as it is, and tools/check_release.py refuses to release it.
"""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
_LINK = re.compile(r"(!?)(\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)")


def description(root: Path) -> str:
    """The README of the tree `root` as a package index is to show it."""
    text = (root / "README.md").read_text(encoding="utf-8")
    source = re.search(r'(?ms)^\[project\.urls\]$.*?^Source = "([^"]+?)/?"$', _read(root / "pyproject.toml"))
    if source is None:
        return text
    version = re.search(r'__version__ = "([^"]+)"', _read(root / "src/matchrt/_version.py"))

    def absolute(link: re.Match) -> str:
        kind = "raw" if link[1] else "blob"
        return f"{link[1]}{link[2]}({source[1]}/{kind}/v{version[1]}/{link[3]})"

    return _LINK.sub(absolute, text)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    setup(long_description=description(ROOT), long_description_content_type="text/markdown")
