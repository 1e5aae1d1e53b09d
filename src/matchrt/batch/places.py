"""The files of a run: no two of them may be one, however their paths are written.

Two paths are one file if they lead to the same place once links are followed, or if they are hard links of one file.
On a file system that does not tell upper from lower case, neither do we.

Errors: output-is-input (a file that is written is one that is read), output-twice (two files that are written are one).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from matchrt.errors import MatchRTError

# What SQLite and `merged` write beside a journal.
_BESIDE_JOURNAL = ("-wal", "-shm", "-journal", ".scratch")

Key = str | tuple[int, int]


class Places:
    """The files that a run writes, each with what it is for. Error: output-twice."""

    def __init__(self, journal: Path, outputs: Iterable[Path], failed: Path | None = None) -> None:
        """Takes the paths as the user gave them; none of the files needs to exist. failed: None if there is none."""
        self._written: dict[Key, str] = {}
        outputs = list(outputs)
        self._add(journal, "the journal")
        for suffix in _BESIDE_JOURNAL:  # SQLite follows links, and `merged` does not
            beside = {Path(f"{place}{suffix}") for place in (journal.absolute(), os.path.realpath(journal))}
            for path in sorted(beside):
                self._add(path, f"the journal's file '{path.name}'")
        for path in outputs:
            self._add(path, f"the output '{path}'")
        if failed is not None:
            self._add(failed, "the list of failed pairs")
            outputs.append(failed)
        for path in outputs:
            self._add(path.with_name(f".{path.name}.part"), f"the unfinished '{path.name}'")
        self._inodes = any(isinstance(key, tuple) for key in self._written)

    def _add(self, path: Path, what: str) -> None:
        keys = _keys(path)
        for key in keys:
            if key in self._written:
                raise MatchRTError(
                    "output-twice", f"'{path}' would be both {self._written[key]} and {what}.", "Choose another name."
                )
        self._written |= dict.fromkeys(keys, what)

    def require_unread(self, path: Path, what: str) -> None:
        """Raises `output-is-input` if a file that is read, such as the list, is one that is written."""
        for key in _keys(path):
            self._refuse(key, path, what)

    def image_check(self, base: Path) -> ImageCheck:
        """`require_unread` for many images below a folder, without following every link."""
        return ImageCheck(self._written, self._inodes, base)

    def _refuse(self, key: Key, path: Path, what: str) -> None:
        if key in self._written:
            raise _is_input(path, what, self._written[key])


class ImageCheck:
    """Raises `output-is-input` for an image, by its name, that is a file that is written."""

    def __init__(self, written: dict[Key, str], inodes: bool, base: Path) -> None:
        self._written, self._inodes = written, inodes
        self._base, self._folds = os.path.realpath(base), _folds_case(base)

    def __call__(self, name: str) -> None:
        """name: the image's path below the folder."""
        path = os.path.normpath(os.path.join(self._base, name))  # noqa: PTH118 - called for millions of names
        keys: list[Key] = [path.casefold() if self._folds else path]
        if self._inodes:
            try:
                stat = os.stat(path)  # noqa: PTH116
                keys.append((stat.st_dev, stat.st_ino))
            except (OSError, ValueError):
                pass
        for key in keys:
            if key in self._written:
                raise _is_input(Path(name), "an image", self._written[key])


def _is_input(path: Path, what: str, written: str) -> MatchRTError:
    return MatchRTError(
        "output-is-input",
        f"'{path}' is {what} of this run and would be replaced: it would be {written}.",
        "Choose another name.",
    )


def _keys(path: Path) -> list[Key]:
    """By what a file is known: its real path, and its inode if it exists."""
    real = os.path.realpath(path)
    keys: list[Key] = [real.casefold() if _folds_case(Path(real).parent) else real]
    try:
        stat = os.stat(real)  # noqa: PTH116
        keys.append((stat.st_dev, stat.st_ino))
    except (OSError, ValueError):
        pass
    return keys


def _folds_case(folder: Path) -> bool:
    """Whether the file system of a folder takes names that differ in case for one."""
    for place in (folder, *folder.parents):
        swapped = place.with_name(place.name.swapcase()) if place.name else place
        if swapped != place and place.exists():
            try:
                return swapped.samefile(place)
            except OSError:
                return False
    return False
