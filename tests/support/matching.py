"""Matches that tests write down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.runtime.match_data import ImageRef, Provenance
from matchrt.runtime.matches import Matches

# x0, y0, x1, y1, score.
Row = tuple[float, float, float, float, float]


def made_matches(rows: Sequence[Row], side: int = 640) -> Matches:
    """`Matches` between two square images."""
    values = np.array(rows, np.float32).reshape(-1, 5)
    ref = ImageRef("x", side, side)
    made_by = Provenance("m", "0", "fp32", "onnxruntime", "0", (side, side), (side, side))
    return Matches(values[:, :2], values[:, 2:4], values[:, 4], ref, ref, {}, made_by)


def made_outputs(*batch: Sequence[Row], slots: int = 8) -> dict[str, npt.NDArray[Any]]:
    """What an engine with so many slots returns: a row of the batch for every list of matches, zeros behind them."""
    values = np.zeros((len(batch), slots, 5), np.float32)
    for row, matches in enumerate(batch):
        values[row, : len(matches)] = np.array(matches, np.float32).reshape(-1, 5)
    return {
        "keypoints0": values[..., :2],
        "keypoints1": values[..., 2:4],
        "scores": values[..., 4],
        "num_matches": np.array([len(matches) for matches in batch], np.int32),
    }
