"""The nearest match of each match. Every comparison of matches uses it: gates, parity, `verify` and self-tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
# This many rows are compared at once. All distances of many matches would not fit into memory.
_BLOCK = 32


def nearest_rows(first: FloatArray, second: FloatArray) -> tuple[IndexArray, FloatArray]:
    """Finds, for every row of `first`, the nearest row of `second`: int64 indices [N] and distances [N] in pixels.

    first: [N, 2E], x and y of each of E points. second: [M, 2E], likewise. Matches have two points, their ends.
    The distance is the largest of the Euclidean distances of the points. It is infinite where a number is NaN or
    infinite, and where `second` is empty (the index is 0 then).
    """
    index, distance = np.zeros(len(first), np.int64), np.full(len(first), np.inf)
    if not len(second):
        return index, distance
    columns = np.ascontiguousarray(second.T)
    for start in range(0, len(first), _BLOCK):
        block = slice(start, start + _BLOCK)
        gaps = _squares(first[block], columns)
        index[block] = gaps.argmin(axis=1)
        # The root is taken of what was chosen only: it costs more than all the rest.
        found = np.isfinite(gaps.min(axis=1))
        offsets = first[block][found] - second[index[block][found]]
        distance[block][found] = np.hypot(offsets[:, 0::2], offsets[:, 1::2]).max(axis=1)
    return index, distance


def _squares(first: FloatArray, columns: FloatArray) -> FloatArray:
    """[N, M]: the squares of the distances; infinite where they are no number. columns: `second`, [2E, M]."""
    largest = np.zeros((len(first), columns.shape[1]))
    with np.errstate(invalid="ignore", over="ignore"):  # infinity less infinity, and squares of huge numbers
        for end in range(0, len(columns), 2):
            x, y = (first[:, axis, None] - columns[None, axis] for axis in (end, end + 1))
            x *= x
            y *= y
            x += y
            np.maximum(largest, x, out=largest)
    largest[np.isnan(largest)] = np.inf
    return largest
