"""Matches: the frozen result of matching two images, and what users do with it.

Coordinates: pixels of the ORIGINAL images, x right, y down, the centre of the top-left pixel is (0, 0). Images that
EXIF turns count as turned; `image0.stored_points(keypoints0)` gives the pixels as the file stores them.

Errors: those of `match_data`, `geometry`, `draw` and `formats`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.runtime.draw import draw_matches
from matchrt.runtime.formats import load_matches, save_matches
from matchrt.runtime.match_data import MatchData
from matchrt.runtime.notebook import Picture, matches_html, matches_line


@dataclass(frozen=True, eq=False, repr=False)
class Matches(MatchData):
    """N matches between two images: the fields of `MatchData`, as pictures and as files.

    Notebooks show a sketch of the points; `show` draws on the images. The arrays are read-only copies. Error:
    matches-invalid for wrong shapes, NaN, scores outside 0..1 or out of order.
    """

    def draw(
        self,
        image0: Any,
        image1: Any,
        *,
        max_lines: int = 200,
        max_height: int = 720,
        outline: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Draws the two images side by side with their matches: uint8 RGB [h, w, 3].

        image0, image1: the originals: paths, arrays `[H, W]` or `[H, W, 1|3|4]` in RGB, or `Image`. Other arguments are
            those of `draw.draw_matches`. Errors: draw-mismatch, draw-option, image-* of `read_image`.
        """
        return draw_matches(image0, image1, self, max_lines=max_lines, max_height=max_height, outline=outline)

    def show(self, image0: Any, image1: Any, *, max_lines: int = 200, max_height: int = 720) -> Picture:
        """The picture of `draw` as an object that notebooks show: as the last value of a cell, or by `display`.

        It keeps the drawn pixels, and neither image. Arguments and errors are those of `draw`.
        """
        return Picture(self.draw(image0, image1, max_lines=max_lines, max_height=max_height))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({matches_line(self)})"

    def _repr_html_(self) -> str:
        return matches_html(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes .npz, .json or .h5 (hloc's dense layout), by suffix, as `formats.save_matches` does.

        Errors: output-format, output-unwritable, matches-name, package-missing.
        """
        save_matches(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Matches:
        """Reads what `save` wrote as .npz or .json. Errors: matches-missing, matches-format."""
        return load_matches(Path(path), cls)
