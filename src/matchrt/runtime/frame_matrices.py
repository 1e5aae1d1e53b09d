"""The matrices of a resize, which engines for a range of frame sizes take as inputs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.manifest import InputContract
from matchrt.manifest.frames import Size
from matchrt.runtime.fit import fit_image
from matchrt.runtime.resize_weights import Rounding, resize_passes

# Steps in a level to which sums along columns and products along rows are rounded down, and what is added in the end.
# All sums that have halves are multiples of 2^-11, so a 2^-13 moves no other one across a half.
_FINE, _UPWARD = 2.0**16, 2.0**-13
_ROUNDING: dict[Rounding, tuple[float, float, float]] = {
    "none": (_FINE, _FINE, 0.0),
    "half-even": (_FINE, _FINE, 0.0),
    "half-up": (_FINE, _FINE, _UPWARD),
    "quarters": (128.0, 4.0, _UPWARD),
}


@lru_cache(maxsize=32)
def range_inputs(contract: InputContract, size: Size, side: int) -> dict[str, npt.NDArray[Any]]:
    """What an engine of a range of sizes takes besides frame `side` of this (height, width), arrays by name.

    `rows` float32 `[h, rows of the frame]` and `columns` float32 `[W, w]` resize the frame's planes from the left and
    from the right and have zeros where the input is padded. For `area-linear`, `rows` has two such matrices below one
    another, whose results are added: OpenCV rounds each of the two products of a linear enlargement along rows.
    `rounding` float32 `[3]` says how: the steps in a level to which sums along columns, and products along rows, are
    rounded down, and what is added before the last rounding, to the nearest even level. `scale` float32 `[2]` has
    frame pixels for each input pixel along x and y; `size` int32 `[B, 2]`, for families that mask padding, has the
    valid height and width. The arrays are kept and shared: they must not be changed. Raises nothing for a size that
    the engine takes.
    """
    frames = contract.frames
    assert frames is not None
    fit = fit_image(size, contract, 0)
    rows = frames.shape(size)[0]
    resized = (fit.resized_height, fit.resized_width)
    found: dict[str, npt.NDArray[Any]] = {}
    for name, target, canvas in (("", resized, fit.canvas_hw), ("coarse_", contract.coarse, contract.coarse)):
        if target is None or canvas is None:
            continue
        left, right, rounding = resize_matrices(size, target, contract)
        found[f"{name}rows{side}"] = _padded(left, (canvas[0], rows))
        found[f"{name}columns{side}"] = _padded(right.T, (size[1], canvas[1]))
        if contract.kernel == "area-linear":
            other = np.zeros_like(left)
            if rounding == "quarters":  # one tap of each row in either matrix
                left, other = _taps_apart(left)
            parts = [_padded(part, (canvas[0], rows)) for part in (left, other)]
            found[f"{name}rows{side}"] = np.concatenate(parts)
            found[f"{name}rounding{side}"] = np.array(_ROUNDING[rounding], np.float32)
    found[f"scale{side}"] = np.array([fit.scale_x, fit.scale_y], np.float32)
    found[f"size{side}"] = np.array([resized] * contract.batch, np.int32)
    return found


def resize_matrices(
    source: Size, target: Size, contract: InputContract
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Rounding]:
    """The resize along rows and along columns as matrices float64 `[target, source]`, and how its last pass rounds.

    Raises nothing.
    """
    matrices = {"rows": np.eye(source[0]), "columns": np.eye(source[1])}
    rounding: Rounding = "none"
    for step in resize_passes(source, target, contract.kernel):
        matrices[step.axis] = step.taps.matrix(len(matrices[step.axis])) @ matrices[step.axis]
        rounding = step.rounding
    return matrices["rows"], matrices["columns"], rounding


def _taps_apart(matrix: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Two matrices that add up to this one: the first entry of each row that is not zero, and the others."""
    first = np.zeros_like(matrix)
    rows, places = np.arange(len(matrix)), (matrix != 0).argmax(1)
    first[rows, places] = matrix[rows, places]
    return first, matrix - first


def _padded(matrix: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    padded = np.zeros(shape, np.float32)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded
