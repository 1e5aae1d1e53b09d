"""The nearest match of each match. Every comparison of matches uses it: gates, parity, `verify` and self-tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
# This many rows are compared at once. All distances of many matches would not fit into memory.
_BLOCK = 256


def nearest_rows(first: FloatArray, second: FloatArray) -> tuple[IndexArray, FloatArray]:
    """Finds, for every row of `first`, the nearest row of `second`: int64 indices [N] and distances [N] in pixels.

    first: [N, 2E], x and y of each of E points. second: [M, 2E], likewise. Matches have two points, their ends.
    The distance is the largest of the Euclidean distances of the points. It is infinite where a number is NaN or
    infinite, and where `second` is empty (the index is 0 then).
    """
    index, distance = np.zeros(len(first), np.int64), np.full(len(first), np.inf)
    if not len(second):
        return index, distance
    for start in range(0, len(first), _BLOCK):
        block = slice(start, start + _BLOCK)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            offsets = first[block, None] - second[None]
        gaps = np.hypot(offsets[..., 0::2], offsets[..., 1::2]).max(axis=2)
        gaps[np.isnan(gaps)] = np.inf
        index[block], distance[block] = gaps.argmin(axis=1), gaps.min(axis=1)
    return index, distance
