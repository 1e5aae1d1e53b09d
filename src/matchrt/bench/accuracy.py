"""How accurate matches are, measured on an evaluation folder.

A callable is evaluated. It takes two image paths and returns `Matches`, or two `[N, 2]` arrays in pixels of the stored
files.

Thresholds in pixels are multiplied by (long side of the image / 640), so that one pixel is equally strict at any size.
Corner errors and disparities are in plain pixels. Pairs without matches count too: their shares are 0 and their errors
are infinite.

Errors: `matcher-result` (the callable returned something unusable), and those of `folder` and `pose`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.bench import metrics
from matchrt.bench.folder import EvalFolder, HomographyPair, ImagePair, PlainPair, PosePair, StereoPair
from matchrt.bench.pose import PoseEstimator, relative_pose
from matchrt.errors import MatchRTError
from matchrt.runtime.geometry import estimate
from matchrt.runtime.matches import Matches

PairMatcher = Callable[[Path, Path], "Matches | tuple[npt.ArrayLike, npt.ArrayLike]"]
FloatArray = npt.NDArray[np.float64]

HOMOGRAPHY_PX = (1, 3, 5, 8, 16, 32)
STEREO_PX = (1, 3)
POSE_DEGREES = (5, 10, 20)
EPIPOLAR_THRESHOLD = 1e-4


@dataclass(frozen=True)
class AccuracyOptions:
    """How homographies, fundamental matrices and poses are estimated from matches.

    pose_estimator: which estimator finds relative poses; see `pose`.
    homography_px: inlier threshold for homographies, in pixels at a long side of 640. A coarse-only network puts
        matches on a grid, up to half a cell from the truth. It needs about half a cell here. With a smaller value, the
        few points that agree by chance decide.
    fundamental_px: inlier threshold for fundamental matrices, in pixels at a long side of 640.
    pose_px: inlier threshold for poses, in pixels at a long side of 640.
    seed: seed of the estimators' random sampling.
    """

    pose_estimator: PoseEstimator = "ransac"
    homography_px: float = 3.0
    fundamental_px: float = 1.0
    pose_px: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class PairResult:
    """The figures of one pair.

    id: the pair's id, unique in the folder.
    set: the name of the set that the pair belongs to.
    kind: what truth the pair has: `homography`, `pose`, `stereo` or `plain` (none).
    matches: number of matches.
    seconds: time that the matcher took, reading of the images included.
    figures: what was measured, by the names that baselines use; infinite where there was no result. `pN` is the share
        of matches within N px. `corner_err_px` is in pixels. `err_R` and `err_t` are in degrees. `epi_precision` is the
        share with a symmetric epipolar distance below 1e-4 (normalised, squared). `inliers`, `F_inliers` and
        `H_inliers` are counts. `known` counts matches at a known disparity.
    """

    id: str
    set: str
    kind: str
    matches: int
    seconds: float
    figures: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; an infinite figure is null."""
        figures = {name: _finite(value) for name, value in self.figures.items()}
        return {
            "set": self.set,
            "kind": self.kind,
            "matches": self.matches,
            "seconds": round(self.seconds, 4),
        } | figures


@dataclass(frozen=True)
class AccuracyReport:
    """The accuracy of one matcher on all pairs of a folder.

    name: the matcher's name in reports.
    options: the estimators and thresholds that were used.
    opencv: OpenCV's version, on which estimates depend.
    pairs: the results, in the order in which they were measured.
    """

    name: str
    options: AccuracyOptions
    opencv: str
    pairs: tuple[PairResult, ...] = field(default_factory=tuple)

    def by_id(self) -> dict[str, dict[str, float]]:
        """Figures, including `matches`, by pair id. Baselines have the same form."""
        return {pair.id: {"matches": float(pair.matches), **pair.figures} for pair in self.pairs}

    def sets(self) -> dict[str, tuple[PairResult, ...]]:
        """Pairs by set, in order."""
        names = dict.fromkeys(pair.set for pair in self.pairs)
        return {name: tuple(pair for pair in self.pairs if pair.set == name) for name in names}

    def summary(self) -> dict[str, dict[str, float]]:
        """Figures by name of set; see `summarise`."""
        return {
            name: summarise([{"matches": float(p.matches), **p.figures} for p in pairs])
            for name, pairs in self.sets().items()
        }

    def to_json(self) -> dict[str, Any]:
        """As JSON values: settings, sets and pairs."""
        sets = {
            name: {key: _finite(value) for key, value in figures.items()} for name, figures in self.summary().items()
        }
        return {
            "name": self.name,
            "pose_estimator": self.options.pose_estimator,
            "thresholds_px_at_640": {
                "homography": self.options.homography_px,
                "fundamental": self.options.fundamental_px,
                "pose": self.options.pose_px,
            },
            "seed": self.options.seed,
            "opencv": self.opencv,
            "sets": sets,
            "pairs": {pair.id: pair.to_json() for pair in self.pairs},
        }


def summarise(pairs: list[dict[str, float]]) -> dict[str, float]:
    """The figures of a set, computed from those of its pairs. All pairs have the same weight.

    Counts and shares become means. Corner errors become a median and the shares of pairs below 3, 5 and 10 px. Poses
    become the number of pairs whose larger error is below 5, 10 and 20 degrees, and the area under the recall curve up
    to each of these.
    """
    result: dict[str, float] = {"pairs": float(len(pairs))}
    for name in ("matches", "inliers", "F_inliers", "H_inliers", "epi_precision", "known"):
        _add_mean(result, pairs, name)
    for pixels in HOMOGRAPHY_PX:
        _add_mean(result, pairs, f"p{pixels}")
    corners = [pair["corner_err_px"] for pair in pairs if "corner_err_px" in pair]
    if corners:
        result["corner_median_px"] = float(np.median(corners))
        for pixels in (3, 5, 10):
            result[f"corner_{pixels}px"] = metrics.share_within(np.array(corners), pixels)
    poses = [max(pair["err_R"], pair["err_t"]) for pair in pairs if "err_R" in pair]
    if poses:
        for degrees in POSE_DEGREES:
            result[f"under_{degrees}"] = float(sum(error < degrees for error in poses))
        for degrees in POSE_DEGREES:
            result[f"auc_{degrees}"] = metrics.area_under_recall(poses, degrees)
    return result


def evaluate(
    matcher: PairMatcher,
    folder: EvalFolder,
    options: AccuracyOptions | None = None,
    *,
    name: str = "matcher",
    advance: Callable[[], None] | None = None,
) -> AccuracyReport:
    """Matches every pair of the folder and measures the matches.

    matcher: must return points in pixels of the stored files (`MatcherOptions(apply_exif=False)`).
    name: the matcher's name in reports. advance: called after each pair.
    Errors: matcher-result, package-missing (poselib); whatever `matcher` raises is passed on.
    """
    import cv2

    options = options or AccuracyOptions()
    measured: list[PairResult] = []
    pairs: tuple[ImagePair, ...] = (*folder.homography, *folder.pose, *folder.stereo, *folder.plain)
    for pair in pairs:
        start = time.perf_counter()
        raw = matcher(pair.image0, pair.image1)
        seconds = time.perf_counter() - start
        points0, points1 = _points(raw, pair)
        kind, figures = _measure(pair, points0, points1, options)
        measured.append(PairResult(pair.id, pair.set, kind, len(points0), seconds, figures))
        if advance is not None:
            advance()
    return AccuracyReport(name, options, cv2.__version__, tuple(measured))


def measure_pair(pair: ImagePair, matches: Matches, options: AccuracyOptions) -> tuple[str, dict[str, float]]:
    """The kind of truth and the figures of one pair's matches, as in `PairResult`. Error: matcher-result."""
    return _measure(pair, *_points(matches, pair), options)


def _measure(
    pair: ImagePair, points0: FloatArray, points1: FloatArray, options: AccuracyOptions
) -> tuple[str, dict[str, float]]:
    if isinstance(pair, HomographyPair):
        return "homography", _homography(pair, points0, points1, options)
    if isinstance(pair, PosePair):
        return "pose", _pose(pair, points0, points1, options)
    if isinstance(pair, StereoPair):
        errors = metrics.disparity_errors(pair.disparity, points0, points1)
        shares = {f"p{pixels}": metrics.share_within(errors, pixels) for pixels in STEREO_PX}
        return "stereo", {"known": float(len(errors)), **shares}
    assert isinstance(pair, PlainPair)
    return "plain", _plain(pair, points0, points1, options)


def _homography(
    pair: HomographyPair, points0: FloatArray, points1: FloatArray, options: AccuracyOptions
) -> dict[str, float]:
    scale = metrics.pixel_scale(*pair.image1_hw)
    errors = metrics.transfer_errors(pair.homography, points0, points1)
    figures = {f"p{pixels}": metrics.share_within(errors, pixels * scale) for pixels in HOMOGRAPHY_PX}
    threshold = options.homography_px * scale
    found = estimate(points0, points1, "homography", threshold=threshold, seed=options.seed)
    figures["inliers"] = float(found.num_inliers)
    figures["corner_err_px"] = metrics.corner_error(found.matrix, pair.homography, pair.image0_hw)
    return figures


def _pose(pair: PosePair, points0: FloatArray, points1: FloatArray, options: AccuracyOptions) -> dict[str, float]:
    cameras = pair.intrinsics0, pair.intrinsics1
    threshold = options.pose_px * metrics.pixel_scale(*pair.image1_hw)
    found = relative_pose(points0, points1, cameras, threshold, options.pose_estimator, options.seed)
    normalised = (metrics.normalise_points(p, k) for p, k in zip((points0, points1), cameras, strict=True))
    distances = metrics.symmetric_epipolar(metrics.essential_of(pair.rotation, pair.translation), *normalised)
    figures = {"epi_precision": metrics.share_within(distances, EPIPOLAR_THRESHOLD)}
    if found is None:
        return {"inliers": 0.0, "err_R": math.inf, "err_t": math.inf, **figures}
    rotation, translation, inliers = found
    return {
        "inliers": float(inliers),
        "err_R": metrics.rotation_error(rotation, pair.rotation),
        "err_t": metrics.translation_error(translation, pair.translation),
        **figures,
    }


def _plain(pair: PlainPair, points0: FloatArray, points1: FloatArray, options: AccuracyOptions) -> dict[str, float]:
    from matchrt.runtime.image import read_size

    scale = metrics.pixel_scale(*read_size(pair.image1))
    fundamental = estimate(points0, points1, "fundamental", threshold=options.fundamental_px * scale, seed=options.seed)
    homography = estimate(points0, points1, "homography", threshold=options.homography_px * scale, seed=options.seed)
    return {"F_inliers": float(fundamental.num_inliers), "H_inliers": float(homography.num_inliers)}


def _points(raw: Matches | tuple[npt.ArrayLike, npt.ArrayLike], pair: ImagePair) -> tuple[FloatArray, FloatArray]:
    """The points as two finite float64 [N, 2] arrays. Error: matcher-result, also for images of another size."""
    if isinstance(raw, Matches):
        _check_sizes(raw, pair)
        return np.asarray(raw.keypoints0, np.float64), np.asarray(raw.keypoints1, np.float64)
    try:
        first, second = (np.asarray(values, np.float64) for values in raw)
    except (TypeError, ValueError) as error:
        raise _bad_result(pair, "is not two arrays of points") from error
    if first.shape != second.shape or first.shape != (len(first), 2):
        raise _bad_result(pair, f"has the shapes {first.shape} and {second.shape}, not [N, 2] twice")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise _bad_result(pair, "holds NaN or infinite points")
    return first, second


def _check_sizes(matches: Matches, pair: ImagePair) -> None:
    if not isinstance(pair, HomographyPair | PosePair):
        return
    for ref, size in ((matches.image0, pair.image0_hw), (matches.image1, pair.image1_hw)):
        if (ref.height, ref.width) != size:
            raise _bad_result(
                pair, f"is for an image of {ref.height}x{ref.width}, but the truth is for {size[0]}x{size[1]}"
            )


def _bad_result(pair: ImagePair, why: str) -> MatchRTError:
    return MatchRTError(
        "matcher-result",
        f"What the matcher returned for '{pair.id}' {why}.",
        "Return Matches or two [N, 2] arrays in pixels of the stored files (apply_exif=False).",
    )


def _add_mean(result: dict[str, float], pairs: list[dict[str, float]], name: str) -> None:
    values = [pair[name] for pair in pairs if name in pair]
    if values:
        result[name] = float(np.mean(values))


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
