"""The commands of a Markdown page: shell lines and Python blocks, with what each of them needs.

A comment before a block says what its lines need beside an ordinary machine; readers of the page do not see it:

    <!-- needs: gpu -->                          the whole block
    <!-- needs: network: matchrt download -->    the lines of the block that begin so

Shell lines are in fenced blocks of the languages `sh`, `bash` and `console`, and in indented blocks that begin with a
command. A block of Python is one program.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What a line can need that the script does not have -> what readers of the list are told.
NEEDS = {
    "gpu": "an NVIDIA GPU, or its vendor's toolkit",
    "docker": "a Docker daemon",
    "network": "files from other hosts",
    "weights": "weights that are too large to make here",
    "packages": "packages of the operating system",
    "robot": "ROS 2",
    "time": "many minutes; .ci/run or a developer runs it",
    "release": "a release, and the right to publish it",
    "your-files": "the reader's own files or addresses",
    "excerpt": "the code around it: an excerpt, not a program",
}
SHELL = ("sh", "bash", "console")
_MARK = re.compile(r"^\s*<!--\s*needs:\s*([\w-]+)\s*(?::\s*(.+?)\s*)?-->\s*$")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*([\w+-]*)")
_INDENTED = re.compile(r"^    (?=(matchrt|pip|python3?|docker|curl|cmake|bash|pytest|mkdocs|ros2|npm|node) )")


class MarkError(ValueError):
    """A mark names no known need, stands before no block, or fits no line."""


@dataclass(frozen=True)
class Command:
    """A shell line (with its continuation lines) or a Python block.

    page: path of the page; line: number of its first line, from 1; language: `sh` or `python`.
    needs: what it needs of `NEEDS`; empty if it must run.
    """

    page: Path
    line: int
    language: str
    text: str
    needs: str = ""


@dataclass(frozen=True)
class _Mark:
    line: int
    need: str
    start: str


def commands_of(page: Path) -> list[Command]:
    """The commands of a page, in order. Raises MarkError."""
    found: list[Command] = []
    for language, first, lines, marks in _blocks(page):
        if language == "python":
            commands = [Command(page, first, "python", "\n".join(lines))]
        else:
            commands = [Command(page, first + index, "sh", text) for index, text in _shell_lines(lines)]
        found += _marked(page, commands, marks)
    return found


def _blocks(page: Path) -> Iterator[tuple[str, int, list[str], list[_Mark]]]:
    """Language, number of the first line, lines, and marks of each block of commands."""
    lines = page.read_text(encoding="utf-8").splitlines()
    marks: list[_Mark] = []
    index = 0
    while index < len(lines):
        mark, fence = _MARK.match(lines[index]), _FENCE.match(lines[index])
        if mark:
            if mark[1] not in NEEDS:
                raise MarkError(f"{page}:{index + 1}: no need is called '{mark[1]}'; use {', '.join(NEEDS)}")
            marks.append(_Mark(index + 1, mark[1], mark[2] or ""))
        elif fence:
            first = index + 1
            index = next((i for i in range(first, len(lines)) if lines[i].strip() == fence[1]), len(lines))
            language = "sh" if fence[2] in SHELL else fence[2]
            if language in ("sh", "python"):
                yield language, first + 1, _dedented(lines[first:index]), marks
                marks = []
        elif _INDENTED.match(lines[index]) and (index == 0 or not lines[index - 1].strip()):
            first = index
            while index + 1 < len(lines) and lines[index + 1].startswith("    "):
                index += 1
            yield "sh", first + 1, _dedented(lines[first : index + 1]), marks
            marks = []
        elif lines[index].strip() and not lines[index].lstrip().startswith("<!--") and marks:
            break
        index += 1
    if marks:
        raise MarkError(f"{page}:{marks[0].line}: the mark stands before no block of commands")


def _dedented(lines: list[str]) -> list[str]:
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[indent:] for line in lines]


def _shell_lines(lines: list[str]) -> Iterator[tuple[int, str]]:
    """The lines that a shell takes as one command each, with their place in the block; comments are left out."""
    text, first = "", 0
    for index, line in enumerate(lines):
        if not text and (not line.strip() or line.lstrip().startswith("#")):
            continue
        first = first if text else index
        text = f"{text}\n{line}" if text else line.removeprefix("$ ")
        if not line.endswith("\\") and _is_whole(text):
            yield first, text
            text = ""
    if text:
        yield first, text


def _is_whole(text: str) -> bool:
    """Whether a shell would run it, rather than ask for more lines."""
    if "\n" not in text and not re.match(r"\s*(for|while|if|case|\{|\()|.*<<", text):
        return True
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False).returncode == 0


def _marked(page: Path, commands: list[Command], marks: list[_Mark]) -> list[Command]:
    needs = {command.line: "" for command in commands}
    for mark in marks:
        fits = [command.line for command in commands if command.text.startswith(mark.start)]
        if not fits:
            raise MarkError(f"{page}:{mark.line}: no line of the block begins with '{mark.start}'")
        needs.update(dict.fromkeys(fits, mark.need))
    return [Command(c.page, c.line, c.language, c.text, needs[c.line]) for c in commands]
