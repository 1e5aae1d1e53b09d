"""The parity check: whether the results of two forms of one network differ by more than rounding.

A result is what an engine returns, as NumPy arrays by name: `keypoints0` and `keypoints1` [B, N, 2] in pixels of the
input, `scores` [B, N], `num_matches` [B]. Torch also gives `margin` [B, N], if the network can say how clearly each
pixel was chosen, and `reach` [1], if scores and places depend on the matches around, within so many pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.bench.agreement import FloatArray, PairMatches, partners
from matchrt.runtime.nearest import IndexArray

Outputs = Mapping[str, npt.NDArray[Any]]
# Largest distance in pixels that torch, ONNX and a session may be apart in fp32 (the fidelity bar of the design).
MAX_PIXELS = 1e-3
# A score that is closer to the threshold than this may fall on either side of it.
SCORE_TOLERANCE = 1e-4
# Two matches are compared as the same match if their points are closer than this, in pixels. The value is half a pixel
# along both axes at once.
SAME_MATCH = 0.71
# A pixel that torch chose by a smaller relative margin than TIE may be chosen otherwise by rounding. The other pixel
# lies in the same window, at most TIE_PIXELS away.
TIE, TIE_PIXELS = 1e-4, 10.0


@dataclass(frozen=True)
class Difference:
    """How two results of one network differ.

    matches: number of matches that both results have.
    lost: number of matches that only the expected result has, beyond rounding at the threshold.
    extra: number of matches that only the actual result has, beyond rounding at the threshold.
    pixels: largest difference of one coordinate between matches that both have, in pixels, but for those that depend on
        a tie.
    score: largest difference of scores between the same matches.
    ties: number of matches whose pixel, or whose slot, was chosen by a margin below rounding, so that the other result
        chose otherwise.
    pixel_limit: largest value of `pixels` that counts as rounding; dense warps have another (`bench.dense_agreement`).
    score_limit: largest value of `score` that counts as rounding; dense warps have another.
    """

    matches: int
    lost: int
    extra: int
    pixels: float
    score: float
    ties: int = 0
    pixel_limit: float = MAX_PIXELS
    score_limit: float = 10 * SCORE_TOLERANCE

    @property
    def same(self) -> bool:
        """Whether the results differ by rounding only."""
        few_ties = self.ties <= 1 + self.matches // 20
        close = self.pixels <= self.pixel_limit and self.score <= self.score_limit
        return self.lost == self.extra == 0 and few_ties and close


def compare_matches(expected: Outputs, actual: Outputs, threshold: float) -> Difference:
    """Compares matches as sets, row by row of the batch, because matches of nearly equal scores may swap places.

    threshold: the score below which neither side returns matches.
    A match that only one side has counts if its score is clearly above what the other side admits. That is the
    threshold, or the weakest match if all slots are taken. A match with a value that is not finite always counts.
    """
    rows = [_compare_row(expected, actual, row, threshold) for row in range(len(expected["num_matches"]))]
    return Difference(
        sum(r.matches for r in rows),
        sum(r.lost for r in rows),
        sum(r.extra for r in rows),
        float(np.max([r.pixels for r in rows])),  # np.max passes a NaN on, max() may not
        float(np.max([r.score for r in rows])),
        sum(r.ties for r in rows),
    )


def _compare_row(expected: Outputs, actual: Outputs, row: int, threshold: float) -> Difference:
    first, second = PairMatches.from_outputs(expected, row), PairMatches.from_outputs(actual, row)
    partner = partners(first, second, SAME_MATCH)
    paired = np.flatnonzero(partner >= 0)
    alone = np.setdiff1d(np.arange(len(second)), partner)
    lost = _counted(first, np.flatnonzero(partner < 0), _floor(actual, row, threshold))
    extra = _counted(second, alone, _floor(expected, row, threshold))
    margin = expected["margin"][row] if "margin" in expected else None
    steady = paired
    if "reach" in expected:
        if margin is None:  # then any match may have had its slot by rounding, if there were none left
            margin = np.full(len(expected["scores"][row]), 0.0 if _full(expected, row) and _full(actual, row) else 1.0)
        forgiven = _forgiven(first, second, lost, extra, margin)
        changed = np.concatenate([first.points[partner < 0], second.points[alone]])
        steady = paired[_out_of_reach(first.points[paired], changed, float(expected["reach"][0]))]
    else:
        pixels_of = _ties(first, second, lost, alone, margin)
        forgiven = (len(pixels_of), sum(index in pixels_of.values() for index in extra))
    pixels = _largest(first.points[steady], second.points[partner[steady]])
    score = _largest(first.scores[steady], second.scores[partner[steady]])
    return Difference(len(paired), len(lost) - forgiven[0], len(extra) - forgiven[1], pixels, score, max(forgiven))


def _forgiven(
    first: PairMatches, second: PairMatches, lost: IndexArray, extra: IndexArray, margin: npt.NDArray[Any]
) -> tuple[int, int]:
    """How many lost and extra matches rounding explains where scores depend on the matches around.

    A match whose pixels, or whose slot, had a margin below rounding may be lost. As many others may come as there are
    such candidates, with any score, because they got theirs from other matches.
    """
    real = np.isfinite(first.points[lost]).all(axis=1) & np.isfinite(first.scores[lost])
    others = np.isfinite(second.points[extra]).all(axis=1) & np.isfinite(second.scores[extra])
    unclear = margin < TIE
    return int((real & unclear[lost]).sum()), min(int(others.sum()), int(unclear.sum()))


def _out_of_reach(points: FloatArray, changed: FloatArray, reach: float) -> npt.NDArray[np.bool_]:
    """Which of the matches `[N, 4]` lie so many pixels or more in image 0 from all that changed, `[M, 4]`."""
    apart = np.linalg.norm(points[:, None, :2] - changed[None, :, :2], axis=2)
    far: npt.NDArray[np.bool_] = apart.min(axis=1, initial=np.inf) >= reach
    return far


def _largest(first: FloatArray, second: FloatArray) -> float:
    return float(np.abs(first - second).max(initial=0.0))


def _counted(matches: PairMatches, rows: IndexArray, floor: float) -> IndexArray:
    """The rows whose scores are clearly above `floor`, and those that hold a value that is not finite."""
    finite = np.isfinite(matches.points[rows]).all(axis=1) & np.isfinite(matches.scores[rows])
    counted: IndexArray = rows[~finite | (matches.scores[rows] > floor)]
    return counted


def _floor(outputs: Outputs, row: int, threshold: float) -> float:
    """A match of a higher score than this must be in the result."""
    scores = outputs["scores"][row]
    return (max(threshold, float(scores[-1])) if _full(outputs, row) else threshold) + SCORE_TOLERANCE


def _full(outputs: Outputs, row: int) -> bool:
    return int(outputs["num_matches"][row]) == len(outputs["scores"][row])


def _ties(
    first: PairMatches,
    second: PairMatches,
    lost: IndexArray,
    alone: IndexArray,
    margin: npt.NDArray[Any] | None,
) -> dict[int, int]:
    """Maps each lost match that was a tie to the other result's match in which the other pixel was chosen."""
    found: dict[int, int] = {}
    if margin is None:
        return found
    for index in (index for index in lost if margin[index] < TIE):
        apart = np.abs(second.points[alone] - first.points[index]).max(axis=1, initial=0.0)
        near = (apart <= TIE_PIXELS) & (np.abs(second.scores[alone] - first.scores[index]) <= SCORE_TOLERANCE)
        free = [int(other) for other in alone[near] if other not in found.values()]
        if free:
            found[int(index)] = free[0]
    return found
