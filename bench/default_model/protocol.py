"""From matches to figures: one protocol for all methods, with means and deviations over seeds of the estimators.

Thresholds in pixels are for a long side of 640 of image 1, as in `matchrt.bench.accuracy`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.default_model.cases import Case
from matchrt.bench import metrics
from matchrt.bench.pose import PoseEstimator, relative_pose
from matchrt.runtime.geometry import estimate
from matchrt.runtime.matches import Matches

FloatArray = npt.NDArray[np.float64]
SEEDS = 10
ESTIMATORS: tuple[PoseEstimator, ...] = ("ransac", "magsac")
WITHIN_PX, POSE_PX, EXPLAINED_PX = 3.0, 1.0, 4.0
DEGREES = (5, 10, 20)
# A pair of two modalities counts from so many inliers of a homography on, and this share of all matches.
FEWEST_INLIERS, LEAST_SHARE = 30, 0.4
# Sets whose pairs show the same scene beyond doubt.
TRUE_SETS = ("v_dogman", "synthetic", "reichstag", "motorcycle")


@dataclass(frozen=True)
class Figure:
    """A mean with its deviation.

    mean: over seeds of the estimator, or over pairs. deviation: the standard deviation over seeds, or the standard
    error of the mean over pairs; 0 for a single value.
    """

    mean: float
    deviation: float = 0.0

    @classmethod
    def over_seeds(cls, values: Sequence[float]) -> Figure:
        """Of one value for each seed."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)

    @classmethod
    def over_pairs(cls, values: Sequence[float]) -> Figure:
        """Of one value for each pair; 0 without pairs."""
        if not values:
            return cls(0.0)
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), error)

    def ahead_of(self, other: Figure) -> bool:
        """Whether it is larger by more than both deviations together (root of the sum of squares)."""
        return self.mean - other.mean > math.hypot(self.deviation, other.deviation)


def ahead_in_pairs(ours: Sequence[float], theirs: Sequence[float]) -> int:
    """1, 0 or -1: ahead, level, behind, by the mean of the pairs' differences and its standard error.

    ours, theirs: a value for each pair, in the same order.
    """
    difference = Figure.over_pairs([a - b for a, b in zip(ours, theirs, strict=True)])
    return 0 if abs(difference.mean) <= difference.deviation else int(math.copysign(1, difference.mean))


def scale_of(matches: Matches) -> float:
    """Pixels of image 1 in one pixel at a long side of 640."""
    return metrics.pixel_scale(matches.image1.height, matches.image1.width)


def share_within(case: Case, matches: Matches) -> float:
    """The share of the matches within 3 px of the true place; 0 without matches."""
    assert case.homography is not None
    errors = metrics.transfer_errors(case.homography, matches.keypoints0, matches.keypoints1)
    return metrics.share_within(errors, WITHIN_PX * scale_of(matches))


def shuffled(matches: Matches, seed: int) -> tuple[FloatArray, FloatArray]:
    """The points in an order drawn from a seed: OpenCV's RANSAC draws the same places in the list whatever its seed."""
    order = np.random.default_rng(seed).permutation(len(matches))
    return matches.keypoints0[order].astype(np.float64), matches.keypoints1[order].astype(np.float64)


def pose_errors(case: Case, matches: Matches, estimator: PoseEstimator, seeds: int) -> list[float]:
    """For each seed, the larger of the errors of rotation and translation, degrees; infinite without a pose."""
    pair = case.pose
    assert pair is not None
    found = []
    for seed in range(seeds):
        cameras, threshold = (pair.intrinsics0, pair.intrinsics1), POSE_PX * scale_of(matches)
        pose = relative_pose(*shuffled(matches, seed), cameras, threshold, estimator, seed)
        if pose is None:
            found.append(math.inf)
            continue
        rotation, translation, _ = pose
        turned = metrics.rotation_error(rotation, pair.rotation)
        found.append(max(turned, metrics.translation_error(translation, pair.translation)))
    return found


def aucs(errors: Sequence[Sequence[float]], degrees: float) -> Figure:
    """The area under the recall curve up to so many degrees. errors: for each pair, one for each seed."""
    by_seed = zip(*errors, strict=True)
    return Figure.over_seeds([metrics.area_under_recall(values, degrees) for values in by_seed])


def explained(matches: Matches, seed: int) -> bool:
    """Whether one homography explains the matches: at least 30 of them, and 40 %, within 4 px."""
    points0, points1 = shuffled(matches, seed)
    found = estimate(points0, points1, "homography", threshold=EXPLAINED_PX * scale_of(matches), seed=seed)
    return found.num_inliers >= FEWEST_INLIERS and found.num_inliers >= LEAST_SHARE * len(matches)


def verdict_of(matches: Matches) -> dict[str, Any]:
    """The verdict on a pair as JSON values. It is made anew in each run, because its constants may have changed."""
    judged = matches.judge()
    return {"verdict": judged.verdict, "probability": round(judged.probability, 4)}


def figures_of(
    cases: Iterable[Case], matches: Callable[[Case], Matches], near: set[str], seeds: int = SEEDS
) -> dict[str, Any]:
    """All figures of a method but the verdicts, as JSON values; an infinite error is null.

    matches: gives those of a pair. near: ids of pairs with near views.
    """
    pairs: dict[str, dict[str, Any]] = {}
    for case in cases:
        found = matches(case)
        row: dict[str, Any] = {
            "set": case.set,
            "value": case.value,
            "matches": len(found),
            "turned": found.provenance.turned1,
            "near": case.id in near,
        }
        if case.homography is not None:
            row["within"] = round(share_within(case, found), 5)
        if case.pose is not None:
            for estimator in ESTIMATORS:
                errors = pose_errors(case, found, estimator, seeds)
                row[estimator] = [round(error, 4) if math.isfinite(error) else None for error in errors]
        if case.homography is None and case.pose is None and case.set != "unrelated":
            row["explained"] = [explained(found, seed) for seed in range(seeds)]
        pairs[case.id] = row
    return {"seeds": seeds, "pairs": pairs}
