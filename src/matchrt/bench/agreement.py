"""Comparing the matches of two engines on one pair or many: which are kept, how many there are, and in which order.

All comparisons of matches use `nearest`: the gates and `verify` through this module, parity through `bench.difference`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.bench.metrics import pixel_scale
from matchrt.runtime.matches import Matches
from matchrt.runtime.nearest import IndexArray, nearest_rows

FloatArray = npt.NDArray[np.float64]
PIXELS = (0.5, 1.0, 3.0)
# Scores are compared between matches that are this close, in pixels.
_SAME = 3.0
# A comparison of fewer matches than this says nothing.
ENOUGH = 20


@dataclass(frozen=True, eq=False)
class PairMatches:
    """The N matches of one pair, ready to be compared. Both sides of a comparison must be made in the same way.

    points: float64 [N, 4], x0, y0, x1, y1 in pixels; x right, y down, the centre of the top-left pixel is (0, 0).
    scores: float64 [N], in 0..1. Points and scores may be NaN. Such a match is far from every other one and below every
        score.
    """

    points: FloatArray
    scores: FloatArray

    @classmethod
    def from_matches(cls, matches: Matches) -> PairMatches:
        """Points in pixels of images scaled to a long side of 640, so that one pixel is equally strict at any size."""
        ends = [
            np.asarray(points, np.float64) / pixel_scale(ref.height, ref.width)
            for points, ref in ((matches.keypoints0, matches.image0), (matches.keypoints1, matches.image1))
        ]
        return cls(np.concatenate(ends, axis=1), np.asarray(matches.scores, np.float64))

    @classmethod
    def from_outputs(cls, outputs: Mapping[str, npt.NDArray[Any]], row: int = 0) -> PairMatches:
        """The matches of one row of a batch, from an engine's outputs by name; points in pixels of its input."""
        count = int(outputs["num_matches"][row])
        ends = [np.asarray(outputs[name][row][:count], np.float64) for name in ("keypoints0", "keypoints1")]
        return cls(np.concatenate(ends, axis=1), np.asarray(outputs["scores"][row][:count], np.float64))

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> PairMatches:
        """The matches whose score is at least `score`."""
        good = self.scores >= score
        return PairMatches(self.points[good], self.scores[good])


def nearest(first: PairMatches, second: PairMatches) -> tuple[IndexArray, FloatArray]:
    """Finds, for every match of `first`, the nearest match of `second`: int64 indices [N] and distances [N] in pixels.

    The distance is the larger of the Euclidean distances of the two ends. It is infinite where a point is NaN or
    infinite, and where `second` is empty (the index is 0 then).
    """
    return nearest_rows(first.points, second.points)


def partners(first: PairMatches, second: PairMatches, pixels: float) -> IndexArray:
    """Gives every match of `first` its nearest match of `second` within `pixels`: indices [N], -1 where there is none.

    Each match of `second` is used once. If two matches have the same nearest one, the nearer of them gets it.
    """
    index, distance = nearest(first, second)
    partner = np.full(len(first), -1, np.int64)
    taken: set[int] = set()
    for row in np.argsort(distance, kind="stable"):
        if distance[row] > pixels:
            break
        if index[row] not in taken:
            partner[row] = index[row]
            taken.add(int(index[row]))
    return partner


@dataclass(frozen=True)
class Agreement:
    """How well the matches of an engine agree with those of its reference.

    expected: number of the reference's matches.
    actual: number of the engine's matches.
    kept: how many of the expected matches have an actual one within 0.5, 1 and 3 px (`PIXELS`).
    rank: Spearman's correlation of the scores of matches that both have; NaN if there are fewer than three.
    """

    expected: int
    actual: int
    kept: tuple[int, int, int]
    rank: float

    def share(self, pixels: float) -> float:
        """The share (0..1) of the reference's matches kept within 0.5, 1 or 3 px; 1 where neither side has any."""
        if not self.expected:
            return float(self.actual == 0)
        return self.kept[PIXELS.index(pixels)] / self.expected

    @property
    def count_ratio(self) -> float:
        """actual / expected; 1 where neither side has matches, infinite where only the engine has some."""
        if self.expected:
            return self.actual / self.expected
        return 1.0 if self.actual == 0 else math.inf

    def to_json(self) -> dict[str, Any]:
        """As JSON values; a value that is not finite is null."""
        figures = {f"within_{pixels:g}px": self.share(pixels) for pixels in PIXELS} | {"count_ratio": self.count_ratio}
        return {**asdict(self), "kept": list(self.kept), "rank": _finite(self.rank)} | {
            name: _finite(value) for name, value in figures.items()
        }


def agree(reference: PairMatches, engine: PairMatches) -> Agreement:
    """Compares the matches of one pair. Both sides must be in the same pixels."""
    index, distance = nearest(reference, engine)
    kept = tuple(int(np.count_nonzero(distance <= pixels)) for pixels in PIXELS)
    common = np.flatnonzero(distance <= _SAME)
    rank = _spearman(reference.scores[common], engine.scores[index[common]])
    return Agreement(len(reference), len(engine), (kept[0], kept[1], kept[2]), rank)


def together(pairs: Sequence[Agreement]) -> Agreement:
    """The agreement of all pairs together.

    Counts are added up. The rank correlation is the mean over the pairs that have one, weighted by their number of
    matches.
    """
    ranked = [(p.rank, p.expected) for p in pairs if math.isfinite(p.rank)]
    weight = sum(count for _, count in ranked)
    rank = sum(value * count for value, count in ranked) / weight if weight else math.nan
    kept = [sum(p.kept[i] for p in pairs) for i in range(len(PIXELS))]
    return Agreement(sum(p.expected for p in pairs), sum(p.actual for p in pairs), (kept[0], kept[1], kept[2]), rank)


def _spearman(first: FloatArray, second: FloatArray) -> float:
    """Correlation of ranks; ties share their mean rank."""
    if len(first) < 3:
        return math.nan
    ranks = [_ranks(values) for values in (first, second)]
    spread = [float(r.std()) for r in ranks]
    if not all(spread):
        return math.nan
    centred = [r - r.mean() for r in ranks]
    return float((centred[0] * centred[1]).mean() / (spread[0] * spread[1]))


def _ranks(values: FloatArray) -> FloatArray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: FloatArray = (ends - (counts - 1) / 2).astype(np.float64)
    return mean[inverse]


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
