"""The dense warp that an engine returns, and RoMa's own way of drawing matches from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._util import atomic
from matchrt.errors import MatchRTError
from matchrt.runtime.fit import Fit
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.notebook import certainty_picture, png

Array = npt.NDArray[Any]
# RoMa's sampler (github.com/Parskatt/RoMa, `sample`): certainties above it count as sure.
SURE = 0.05
# For each match that is wanted, this many candidates are drawn before their density is evened out.
EXPANSION = 4
DEVIATION = 0.1
# Candidates of a lower density are isolated points, and are hardly ever taken.
LONELY, LONELY_WEIGHT = 10.0, 1e-7
_CHUNK = 2048


@dataclass(frozen=True, repr=False)
class DenseMatches:
    """Where every pixel of the network's input is in the other image.

    warp: float32 `[H, W or 2W, 4]`: x0, y0, x1, y1, normalised so that -1 and 1 are an image's edges. An engine that
        matches both ways returns 2W columns: the left half has a row for each pixel of image 0, the right half one for
        each pixel of image 1.
    certainty: float32 `[H, W or 2W]` in 0..1.
    image0: name and size of the first image, as given.
    image1: name and size of the second image, as given.
    precision: float32 `[H, W or 2W, 2, 2]`, how precisely each position in the other image is known: the inverse of the
        covariance of its error along x and y, in 1 / pixel^2 of the other image as given. In the left half, these are
        pixels of image 1 (x1, y1); in the right half, of image 0 (x0, y0). Symmetric and positive definite; the fourth
        root of 1 / determinant is about the error in pixels. It says nothing where the certainty is 0. None for
        networks that estimate none: of those here, only RoMa v2 does.
    """

    warp: Array
    certainty: Array
    image0: ImageRef
    image1: ImageRef
    precision: Array | None = None

    def __repr__(self) -> str:
        height, width = self.certainty.shape
        sure = float((self.certainty > SURE).mean())
        return (
            f"DenseMatches({height}x{width} of {self.image0.name!r} and {self.image1.name!r}, {sure:.0%} above {SURE})"
        )

    def _repr_png_(self) -> bytes:
        """The certainties, for notebooks: from teal (0) to yellow (1)."""
        return png(certainty_picture(self.certainty))

    def to_pixels(self, rows: Array) -> tuple[Array, Array]:
        """Converts rows of the warp to pixels of the images as given.

        rows: `[..., 4]`, normalised coordinates as in `warp`.

        Returns float32 `[..., 2]` of image 0 and of image 1: x to the right, y down, the centre of the top-left pixel
        is (0, 0). Raises nothing.
        """
        return _pixels(rows[..., :2], self.image0), _pixels(rows[..., 2:], self.image1)

    def sample(self, count: int, seed: int = 0) -> tuple[Array, Array, Array]:
        """Draws `count` matches as RoMa's own sampler does: by certainty, and evened out in density.

        seed: of the generator; the same seed draws the same matches.

        Returns float32 keypoints of both images `[N, 2]` in pixels of the images as given, and float32 certainties
        `[N]`, best first. N is smaller than `count` if fewer pixels have any certainty. Error: sample-range if count is
        below 1. Source: `sample` of github.com/Parskatt/RoMa.
        """
        if count < 1:
            raise MatchRTError("sample-range", f"{count} matches cannot be drawn.", "Ask for 1 or more.")
        generator = np.random.default_rng(seed)
        certainty = self.certainty.reshape(-1)
        weights = np.where(certainty > SURE, 1.0, certainty)
        drawn = draw(weights, EXPANSION * count, generator)
        rows = self.warp.reshape(-1, 4)[drawn]
        chosen = drawn[draw(balance(density(rows)), count, generator)]
        chosen = chosen[np.argsort(-certainty[chosen], kind="stable")]
        keypoints0, keypoints1 = self.to_pixels(self.warp.reshape(-1, 4)[chosen])
        return keypoints0, keypoints1, certainty[chosen].astype(np.float32)

    def save(self, path: Path) -> None:
        """Writes warp, certainty, and names, sizes and EXIF orientations of the images as .npz; the precision if any.

        They and the sizes are those of the upright images, as each `orientation` (0: not known) turns what its file
        stores. Errors: output-format if the suffix is not .npz, output-unwritable.
        """
        if path.suffix != ".npz":
            raise MatchRTError("output-format", f"'{path}' is not an .npz file.", "Name it dense.npz, for instance.")
        images = {
            f"{key}{index}": value
            for index, ref in enumerate((self.image0, self.image1))
            for key, value in (
                ("name", ref.name),
                ("size", (ref.height, ref.width)),
                ("orientation", ref.orientation or 0),
            )
        }
        fields = {"warp": self.warp, "certainty": self.certainty}
        if self.precision is not None:
            fields["precision"] = self.precision
        with atomic.atomic_path(path) as temporary:
            np.savez_compressed(temporary, **fields, **images)  # type: ignore[arg-type]


def _pixels(points: Array, image: ImageRef) -> Array:
    size = np.array([image.width, image.height], np.float64)
    return np.asarray((points.astype(np.float64) + 1.0) * (size / 2.0) - 0.5, np.float32)


def without_padding(warp: Array, certainty: Array, fits: tuple[Fit, Fit]) -> tuple[Array, Array]:
    """A warp between images that were padded before they were resized, as one between the images themselves.

    warp `[H, W or 2W, 4]`, certainty `[H, W or 2W]`: as in `DenseMatches`, but -1 and 1 are the edges of the padded
    images. fits: of both images. Rows that begin or end in padding get certainty 0. Raises nothing.
    """
    sides = [side for fit in fits for side in (fit.original_hw[1], fit.original_hw[0])]
    added = [rows for fit in fits for rows in (fit.padding[1], fit.padding[0])]
    larger = np.array([(side + more) / side for side, more in zip(sides, added, strict=True)], np.float32)
    result = (warp + np.float32(1.0)) * larger - np.float32(1.0)
    return result, np.where(np.abs(result).max(axis=-1) > 1.0, np.float32(0.0), certainty)


def precision_in_pixels(precision: Array, width: int, sides: tuple[tuple[int, int], tuple[int, int]]) -> Array:
    """An engine's precision as matrices in pixels of the images as given.

    precision: `[H, W or 2W, 3]`: the matrix's elements xx, xy and yy, in 1 / pixel^2 of a grid of H x W on the image
    that the position is in. width: W. sides: (height, width) in pixels of images 0 and 1, with the padding that they
    got before they were resized. Returns float32 `[H, W or 2W, 2, 2]`. Raises nothing.
    """
    height = precision.shape[0]
    result = np.empty((*precision.shape[:2], 2, 2), np.float32)
    for columns, (rows, across) in ((slice(0, width), sides[1]), (slice(width, None), sides[0])):
        x, y = width / across, height / rows
        result[:, columns, 0, 0] = precision[:, columns, 0] * np.float32(x * x)
        result[:, columns, 0, 1] = result[:, columns, 1, 0] = precision[:, columns, 1] * np.float32(x * y)
        result[:, columns, 1, 1] = precision[:, columns, 2] * np.float32(y * y)
    return result


def draw(weights: Array, count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draws at most `count` indices without replacement, with probabilities in proportion to `weights` [N].

    Returns int64 [min(count, entries above 0)]; an entry of weight 0 is never drawn. Raises nothing. The drawn indices
    have the smallest of exponential variables with these rates (Efraimidis and Spirakis, 2006).
    """
    possible = np.flatnonzero(weights > 0)
    keys = generator.exponential(size=len(possible)) / weights[possible]
    if count < len(possible):
        possible = possible[np.argpartition(keys, count)[:count]]
    return possible


def density(rows: Array, deviation: float = DEVIATION) -> Array:
    """Kernel density of `rows` [N, 4]: float32 [N], `sum_j exp(-|a_i - a_j|^2 / (2 deviation^2))`.

    deviation: in the units of the rows; those of a warp are half images. Raises nothing.
    """
    points = rows.astype(np.float32)
    squares = (points**2).sum(axis=1)
    result = np.empty(len(points), np.float32)
    for start in range(0, len(points), _CHUNK):
        part = points[start : start + _CHUNK]
        distance = squares[start : start + _CHUNK, None] + squares[None] - 2.0 * part @ points.T
        result[start : start + _CHUNK] = np.exp(-np.maximum(distance, 0.0) / (2.0 * deviation**2)).sum(axis=1)
    return result


def balance(dense: Array) -> Array:
    """Weights [N] that even out densities [N]: the inverse of the density, and almost zero for an isolated point.

    Raises nothing.
    """
    return np.where(dense < LONELY, LONELY_WEIGHT, 1.0 / (dense + 1.0))
