"""How many false alarms chance would give: the a-contrario measure of a two-view geometry.

If the points of the matches lay anywhere in the images, independently of each other, then some geometry would still
explain a few of them. The number of false alarms (NFA) is how many geometries that explain as many points as well as
the found one chance would be expected to give, among all that could be made of these matches. An NFA of 10^-41 cannot
be chance; an NFA near 1 or above says nothing. The measure needs no threshold: it is the smallest over all numbers k of
best matches.

    NFA(k) = outcomes * (n - s) * C(n, k) * C(k, s) * p_k^(k - s)

n: number of matches. s: number of matches that a geometry is made of, which it explains exactly (4, 7, 5). outcomes:
how many geometries such a sample gives at most (1, 3, 10). p_k: the chance of a random point to lie as near as the k-th
best match does. It is pi e^2 / A for the distance e from where a homography puts the point in an image of area A, and
2 e D / A for the distance e to an epipolar line in an image of diagonal D. Both images have a say: the larger counts.

Matches of networks are not independent: neighbours agree because the network is smooth. So at most one match for each
cell of a grid in each image is counted (`thin`).

Source: Moisan and Stival, A Probabilistic Criterion to Detect Rigid Point Matches Between Two Images and Estimate the
Fundamental Matrix, IJCV 2004; Moulon, Monasse and Marlet, Adaptive Structure from Motion with a Contrario Model
Estimation, ACCV 2012, for the other kinds.

Coordinates: pixels, x right, y down, the centre of the top-left pixel is (0, 0). Nothing here raises errors of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matchrt.runtime.geometry import Kind

Float64Array = npt.NDArray[np.float64]
# (height, width) in pixels.
Size = tuple[int, int]

# Matches that a geometry is made of, and how many geometries they give at most.
SAMPLE: dict[Kind, int] = {"homography": 4, "fundamental": 7, "essential": 5}
OUTCOMES: dict[Kind, int] = {"homography": 1, "fundamental": 3, "essential": 10}


@dataclass(frozen=True)
class FalseAlarms:
    """What chance would give.

    log10_nfa: log10 of the expected number of false alarms; 0 or more where chance explains the geometry as well.
    inliers: the k at which the number is smallest: so many matches are explained. 0 if there are not more matches than
        a geometry is made of.
    """

    log10_nfa: float
    inliers: int


def thin(
    points0: npt.NDArray[np.floating], points1: npt.NDArray[np.floating], sizes: tuple[Size, Size], cells: int
) -> npt.NDArray[np.int64]:
    """Indices of matches that stand for their surroundings: at most one in each cell of a grid in either image.

    points0, points1: [N, 2], best first; the best of a cell is taken, so that no geometry has a say.
    sizes: of both images. cells: number of square cells along an image's longer side.
    """
    kept: npt.NDArray[np.int64] = np.arange(len(points0))
    for points, size in zip((points0, points1), sizes, strict=True):
        first = np.unique(cell_numbers(points[kept], size, cells), return_index=True)[1]
        kept = kept[np.sort(first)]
    return kept


def cell_numbers(points: npt.NDArray[np.floating], size: Size, cells: int) -> npt.NDArray[np.int64]:
    """The number of the grid's cell that each point [N, 2] is in, int64 [N]; points beyond an edge count as inside."""
    side = max(size) / cells
    highest = np.array([size[1], size[0]], np.float64) - 1.0
    columns, rows = (np.clip(points, 0.0, highest) / side).astype(np.int64).T
    return np.asarray(rows * cells + columns, np.int64)


def number_of_cells(size: Size, cells: int) -> int:
    """How many cells the grid of `cell_numbers` has in an image of this size."""
    return math.prod(math.ceil(cells * side / max(size)) for side in size)


def chances(
    kind: Kind,
    matrix: Float64Array,
    points: tuple[Float64Array, Float64Array],
    sizes: tuple[Size, Size],
    blur: tuple[float, float] = (0.0, 0.0),
) -> Float64Array:
    """For each match, the chance that a random one fits the geometry as well: float64 [N] in 0..1.

    matrix: [3, 3] in pixels: a homography from image 0 to image 1, or a fundamental matrix x1' F x0 = 0; of an
        essential matrix, the fundamental matrix that it makes with the intrinsics.
    points: of both images, [N, 2]. sizes: of both images. blur: how well points are known at best, in pixels of each
        image; smaller errors count as these.
    """
    errors = _transfer(matrix, *points) if kind == "homography" else _to_lines(matrix, *points)
    result = np.zeros(len(points[0]))
    for error, size, least in zip(errors, sizes, blur, strict=True):
        area, known = float(size[0]) * size[1], np.maximum(np.where(np.isfinite(error), error, np.inf), least)
        near = np.pi * known**2 if kind == "homography" else 2.0 * known * float(np.hypot(*size))
        result = np.maximum(result, np.minimum(near / area, 1.0))
    return result


def _transfer(matrix: Float64Array, points0: Float64Array, points1: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Distances in image 0 and image 1 from where the homography puts the other image's point; [N] each."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        try:
            back = np.linalg.inv(matrix)
        except np.linalg.LinAlgError:
            back = np.full((3, 3), np.nan)
        mapped0, mapped1 = _homogeneous(points1) @ back.T, _homogeneous(points0) @ matrix.T
        return (
            np.asarray(np.hypot(*(mapped0[:, :2] / mapped0[:, 2:] - points0).T)),
            np.asarray(np.hypot(*(mapped1[:, :2] / mapped1[:, 2:] - points1).T)),
        )


def _to_lines(matrix: Float64Array, points0: Float64Array, points1: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Distances in image 0 and image 1 to the epipolar line of the other image's point; [N] each."""
    lines1, lines0 = _homogeneous(points0) @ matrix.T, _homogeneous(points1) @ matrix
    product = np.abs((_homogeneous(points1) * lines1).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return product / np.hypot(lines0[:, 0], lines0[:, 1]), product / np.hypot(lines1[:, 0], lines1[:, 1])


def _homogeneous(points: Float64Array) -> Float64Array:
    return np.column_stack([points, np.ones(len(points))])


def count_false_alarms(kind: Kind, chance: Float64Array) -> FalseAlarms:
    """The number of false alarms of a geometry. chance: of each match, [N] in 0..1, as `chances` gives them."""
    n, s = len(chance), SAMPLE[kind]
    if n <= s:
        return FalseAlarms(0.0, 0)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log10(np.arange(1.0, n + 1)))])
    k = np.arange(s + 1, n + 1)
    nearest = np.sort(chance)[s:]
    with np.errstate(divide="ignore"):
        explained = (k - s) * np.log10(nearest)
    ways = log_factorial[n] - log_factorial[n - k] - log_factorial[s] - log_factorial[k - s]  # C(n, k) C(k, s)
    each = np.log10(OUTCOMES[kind] * float(n - s)) + ways + explained
    best = int(np.argmin(each))
    return FalseAlarms(float(each[best]), int(k[best]))
