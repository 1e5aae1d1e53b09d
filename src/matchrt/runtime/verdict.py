"""How sure it is that two images show the same thing: `judge` gives a probability and a verdict in words.

Two sources are joined. The first is the a-contrario measure of two-view geometries (`false_alarms`): whether chance
explains them. A homography and a fundamental matrix are looked at, whatever was asked for. Lines of two texts, or rows
of two façades, agree with a fundamental matrix more than chance would; a homography then fits only roughly, and this
shows. The second source is what the network knows: how many matches there are, how sure it is of them, which share
agrees, and how much of each image they cover. A logistic model with a few weights, none of them negative, makes a
probability of these (`calibration`). Its constants were fitted on pairs whose truth is known (`tools/verdict`).

The verdict is `match` from a probability of 0.9. It is `no match` up to 0.2 if there are matches enough that could have
agreed, and do so by chance at best; all else is `doubtful`. A network that finds next to nothing does not know: the
images may show different things, or the same thing from too different views. The probability holds where true and
unrelated pairs are equally frequent.

Coordinates: pixels of the original images, x right, y down, the centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from matchrt.runtime.calibration import constants
from matchrt.runtime.false_alarms import Size, cell_numbers, chances, count_false_alarms, number_of_cells, thin
from matchrt.runtime.geometry import DEFAULT_THRESHOLD_PX, Float64Array, Geometry, Kind, estimate

Word = Literal["match", "doubtful", "no match"]
WORDS: tuple[Word, ...] = get_args(Word)
# Probabilities from which a pair is a match, and up to which it is none; and how many matches that stand for their
# surroundings it takes to say that it is none: of the pairs that fitted the constants, no true one has as many and no
# geometry.
MATCH_FROM, NO_MATCH_TO, ENOUGH_CELLS = 0.9, 0.2, 12
# A pair is not called none where fewer false alarms than this (log10) are expected: something agrees.
_CHANCE = -3.0

# Cells along an image's longer side: at most one match of each counts, and coverage is measured in cells of twice the
# side. Points are known to about a pixel of what the network saw.
CELLS, COVERAGE_CELLS = 20, 10
BLUR_PX = 1.0
# Geometries that nobody asked for: samples that are tried, of matches that stand for their surroundings.
_MAX_ITERATIONS = 500
_LEAST_PIXEL = 1e-3


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on. Matches are counted once for each cell of a grid (`false_alarms.thin`).

    kind: the surer one of the two geometries; None if none was found.
    matches: number of all matches.
    cells: number of matches that stand for their surroundings.
    inliers: how many of these the geometry explains better than chance.
    coverage0: share of the cells of image 0, 0..1, that hold such inliers.
    coverage1: the same of image 1.
    homography: log10 of the homography's number of false alarms, at most 0.
    fundamental: log10 of the fundamental matrix's.
    sharpness: decimal digits of evidence that each inlier of the homography gives: how closely it fits; below 6.
    score_median: median of the matches' scores, 0..1; 0 without matches.
    score_high: the score that a tenth of the matches reach.
    """

    kind: Kind | None
    matches: int
    cells: int
    inliers: int
    coverage0: float
    coverage1: float
    homography: float
    fundamental: float
    sharpness: float
    score_median: float
    score_high: float

    @property
    def log10_nfa(self) -> float:
        """log10 of the surer geometry's number of false alarms. Raises nothing."""
        return min(self.homography, self.fundamental)


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

    @property
    def unknown(self) -> bool:
        """Whether the pair is doubtful, has too few matches to be called none, and none agree. Raises nothing."""
        few = self.evidence.cells < ENOUGH_CELLS and self.log10_nfa > _CHANCE
        return self.verdict == "doubtful" and few

    def __str__(self) -> str:
        """In words, such as `match (probability 0.99, 1 false alarm in 10^41)`."""
        alarms = round(-self.log10_nfa)
        said = f"probability {shown(self.probability)}"
        # What is no match may still be no chance: two pages of text have their lines in common.
        if self.unknown:
            said += ", too few matches to tell"
        elif self.verdict != "no match" and alarms >= 1:
            said += f", 1 false alarm in 10^{alarms}"
        return f"{self.verdict} ({said})"


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

    matches: with the geometry that `verify` found, or without one. Homography and fundamental matrix are estimated here
        too, on matches that stand for their surroundings. The matches stay as they are.
    cameras: K0 and K1 [3, 3] in pixels, of an essential matrix; without them, it is not looked at.

    Takes 3 to 6 milliseconds. Raises nothing.
    """
    evidence = weigh(matches, cameras)
    probability = constants(matches.provenance.model).probability(features(evidence))
    return Verdict(word_of(probability, evidence), probability, evidence.log10_nfa, evidence)


def weigh(matches: Judged, cameras: tuple[Float64Array, Float64Array] | None = None) -> Evidence:
    """The evidence that `judge` makes a verdict of. Raises nothing."""
    pair = _Pair.of(matches)
    homography, fundamental = _Fit(0.0, _NOBODY), _Fit(0.0, _NOBODY)
    for kind, matrix in [*_given(matches.geometry, cameras), *pair.estimates()]:
        fit = pair.fit(kind, matrix)
        if kind == "homography":
            homography = min(homography, fit, key=_alarms)
        else:
            fundamental = min(fundamental, fit, key=_alarms)
    surer: Kind = "homography" if homography.log10_nfa <= fundamental.log10_nfa else "fundamental"
    best = min(homography, fundamental, key=_alarms)
    coverage0, coverage1 = (
        _coverage(points[best.inliers], size) for points, size in zip(pair.points, pair.sizes, strict=True)
    )
    return Evidence(
        kind=surer if len(best.inliers) else None,
        matches=len(matches.scores),
        cells=len(pair.points[0]),
        inliers=len(best.inliers),
        coverage0=coverage0,
        coverage1=coverage1,
        homography=homography.log10_nfa,
        fundamental=fundamental.log10_nfa,
        sharpness=abs(homography.log10_nfa) / max(len(homography.inliers), 1),
        score_median=_quantile(matches.scores, 0.5),
        score_high=_quantile(matches.scores, 0.9),
    )


def _given(
    geometry: Geometry | None, cameras: tuple[Float64Array, Float64Array] | None
) -> list[tuple[Kind, Float64Array]]:
    """What `verify` found, as a matrix between pixels."""
    if geometry is None or geometry.matrix is None:
        return []
    if geometry.kind != "essential":
        return [(geometry.kind, geometry.matrix)]
    if cameras is None:
        return []
    matrix = np.linalg.inv(cameras[1]).T @ geometry.matrix @ np.linalg.inv(cameras[0])
    return [("essential", np.asarray(matrix, np.float64))]


@dataclass(frozen=True, eq=False)
class _Fit:
    """How well a geometry fits.

    log10_nfa: at most 0. inliers: indices of the matches that it explains better than chance.
    """

    log10_nfa: float
    inliers: npt.NDArray[np.int64]


_NOBODY: npt.NDArray[np.int64] = np.zeros(0, np.int64)


def _alarms(fit: _Fit) -> float:
    return fit.log10_nfa


@dataclass(frozen=True, eq=False)
class _Pair:
    """The matches that stand for their surroundings.

    points: float64 [n, 2] in each image. sizes: (height, width). pixel: a pixel of what the network saw, in pixels of
    each image.
    """

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
        points = matches.keypoints0[chosen].astype(np.float64), matches.keypoints1[chosen].astype(np.float64)
        return cls(points, sizes, (max(pixels[0], _LEAST_PIXEL), max(pixels[1], _LEAST_PIXEL)))

    def estimates(self) -> list[tuple[Kind, Float64Array]]:
        """The geometries that can be estimated."""
        kinds: tuple[Kind, ...] = ("homography", "fundamental")
        largest = max(self.pixel)
        found = (
            (
                kind,
                estimate(
                    *self.points, kind, threshold=DEFAULT_THRESHOLD_PX[kind] * largest, max_iterations=_MAX_ITERATIONS
                ).matrix,
            )
            for kind in kinds
        )
        return [(kind, matrix) for kind, matrix in found if matrix is not None]

    def fit(self, kind: Kind, matrix: Float64Array) -> _Fit:
        """How well a geometry fits; nothing counts that chance explains."""
        chance = chances(kind, matrix, self.points, self.sizes, (BLUR_PX * self.pixel[0], BLUR_PX * self.pixel[1]))
        found = count_false_alarms(kind, chance)
        if found.log10_nfa >= 0:
            return _Fit(0.0, _NOBODY)
        return _Fit(found.log10_nfa, np.argsort(chance, kind="stable")[: found.inliers])


def _quantile(scores: npt.NDArray[np.float32], share: float) -> float:
    return float(np.quantile(scores, share)) if len(scores) else 0.0


def _coverage(points: Float64Array, size: Size) -> float:
    """The share of an image's cells that hold points."""
    return len(np.unique(cell_numbers(points, size, COVERAGE_CELLS))) / number_of_cells(size, COVERAGE_CELLS)


def word_of(probability: float, evidence: Evidence) -> Word:
    """The verdict of a probability and of the evidence that it was made of. Raises nothing."""
    if probability >= MATCH_FROM:
        return "match"
    none = probability <= NO_MATCH_TO and evidence.cells >= ENOUGH_CELLS and evidence.log10_nfa > _CHANCE
    return "no match" if none else "doubtful"


def features(evidence: Evidence) -> dict[str, float]:
    """The numbers that the logistic model weighs, by name. The surer, the larger, each of them. Raises nothing."""
    return {
        "homography": math.log1p(-evidence.homography),
        "fundamental": math.log1p(-evidence.fundamental),
        "sharpness": evidence.sharpness,
        "share": evidence.inliers / max(evidence.cells, 1),
        "coverage": min(evidence.coverage0, evidence.coverage1),
        "score_median": evidence.score_median,
        "score_high": evidence.score_high,
    }
