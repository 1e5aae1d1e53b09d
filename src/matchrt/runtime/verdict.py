"""How sure it is that two images show the same thing: `judge` gives a probability and a verdict in words.

Two sources are joined. The first is the a-contrario measure of a two-view geometry (`false_alarms`): whether chance
explains it. The second is what the network knows: how many matches there are, how sure it is of them, which share of
them agrees, and how much of each image they cover. A logistic model with a few weights, none of them negative, makes a
probability of these (`calibration`). Its constants were fitted on pairs whose truth is known (`tools/verdict`).

The verdict is `match` from a probability of 0.9, `no match` up to 0.1, and `doubtful` between. The probability holds
where true and false pairs are equally frequent.

Coordinates: pixels of the original images, x right, y down, the centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from matchrt.runtime.calibration import constants
from matchrt.runtime.false_alarms import Size, cell_numbers, chances, count_false_alarms, thin
from matchrt.runtime.geometry import DEFAULT_THRESHOLD_PX, Float64Array, Geometry, Kind, estimate

Word = Literal["match", "doubtful", "no match"]
WORDS: tuple[Word, ...] = get_args(Word)
# Probabilities from which a pair is a match, and up to which it is none.
MATCH_FROM, NO_MATCH_TO = 0.9, 0.1

# Cells along an image's longer side: at most one match of each counts, and coverage is measured in cells of twice the
# side. Points are known to about a pixel of what the network saw.
CELLS, COVERAGE_CELLS = 20, 10
BLUR_PX = 1.0
# Geometries that nobody asked for: samples that are tried, of matches that stand for their surroundings.
_MAX_ITERATIONS = 500


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on. Matches are counted once for each cell of a grid (`false_alarms.thin`).

    kind: the geometry that was judged; None if none was found.
    matches: number of all matches.
    cells: number of matches that stand for their surroundings.
    inliers: how many of these the geometry explains better than chance.
    coverage0: share of the cells of image 0, 0..1, that hold such inliers.
    coverage1: the same of image 1.
    score_median: median of the matches' scores, 0..1; 0 without matches.
    score_high: the score that a tenth of the matches reach.
    """

    kind: Kind | None
    matches: int
    cells: int
    inliers: int
    coverage0: float
    coverage1: float
    score_median: float
    score_high: float


@dataclass(frozen=True)
class Verdict:
    """How sure it is that two images show the same thing.

    verdict: `match`, `doubtful` or `no match`.
    probability: that the two images show the same thing, 0..1.
    log10_nfa: log10 of the number of false alarms that chance would give, at most 0: the smaller, the surer.
    evidence: what they rest on.
    """

    verdict: Word
    probability: float
    log10_nfa: float
    evidence: Evidence

    def __str__(self) -> str:
        """In words, such as `match (probability 0.99, 1 false alarm in 10^41)`."""
        alarms = round(-self.log10_nfa)
        chance = f"1 false alarm in 10^{alarms}" if alarms >= 1 else "chance explains it"
        return f"{self.verdict} (probability {shown(self.probability)}, {chance})"


def shown(probability: float) -> str:
    """A probability with two digits, which is never shown as 0 or 1: nothing is that sure. Raises nothing."""
    return f"{min(max(probability, 0.01), 0.99):.2f}"


class _Image(Protocol):
    @property
    def height(self) -> int:
        """Pixels."""
        ...

    @property
    def width(self) -> int:
        """Pixels."""
        ...


class _Origin(Protocol):
    @property
    def model(self) -> str:
        """The network's name."""
        ...

    @property
    def network_size0(self) -> tuple[int, int]:
        """(height, width) at which the network saw image 0."""
        ...

    @property
    def network_size1(self) -> tuple[int, int]:
        """The same of image 1."""
        ...


class Judged(Protocol):
    """What `judge` needs of matches: fields of `Matches`."""

    @property
    def keypoints0(self) -> npt.NDArray[np.float32]:
        """float32 [N, 2], pixels of image 0."""
        ...

    @property
    def keypoints1(self) -> npt.NDArray[np.float32]:
        """float32 [N, 2], pixels of image 1."""
        ...

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """float32 [N], descending."""
        ...

    @property
    def image0(self) -> _Image:
        """The size of image 0."""
        ...

    @property
    def image1(self) -> _Image:
        """The size of image 1."""
        ...

    @property
    def provenance(self) -> _Origin:
        """What made the matches."""
        ...

    @property
    def geometry(self) -> Geometry | None:
        """What `verify` found."""
        ...


def judge(matches: Judged, cameras: tuple[Float64Array, Float64Array] | None = None) -> Verdict:
    """How sure it is that the two images of some matches show the same thing. The same matches give the same verdict.

    matches: with the geometry that `verify` found. Without one, homography and fundamental matrix are estimated here,
        on matches that stand for their surroundings, and the surer one counts; the matches stay as they are.
    cameras: K0 and K1 [3, 3] in pixels, of an essential matrix; without them, it counts as no geometry.

    Raises nothing.
    """
    return max(judged_kinds(matches, cameras), key=lambda one: (one.probability, -one.log10_nfa))


def judged_kinds(matches: Judged, cameras: tuple[Float64Array, Float64Array] | None = None) -> list[Verdict]:
    """The verdict by each geometry that `judge` looks at. Raises nothing."""
    pair = _Pair.of(matches)
    geometry = matches.geometry
    if geometry is not None and geometry.matrix is not None:
        matrix = _in_pixels(geometry, cameras)
        if matrix is not None:
            return [_verdict(pair, geometry.kind, matrix)]
    kinds: tuple[Kind, ...] = ("homography", "fundamental")
    return [_verdict(pair, kind, pair.estimate(kind)) for kind in kinds]


def _in_pixels(geometry: Geometry, cameras: tuple[Float64Array, Float64Array] | None) -> Float64Array | None:
    """The matrix as one between pixels; None if an essential matrix comes without cameras."""
    if geometry.kind != "essential" or geometry.matrix is None:
        return geometry.matrix
    if cameras is None:
        return None
    return np.asarray(np.linalg.inv(cameras[1]).T @ geometry.matrix @ np.linalg.inv(cameras[0]), np.float64)


@dataclass(frozen=True, eq=False)
class _Pair:
    """What of some matches counts.

    model: the network's name. count: number of all matches. scores: median and upper decile of all.
    points: of the matches that stand for their surroundings, float64 [n, 2] in each image. sizes: (height, width).
    pixel: a pixel of what the network saw, in pixels of each image.
    """

    model: str
    count: int
    scores: tuple[float, float]
    points: tuple[Float64Array, Float64Array]
    sizes: tuple[Size, Size]
    pixel: tuple[float, float]

    @classmethod
    def of(cls, matches: Judged) -> _Pair:
        images, origin = (matches.image0, matches.image1), matches.provenance
        sizes = (images[0].height, images[0].width), (images[1].height, images[1].width)
        chosen = thin(matches.keypoints0, matches.keypoints1, sizes, CELLS)
        seen = origin.network_size0, origin.network_size1
        pixels = [max(size) / max(*network, 1) for size, network in zip(sizes, seen, strict=True)]
        scores = tuple(float(np.quantile(matches.scores, q)) for q in (0.5, 0.9)) if len(matches.scores) else (0.0, 0.0)
        return cls(
            origin.model,
            len(matches.scores),
            (scores[0], scores[1]),
            (matches.keypoints0[chosen].astype(np.float64), matches.keypoints1[chosen].astype(np.float64)),
            sizes,
            (max(pixels[0], 1e-3), max(pixels[1], 1e-3)),
        )

    def estimate(self, kind: Kind) -> Float64Array | None:
        threshold = DEFAULT_THRESHOLD_PX[kind] * max(self.pixel)
        return estimate(*self.points, kind, threshold=threshold, max_iterations=_MAX_ITERATIONS).matrix


def _verdict(pair: _Pair, kind: Kind, matrix: Float64Array | None) -> Verdict:
    alarms, evidence = _evidence(pair, kind, matrix)
    probability = constants(pair.model, kind).probability(features(alarms, evidence))
    return Verdict(word_of(probability), probability, alarms, evidence)


def _evidence(pair: _Pair, kind: Kind, matrix: Float64Array | None) -> tuple[float, Evidence]:
    """log10 of the number of false alarms, at most 0, and what else counts."""
    if matrix is None:
        return 0.0, Evidence(None, pair.count, len(pair.points[0]), 0, 0.0, 0.0, *pair.scores)
    chance = chances(kind, matrix, pair.points, pair.sizes, (BLUR_PX * pair.pixel[0], BLUR_PX * pair.pixel[1]))
    found = count_false_alarms(kind, chance)
    explained = found.inliers if found.log10_nfa < 0 else 0
    inliers = np.argsort(chance, kind="stable")[:explained]
    coverage0, coverage1 = (_coverage(side[inliers], size) for side, size in zip(pair.points, pair.sizes, strict=True))
    evidence = Evidence(kind, pair.count, len(chance), explained, coverage0, coverage1, *pair.scores)
    return min(found.log10_nfa, 0.0), evidence


def _coverage(points: Float64Array, size: Size) -> float:
    """The share of an image's cells that hold points."""
    cells = math.prod(math.ceil(COVERAGE_CELLS * side / max(size)) for side in size)
    return len(np.unique(cell_numbers(points, size, COVERAGE_CELLS))) / cells


def word_of(probability: float) -> Word:
    """The verdict of a probability. Raises nothing."""
    if probability >= MATCH_FROM:
        return "match"
    return "no match" if probability <= NO_MATCH_TO else "doubtful"


# ----------------------------------------------------------------------------------------------- the logistic model


def features(log10_nfa: float, evidence: Evidence) -> dict[str, float]:
    """The numbers that the logistic model weighs, by name. The surer, the larger, each of them. Raises nothing."""
    return {
        "alarms": math.log1p(max(-log10_nfa, 0.0)),
        "share": evidence.inliers / max(evidence.cells, 1),
        "coverage": min(evidence.coverage0, evidence.coverage1),
        "cells": math.log1p(evidence.cells),
        "score_median": evidence.score_median,
        "score_high": evidence.score_high,
    }
