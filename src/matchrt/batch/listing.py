"""Which pairs to match, as names below one root folder, streamed: a list may hold millions.

Errors: those of `runtime.pairs`, and `pairs-same` (a line names one image twice), `matches-name` (an image that is not
below the root, or whose name has `.` or `..` in it: it could not be the image's name in the output).
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

    path: text file with two paths a line, or a folder of images.
    root: folder that names start from; None for the list's folder, or the folder itself.
    window: of a folder, match each image with that many that follow; None for every pair.
    """

    path: Path
    root: Path | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise MatchRTError("pairs-missing", f"There is no file or folder '{self.path}'.", "Check the path.")
        if self.window is not None and not self.path.is_dir():
            raise MatchRTError(
                "pairs-window", "--window is for the images of one folder.", "Leave it out, or name a folder."
            )

    @property
    def base(self) -> Path:
        """The folder that names start from."""
        return self.root or (self.path if self.path.is_dir() else self.path.parent)

    def pairs(self) -> Iterator[NamePair]:
        """The pairs' names, in order; an image is at `base / name`. What is listed twice comes twice."""
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
                raise MatchRTError("pairs-same", f"{where}: '{first_name}' with itself.", "Remove the line.")
            yield first_name, second_name

    def digest(self) -> str:
        """Hex sha256 of the names in their order. Reads the whole list, so that its errors come before any work."""
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
                "matches-name", f"The image '{field}' is not under the root folder '{self.base}'.", "Name another root."
            ) from error
        if ".." in path.parts or path.name in ("", ".") or "\0" in field:
            raise MatchRTError(
                "matches-name",
                f"The image name {field!r} cannot be stored.",
                "Write paths from the root, without '..'.",
            )
        return path.as_posix()
