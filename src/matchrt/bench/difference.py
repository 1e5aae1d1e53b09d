"""Whether two results differ by more than rounding: what parity demands of two forms of the same network.

A result is what an engine returns, NumPy arrays by name: `keypoints0`, `keypoints1` [B, N, 2] in pixels of the input,
`scores` [B, N], `num_matches` [B], and `margin` [B, N] from networks that say by how much a pixel was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.bench.agreement import FloatArray, IndexArray, PairMatches, partners

Outputs = Mapping[str, npt.NDArray[Any]]
# DESIGN, fidelity: torch to ONNX to session, fp32.
MAX_PIXELS = 1e-3
# Scores closer to the threshold than this may fall on either side of it.
SCORE_TOLERANCE = 1e-4
# Matches of two results are the same one when their points are closer than this, in pixels; then they are compared.
# It is half a pixel along both axes at once.
SAME_MATCH = 0.71
# Where torch's own choice of a pixel was closer than this (relative), rounding may choose the other one, which lies
# within the same windows: not farther than this, in pixels.
TIE, TIE_PIXELS = 1e-4, 10.0


@dataclass(frozen=True)
class Difference:
    """How two results of one network differ.

    matches: in both results. lost, extra: only in the expected or only in the actual one, beyond rounding at the
    threshold. pixels, score: largest differences of matches that both have, in pixels of one coordinate.
    ties: matches whose pixel the network chose by less than rounding, and the other result chose otherwise.
    pixel_limit, score_limit: dense warps have others (`bench.dense_agreement`).
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
        """Whether this is rounding and nothing else."""
        few_ties = self.ties <= 1 + self.matches // 20
        close = self.pixels <= self.pixel_limit and self.score <= self.score_limit
        return self.lost == self.extra == 0 and few_ties and close


def compare_matches(expected: Outputs, actual: Outputs, threshold: float) -> Difference:
    """Compares the matches as sets, row by row of the batch: near-equal scores may swap places.

    A match that only one side has counts when its score is clearly above what the other side admits: the threshold,
    or its weakest match where all its slots are taken. One with a value that is not finite counts always.
    """
    rows = [_compare_row(expected, actual, row, threshold) for row in range(len(expected["num_matches"]))]
    return Difference(
        sum(r.matches for r in rows),
        sum(r.lost for r in rows),
        sum(r.extra for r in rows),
        float(np.max([r.pixels for r in rows])),  # unlike max(), it hands on a NaN
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
    ties = _ties(first, second, lost, alone, expected["margin"][row] if "margin" in expected else None)
    left = [index for index in extra if index not in ties.values()]
    pixels = _largest(first.points[paired], second.points[partner[paired]])
    score = _largest(first.scores[paired], second.scores[partner[paired]])
    return Difference(len(paired), len(lost) - len(ties), len(left), pixels, score, len(ties))


def _largest(first: FloatArray, second: FloatArray) -> float:
    return float(np.abs(first - second).max(initial=0.0))


def _counted(matches: PairMatches, rows: IndexArray, floor: float) -> IndexArray:
    """Of the rows, those that are clearly above what the other side admits, or that are no matches at all."""
    finite = np.isfinite(matches.points[rows]).all(axis=1) & np.isfinite(matches.scores[rows])
    counted: IndexArray = rows[~finite | (matches.scores[rows] > floor)]
    return counted


def _floor(outputs: Outputs, row: int, threshold: float) -> float:
    """The score from which on a match must be in this result."""
    scores = outputs["scores"][row]
    full = int(outputs["num_matches"][row]) == len(scores)
    return (max(threshold, float(scores[-1])) if full else threshold) + SCORE_TOLERANCE


def _ties(
    first: PairMatches, second: PairMatches, lost: IndexArray, alone: IndexArray, margin: npt.NDArray[Any] | None
) -> dict[int, int]:
    """Lost matches whose pixel was chosen by a tie -> the other result's match with the pixel chosen otherwise."""
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
