"""An extension of griffe: the docstrings' plain text as Markdown.

A docstring of matchrt is a sentence, paragraphs, and lines of the form `name: what it is`, each of which goes on until
the next name or the end of its paragraph. Here those lines become lists, examples become code blocks, and rows
of two columns stay lines of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

# Headings that any docstring may have.
SECTIONS = {"Error", "Errors", "Source", "Sources", "Shape", "Shapes", "Units", "Returns", "Convention", "Coordinates"}
_NAME = r"`?[A-Za-z_][A-Za-z0-9_]*`?"
# A row of a small table inside a docstring: what, two or more blanks, what it is.
_ROW = re.compile(r" {4,}(\S+(?:, \S+)*) {2,}(\S.*)")
_ITEM = re.compile(rf"({_NAME}(?:(?:, | and ){_NAME})*): (\S.*)")


class PlainText(griffe.Extension):
    """Rewrites every docstring that is rendered."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object once it is read."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value, _names(obj))


def _names(obj: griffe.Object) -> set[str]:
    """What a line of the form `name: ...` may be about: the object's parameters, fields and the fixed headings."""
    names = set(SECTIONS)
    if isinstance(obj, griffe.Function):
        names |= {parameter.name.lstrip("*") for parameter in obj.parameters}
    elif isinstance(obj, griffe.Class):
        names |= set(obj.members)
        initial = obj.members.get("__init__")
        if isinstance(initial, griffe.Function):
            names |= {parameter.name.lstrip("*") for parameter in initial.parameters}
    return names


def to_markdown(text: str, names: set[str]) -> str:
    """The docstring `text` as Markdown; names: what lines of the form `name: ...` may begin with."""
    return "\n\n".join(part for block in re.split(r"\n\s*\n", text.strip("\n")) for part in _block(block, names))


def _block(block: str, names: set[str]) -> Iterator[str]:
    lines = block.splitlines()
    if lines[0].lstrip().startswith(">>>"):
        yield "```python\n" + "\n".join(re.sub(r"^\s*(>>>|\.\.\.) ?", "", line) for line in lines) + "\n```"
        return
    if lines[0].startswith("    "):
        yield "\n".join(lines)
        return
    paragraph: list[str] = []
    items: list[list[str]] = []
    for line in _split(lines, names):
        found = _ITEM.fullmatch(line)
        if found and _known(found[1], names):
            items.append([f"**{_bold(found[1])}**: {found[2]}"])
        elif items:
            items[-1].append(line)
        else:
            paragraph.append(line)
    if paragraph:
        yield "\n".join(_lines(paragraph))
    if items:
        yield "\n".join("- " + "\n  ".join(_lines(item)) for item in items)


def _split(lines: list[str], names: set[str]) -> Iterator[str]:
    """The lines, with a break before each `name:` that follows the end of a sentence."""
    known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    inside = re.compile(rf"(?<=[.;)]) (?=(?:{known})(?:, (?:{known}))*: )")
    for line in lines:
        parts = [line] if line.startswith("    ") else inside.split(line)
        yield from (f"{part[:-1]}." if part.endswith(";") else part for part in parts[:-1])
        yield parts[-1]


def _known(found: str, names: set[str]) -> bool:
    parts = [part.strip("`") for part in re.split(r", | and ", found)]
    return all(part in names for part in parts)


def _bold(found: str) -> str:
    if found in SECTIONS:
        return found
    return ", ".join(f"`{part.strip('`')}`" for part in re.split(r", | and ", found))


def _lines(lines: list[str]) -> Iterator[str]:
    """Rows of small tables stay lines of their own; other indented lines go on."""
    for line in lines:
        row = _ROW.fullmatch(line)
        yield line.strip() if row is None else f"<br>{_bold(row[1])}: {row[2]}"
