"""The pairs to match, as names below one root folder. They are streamed, because a list may have millions of lines.

Errors: those of `runtime.pairs`; `pairs-same` (a line names one image twice); `matches-name` (an image is not below the
root, or its path contains `..`, so that the output could not hold its name).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from matchrt.errors import MatchRTError
from matchrt.runtime.pairs import iterate_folder, iterate_list

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
        if not self.path.exists():
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
        name_of = lru_cache(1 << 16)(self._name)
        if self.path.is_dir():
            below = self.path if self.root is None else self.path.absolute()
            for first, second in iterate_folder(below, self.window):
                yield name_of(first.as_posix()), name_of(second.as_posix())
            return
        for number, (first_field, second_field) in iterate_list(self.path):
            first_name, second_name = name_of(first_field), name_of(second_field)
            if first_name == second_name:
                where = f"{self.path}:{number}"
                raise MatchRTError("pairs-same", f"{where}: '{first_name}' is paired with itself.", "Remove the line.")
            yield first_name, second_name

    def digest(self) -> str:
        """The hex sha256 of the names in their order. It reads the whole list, so that errors come before any work.

        Errors: those of the module.
        """
        digest = hashlib.sha256()
        for first, second in self.pairs():
            digest.update(f"{first}\0{second}\n".encode())
        return digest.hexdigest()

    def _name(self, field: str) -> str:
        path = PurePosixPath(field)
        try:
            if path.is_absolute():
                path = path.relative_to(self.base.absolute().as_posix())
            elif self.path.is_dir():
                path = path.relative_to(self.base.as_posix())
        except ValueError as error:
            raise MatchRTError(
                "matches-name",
                f"The image '{field}' is not under the root folder '{self.base}'.",
                "Name another folder with --root.",
            ) from error
        if ".." in path.parts or path.name in ("", ".") or "\0" in field:
            raise MatchRTError(
                "matches-name",
                f"The image name {field!r} cannot be stored.",
                "Write paths relative to the root, without '..'.",
            )
        return path.as_posix()
