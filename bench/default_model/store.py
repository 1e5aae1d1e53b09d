"""Matches on disk, a file for each method and pair: a new method is compared without running the others again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench.default_model.cases import Case
from bench.default_model.methods import Method
from matchrt.errors import MatchRTError
from matchrt.runtime.matches import Matches


class MatchStore:
    """The matches of one method in a folder. A pair is found by its name."""

    def __init__(self, folder: Path, method: Method) -> None:
        self._method = method
        self.folder = folder / _slug(method.key)
        self.folder.mkdir(parents=True, exist_ok=True)

    def matches(self, case: Case, tell: Callable[[str], None] | None = None) -> Matches:
        """The matches of a pair, from the disk, or made now and kept. tell: called with a new pair's name."""
        path = self.folder / f"{_slug(case.id)}.npz"
        try:
            return Matches.load(path)
        except MatchRTError as error:
            if error.code != "matches-missing":
                path.unlink()
        image0, image1 = case.images()
        found = self._method.match(image0, image1)
        if tell is not None:
            tell(case.id)
        found.save(path)
        return found


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)
