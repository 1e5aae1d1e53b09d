"""The pairs to match, as names below one root folder. They are streamed, because a list may have millions of lines.

A name is written in one way: `a//b.jpg`, `./a/b.jpg` and the absolute path of that image are `a/b.jpg`. A name that no
output can hold, such as that of an image outside the root, stays as it is, and its pairs fail (`names.unfit`).

Errors: those of `runtime.pairs`; `pairs-same` (a line names one image twice).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from matchrt.errors import MatchRTError
from matchrt.runtime.pairs import Skipped, commented_pairs, iterate_folder, iterate_list, no_pairs, read_folder

NamePair = tuple[str, str]


@dataclass(frozen=True)
class PairSource:
    """Where the pairs come from.

    path: text file with two paths in each line, or folder of images.
    root: folder that names start from; None for the list's folder, or the folder of images itself.
    window: for a folder, each image is matched with so many images that follow it; None for all pairs.
    """

    path: Path
    root: Path | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        if not os.path.exists(self.path):  # noqa: PTH110 - False for names that the system does not take
            raise MatchRTError("pairs-missing", f"There is no file or folder '{self.path}'.", "Check the path.")
        if self.window is not None and not self.path.is_dir():
            raise MatchRTError(
                "pairs-window", "--window is for the images of one folder.", "Leave --window out, or name a folder."
            )

    @property
    def base(self) -> Path:
        """The folder that names start from."""
        return self.root or (self.path if self.path.is_dir() else self.path.parent)

    def pairs(self) -> Iterator[NamePair]:
        """The names of the pairs, in order. An image is at `base / name`. A pair that is listed twice comes twice.

        Errors: those of the module.
        """
        empty = True
        for pair in self._of_folder() if self.path.is_dir() else self._of_list():
            empty = False
            yield pair
        if empty:
            raise no_pairs(self.path, self.skipped())

    def _of_folder(self) -> Iterator[NamePair]:
        name_of = lru_cache(1 << 16)(_Namer(self).name)
        below = self.path if self.root is None else self.path.absolute()
        for first, second in iterate_folder(below, self.window):
            yield name_of(first.as_posix()), name_of(second.as_posix())

    def _of_list(self) -> Iterator[NamePair]:
        name_of = lru_cache(1 << 16)(_Namer(self).name)
        for number, (first_field, second_field) in iterate_list(self.path, self.base):
            first_name, second_name = name_of(first_field), name_of(second_field)
            if first_name == second_name:
                where = f"{self.path}:{number}"
                raise MatchRTError("pairs-same", f"{where}: '{first_name}' is paired with itself.", "Remove the line.")
            yield first_name, second_name

    def digest(self, check: Callable[[str], None] | None = None) -> str:
        """The hex sha256 of the names in their order. It reads the whole list, so that errors come before any work.

        check: called with every image's name. Errors: those of the module and of `check`.
        """
        digest = hashlib.sha256()
        see = lru_cache(1 << 16)(check or (lambda name: None))
        for first, second in self.pairs():
            see(first)
            see(second)
            digest.update(_line(first, second))
        return digest.hexdigest()

    def unchanged(self, digest: str) -> Iterator[NamePair]:
        """The pairs, as long as they are those of that digest: a list may be written again between two readings.

        Errors: those of the module; pairs-changed, after the last pair.
        """
        found = hashlib.sha256()
        for first, second in self.pairs():
            found.update(_line(first, second))
            yield first, second
        if found.hexdigest() != digest:
            raise MatchRTError(
                "pairs-changed",
                f"'{self.path}' was changed while the run began.",
                "Wait until nothing writes to it, and run the command again.",
            )

    def skipped(self) -> list[Skipped]:
        """What a folder holds that is not matched, and lines of a list that are comments but look like pairs.

        Errors: those of the module.
        """
        return read_folder(self.path)[1] if self.path.is_dir() else commented_pairs(self.path, self.base)


def _line(first: str, second: str) -> bytes:
    return f"{first}\0{second}\n".encode("utf-8", "surrogateescape")


class _Namer:
    """Makes names below the root of what a list or a folder says."""

    def __init__(self, source: PairSource) -> None:
        base = source.base
        self._base = base
        # A root may be reached through links and `..`, and absolute paths may be written in any of these ways.
        plain = base.absolute().as_posix()
        ways = [plain, os.path.normpath(plain), os.path.realpath(plain)]
        self._ways = list(dict.fromkeys(ways if not source.path.is_dir() else [base.as_posix(), *ways]))

    def name(self, field: str) -> str:
        """The name of an image; the field itself if it is outside of the root."""
        path = PurePosixPath(field)
        for way in self._ways:
            if path.is_relative_to(way):
                path = path.relative_to(way)
                break
        if ".." in path.parts:
            path = self._without_dots(path)
        return path.as_posix()

    def _without_dots(self, path: PurePosixPath) -> PurePosixPath:
        """The same path without `..`, if that is the same file below the root."""
        plain = PurePosixPath(os.path.normpath(self._ways[-1] + "/" + path.as_posix()))
        if not plain.is_relative_to(self._ways[-1]):
            return path
        shorter = plain.relative_to(self._ways[-1])
        try:
            return shorter if (self._base / shorter).samefile(self._base / path) else path
        except OSError:
            return path
