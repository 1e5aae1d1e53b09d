"""Two engines' matches of one pair, and of many: what is kept, how many there are, in which order.

Distances are pixels at a long side of 640 (`bench.metrics.pixel_scale`), the larger of both ends: a 1 is as hard at any
size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.bench.metrics import pixel_scale
from matchrt.runtime.matches import Matches

FloatArray = npt.NDArray[np.float64]
PIXELS = (0.5, 1.0, 3.0)
# Scores are compared between matches that are this close.
_SAME = 3.0


@dataclass(frozen=True)
class Agreement:
    """expected, actual: matches of the reference and of the engine. kept: of the expected, within PIXELS of an actual.

    rank: Spearman's correlation of the scores of matches that both have; NaN where there are fewer than three.
    """

    expected: int
    actual: int
    kept: tuple[int, int, int]
    rank: float

    def share(self, pixels: float) -> float:
        """Of the reference's matches, the share that is within 0.5, 1 or 3 px; 1 where neither has any."""
        if not self.expected:
            return float(self.actual == 0)
        return self.kept[PIXELS.index(pixels)] / self.expected

    @property
    def count_ratio(self) -> float:
        """actual / expected; 1 where neither has any, infinite where only the engine has."""
        if self.expected:
            return self.actual / self.expected
        return 1.0 if self.actual == 0 else math.inf

    def to_json(self) -> dict[str, Any]:
        """As JSON values; what is not finite is null."""
        figures = {f"within_{pixels:g}px": self.share(pixels) for pixels in PIXELS} | {"count_ratio": self.count_ratio}
        return {**asdict(self), "kept": list(self.kept), "rank": _finite(self.rank)} | {
            name: _finite(value) for name, value in figures.items()
        }


def agree(reference: Matches, engine: Matches) -> Agreement:
    """Compares the matches of one pair."""
    first, second = _scaled(reference), _scaled(engine)
    nearest, distance = _nearest(first, second)
    kept = tuple(int(np.count_nonzero(distance <= pixels)) for pixels in PIXELS)
    common = np.flatnonzero(distance <= _SAME)
    rank = _spearman(reference.scores[common], engine.scores[nearest[common]])
    return Agreement(len(first), len(second), (kept[0], kept[1], kept[2]), rank)


def together(pairs: Sequence[Agreement]) -> Agreement:
    """Counts added up; the rank correlation is the mean over the pairs that have one, weighed by their matches."""
    ranked = [(p.rank, p.expected) for p in pairs if math.isfinite(p.rank)]
    weight = sum(count for _, count in ranked)
    rank = sum(value * count for value, count in ranked) / weight if weight else math.nan
    kept = [sum(p.kept[i] for p in pairs) for i in range(len(PIXELS))]
    return Agreement(sum(p.expected for p in pairs), sum(p.actual for p in pairs), (kept[0], kept[1], kept[2]), rank)


def _scaled(matches: Matches) -> FloatArray:
    """[N, 4]: x0, y0, x1, y1 at a long side of 640."""
    ends = (
        np.asarray(points, np.float64) / pixel_scale(ref.height, ref.width)
        for points, ref in ((matches.keypoints0, matches.image0), (matches.keypoints1, matches.image1))
    )
    return np.concatenate(list(ends), axis=1)


def _nearest(first: FloatArray, second: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """For every row of `first` the nearest row of `second`, and the distance of the end that is farther off."""
    nearest, distance = np.zeros(len(first), np.int64), np.full(len(first), np.inf)
    if not len(second):
        return nearest, distance
    for start in range(0, len(first), 256):  # all at once would not fit into memory where there are many
        block = slice(start, start + 256)
        offsets = first[block, None] - second[None]
        gaps = np.maximum(np.hypot(offsets[..., 0], offsets[..., 1]), np.hypot(offsets[..., 2], offsets[..., 3]))
        nearest[block], distance[block] = gaps.argmin(axis=1), gaps.min(axis=1)
    return nearest, distance


def _spearman(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """Correlation of ranks; ties share their mean rank."""
    if len(first) < 3:
        return math.nan
    ranks = [_ranks(values) for values in (first, second)]
    spread = [float(r.std()) for r in ranks]
    if not all(spread):
        return math.nan
    centred = [r - r.mean() for r in ranks]
    return float((centred[0] * centred[1]).mean() / (spread[0] * spread[1]))


def _ranks(values: npt.NDArray[Any]) -> FloatArray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: FloatArray = (ends - (counts - 1) / 2).astype(np.float64)
    return mean[inverse]


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
