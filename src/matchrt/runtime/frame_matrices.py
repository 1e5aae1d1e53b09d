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

# Averages of 2 x 2 pixels are multiples of a quarter, so this moves none of them across a half but the halves.
_ABOVE_HALF = 2.0**-16


@lru_cache(maxsize=32)
def range_inputs(contract: InputContract, size: Size, side: int) -> dict[str, npt.NDArray[Any]]:
    """What an engine of a range of sizes takes besides frame `side` of this (height, width), arrays by name.

    `rows` float32 `[h, rows of the frame]` and `columns` float32 `[W, w]` resize the frame's planes from the left and
    from the right and have zeros where the input is padded; `scale` float32 `[2]` has frame pixels for each input pixel
    along x and y; `size` int32 `[B, 2]`, for families that mask padding, has the valid height and width. The arrays are
    kept and shared: they must not be changed. Raises nothing for a size that the engine takes.
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
        left, right = resize_matrices(size, target, contract)
        found[f"{name}rows{side}"] = _padded(left, (canvas[0], rows))
        found[f"{name}columns{side}"] = _padded(right.T, (size[1], canvas[1]))
    found[f"scale{side}"] = np.array([fit.scale_x, fit.scale_y], np.float32)
    found[f"size{side}"] = np.array([resized] * contract.batch, np.int32)
    return found


def resize_matrices(source: Size, target: Size, contract: InputContract) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The resize along rows and along columns as matrices float64 `[target, source]`. Raises nothing."""
    matrices = {"rows": np.eye(source[0]), "columns": np.eye(source[1])}
    rounding: Rounding = "none"
    for step in resize_passes(source, target, contract.kernel):
        matrices[step.axis] = step.taps.matrix(len(matrices[step.axis])) @ matrices[step.axis]
        rounding = step.rounding
    # Graphs round halves of OpenCV's filters to even. Where the host rounds them up, they are made a little larger.
    up = contract.kernel == "area-linear" and rounding == "half-up"
    return matrices["rows"] * (1 + _ABOVE_HALF if up else 1), matrices["columns"]


def _padded(matrix: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    padded = np.zeros(shape, np.float32)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded
