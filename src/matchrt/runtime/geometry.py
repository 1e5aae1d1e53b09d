"""Robust two-view geometry from matches: homography, fundamental matrix, essential matrix with the pose.

Coordinates: pixels, x right, y down, the centre of the top-left pixel is (0, 0). Intrinsics K must use the same origin
(COLMAP's principal points are half a pixel larger).

This module decides which matches are inliers, and not the estimator, so that the word means the same for each of them.
The error of an inlier is at most `threshold` pixels. It is the distance in image 1 to where the homography puts the
point, or the Sampson distance to the epipolar geometry.

Errors:

| code                 | meaning                                                                  |
| -------------------- | ------------------------------------------------------------------------ |
| geometry-kind        | not homography, fundamental or essential                                 |
| geometry-estimator   | not magsac or poselib                                                    |
| geometry-input       | keypoints that are not two finite [N, 2] arrays, or an unusable setting  |
| intrinsics-missing   | essential without K0 and K1                                              |
| intrinsics-invalid   | K is not a finite upper triangular [3, 3] with positive focal lengths    |
| package-missing      | poselib is asked for and not installed                                   |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError, missing_package

Kind = Literal["homography", "fundamental", "essential"]
Estimator = Literal["magsac", "poselib"]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# A homography's error is a distance between points. An epipolar error is only the part across a line, so it is smaller.
DEFAULT_THRESHOLD_PX: dict[str, float] = {"homography": 3.0, "fundamental": 1.0, "essential": 1.0}
# One more than the solver fits exactly (4, 7, 5): with fewer matches, a perfect fit proves nothing.
MIN_MATCHES: dict[str, int] = {"homography": 5, "fundamental": 8, "essential": 6}
# Points count as lying on a line if their root-mean-square distance from it is below this.
_LINE_TOLERANCE_PX = 0.05


@dataclass(frozen=True, eq=False)
class Geometry:
    """What was estimated from N matches.

    kind: homography, fundamental or essential.
    matrix: float64 [3, 3], None if none was found. A homography maps pixels of image 0 to pixels of image 1, scaled to
        H[2, 2] = 1. A fundamental matrix fulfils x1' F x0 = 0 for pixels, scaled to norm 1; an essential matrix fulfils
        it for rays (x, y, 1) of the cameras, scaled to norm sqrt(2).
    inliers: bool [N], all False if no matrix was found.
    threshold_px: the largest error of an inlier, pixels.
    estimator: what found the matrix: magsac or poselib.
    rotation: float64 [3, 3], of essential matrices only: x1 = R x0 + t in camera coordinates; else None.
    translation: float64 [3] of unit length, of essential matrices only; else None.
    """

    kind: Kind
    matrix: Float64Array | None
    inliers: BoolArray
    threshold_px: float
    estimator: str
    rotation: Float64Array | None = None
    translation: Float64Array | None = None

    @property
    def found(self) -> bool:
        """Whether a matrix was found. Raises nothing."""
        return self.matrix is not None

    @property
    def num_inliers(self) -> int:
        """How many matches agree with the matrix. Raises nothing."""
        return int(np.count_nonzero(self.inliers))


@dataclass(frozen=True)
class _Problem:
    """Checked arguments of `estimate`."""

    points0: Float64Array
    points1: Float64Array
    kind: Kind
    threshold: float
    cameras: tuple[Float64Array, Float64Array] | None
    seed: int
    confidence: float
    max_iterations: int


def estimate(
    keypoints0: npt.NDArray[Any],
    keypoints1: npt.NDArray[Any],
    kind: Kind,
    *,
    threshold: float | None = None,
    K0: npt.ArrayLike | None = None,  # noqa: N803 (the name in every textbook)
    K1: npt.ArrayLike | None = None,  # noqa: N803 (the name in every textbook)
    estimator: Estimator = "magsac",
    seed: int = 0,
    confidence: float = 0.9999,
    max_iterations: int = 10000,
) -> Geometry:
    """Estimates the geometry of two views. The same arguments give the same result.

    keypoints0, keypoints1: [N, 2] pixels of the original images.
    kind: homography, fundamental or essential.
    threshold: pixels; None is 3 for a homography, 1 for fundamental and essential.
    K0, K1: [3, 3] intrinsics of the two cameras, in pixels; essential only. Undistort the points first.
    estimator: magsac (OpenCV's MAGSAC++; Barath et al., CVPR 2020) or poselib (its LO-RANSAC).
    seed: of the estimator's samples.
    confidence: the probability in 0..1 that a sample without outliers was drawn, at which the estimator stops.
    max_iterations: the largest number of samples.
    Errors: those of the module's table.

    `matrix` is None if there are too few matches (MIN_MATCHES), if the points are on one line, or if too few matches
    agree with any model. That is a result and not an error. The cheirality test picks one of the four poses. It does
    not take inliers away, because the sign of a far point's depth is noise. A fundamental matrix of a flat scene and an
    essential matrix without translation fit, but are not unique.
    """
    if estimator not in get_args(Estimator):
        raise MatchRTError("geometry-estimator", f"There is no estimator {estimator!r}.", "Use 'magsac' or 'poselib'.")
    if kind not in get_args(Kind):
        raise MatchRTError(
            "geometry-kind", f"There is no geometry {kind!r}.", "Use 'homography', 'fundamental' or 'essential'."
        )
    problem = _Problem(
        *_check_points(keypoints0, keypoints1),
        kind=kind,
        threshold=DEFAULT_THRESHOLD_PX[kind] if threshold is None else float(threshold),
        cameras=_check_cameras(K0, K1) if kind == "essential" else None,
        seed=seed,
        confidence=confidence,
        max_iterations=max_iterations,
    )
    _check_settings(problem)
    matrix = None
    if _enough(problem, np.ones(len(problem.points0), bool)):
        matrix = _poselib(problem) if estimator == "poselib" else _magsac(problem)
    return _result(problem, matrix, estimator)


def _result(problem: _Problem, matrix: Float64Array | None, estimator: str) -> Geometry:
    nothing = Geometry(problem.kind, None, np.zeros(len(problem.points0), bool), problem.threshold, estimator)
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return nothing
    inliers = _errors(problem, matrix) <= problem.threshold
    if not _enough(problem, inliers):
        return nothing
    matrix = _normalise(matrix, problem.kind)
    rotation, translation = _pose(problem, problem.cameras, matrix, inliers) if problem.cameras else (None, None)
    return Geometry(problem.kind, matrix, inliers, problem.threshold, estimator, rotation, translation)


# ---------------------------------------------------------------------------------------------- checks


def _check_points(keypoints0: npt.NDArray[Any], keypoints1: npt.NDArray[Any]) -> tuple[Float64Array, Float64Array]:
    points0, points1 = np.asarray(keypoints0, np.float64), np.asarray(keypoints1, np.float64)
    if points0.ndim != 2 or points0.shape[1:] != (2,) or points0.shape != points1.shape:
        raise _input_error(f"Keypoints have the shapes {points0.shape} and {points1.shape}", "Pass two [N, 2] arrays.")
    if not (np.isfinite(points0).all() and np.isfinite(points1).all()):
        raise _input_error("Keypoints hold NaN or infinite values", "Remove those matches first.")
    return points0, points1


def _check_settings(problem: _Problem) -> None:
    in_range = 0 < problem.threshold < np.inf and 0 < problem.confidence < 1
    if not in_range or problem.max_iterations < 1 or not 0 <= problem.seed < 2**31:
        raise _input_error(
            f"threshold {problem.threshold}, confidence {problem.confidence}, max_iterations {problem.max_iterations}, "
            f"seed {problem.seed} cannot be used",
            "Use threshold > 0, 0 < confidence < 1, max_iterations >= 1 and 0 <= seed < 2**31.",
        )


def _input_error(message: str, remedy: str) -> MatchRTError:
    return MatchRTError("geometry-input", f"{message}.", remedy)


def _check_cameras(camera0: npt.ArrayLike | None, camera1: npt.ArrayLike | None) -> tuple[Float64Array, Float64Array]:
    if camera0 is None or camera1 is None:
        raise MatchRTError(
            "intrinsics-missing",
            "An essential matrix needs the intrinsics of both cameras.",
            "Pass K0 and K1, or ask for a fundamental matrix.",
        )
    return _check_camera(camera0, "K0"), _check_camera(camera1, "K1")


def _check_camera(values: npt.ArrayLike, name: str) -> Float64Array:
    remedy = "Write it as [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], in pixels."
    try:
        camera = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise MatchRTError("intrinsics-invalid", f"{name} is not a matrix of numbers.", remedy) from error
    if camera.shape != (3, 3) or not np.isfinite(camera).all() or not _is_upper_triangular(camera):
        raise MatchRTError("intrinsics-invalid", f"{name} is not a matrix of intrinsics.", remedy)
    return camera


def _is_upper_triangular(camera: Float64Array) -> bool:
    """[[+, any, any], [0, +, any], [0, 0, 1]]."""
    return bool(camera[1, 0] == 0 and (camera[2] == (0, 0, 1)).all() and camera[0, 0] > 0 and camera[1, 1] > 0)


def _enough(problem: _Problem, chosen: BoolArray) -> bool:
    """Whether the chosen matches can support a model: enough different ones, on no common line in either image."""
    minimum = MIN_MATCHES[problem.kind]
    return all(_spread_out(points[chosen], minimum) for points in (problem.points0, problem.points1))


def _spread_out(points: Float64Array, minimum: int) -> bool:
    if len(points) < minimum or len(np.unique(np.round(points, 2), axis=0)) < minimum:
        return False
    centred = points - points.mean(axis=0)
    across = np.sqrt(max(float(np.linalg.eigvalsh(centred.T @ centred / len(points))[0]), 0.0))
    return bool(across > _LINE_TOLERANCE_PX)


# ------------------------------------------------------------------------------------------ estimators


def _magsac(problem: _Problem) -> Float64Array | None:
    """OpenCV's MAGSAC++, single-threaded with a fixed seed, so that runs repeat exactly."""
    params = cv2.UsacParams()
    params.sampler = cv2.SAMPLING_UNIFORM
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.loIterations, params.loSampleSize = 10, 50
    params.final_polisher, params.final_polisher_iterations = cv2.MAGSAC, 3
    params.isParallel, params.randomGeneratorState = False, problem.seed
    params.threshold, params.confidence = problem.threshold, problem.confidence
    params.maxIterations = problem.max_iterations
    points = problem.points0, problem.points1
    try:
        if problem.cameras is not None:  # takes pixels, normalises each image by its own K; the threshold is in pixels
            matrix = cv2.findEssentialMat(*points, *problem.cameras, None, None, params)[0]
        elif problem.kind == "fundamental":
            matrix = cv2.findFundamentalMat(*points, params)[0]
        else:
            matrix = cv2.findHomography(*points, params)[0]
    except cv2.error:  # OpenCV's assertions on samples that cannot be drawn: no model, not our caller's fault
        return None
    return None if matrix is None else np.asarray(matrix, np.float64)


def _poselib(problem: _Problem) -> Float64Array | None:
    """PoseLib's LO-RANSAC (pip install 'matchrt[geometry]')."""
    try:
        import poselib
    except ImportError as error:
        raise missing_package("poselib", "geometry", "The estimator 'poselib'") from error
    options = {
        "max_reproj_error": problem.threshold,
        "max_epipolar_error": problem.threshold,
        "max_iterations": problem.max_iterations,
        "success_prob": problem.confidence,
        "seed": problem.seed,
    }
    points = problem.points0, problem.points1
    if problem.cameras is None:
        solve = poselib.estimate_homography if problem.kind == "homography" else poselib.estimate_fundamental
        return np.asarray(solve(*points, options)[0], np.float64)
    square0, camera0 = _square_pixels(problem.points0, problem.cameras[0])
    square1, camera1 = _square_pixels(problem.points1, problem.cameras[1])
    pose = poselib.estimate_relative_pose(square0, square1, camera0, camera1, options)[0]
    return _cross_matrix(np.asarray(pose.t, np.float64)) @ np.asarray(pose.R, np.float64)


def _square_pixels(points: Float64Array, intrinsics: Float64Array) -> tuple[Float64Array, dict[str, Any]]:
    """The points as a camera without skew and with square pixels sees them, which PoseLib has a model for."""
    focal = float(intrinsics[0, 0] + intrinsics[1, 1]) / 2
    camera = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [focal, 0.0, 0.0]}
    return _to_rays(points, intrinsics)[:, :2] * focal, camera


def _cross_matrix(vector: Float64Array) -> Float64Array:
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


# --------------------------------------------------------------------------------- errors, scale, pose


def _errors(problem: _Problem, matrix: Float64Array) -> Float64Array:
    """Errors [N] in pixels; infinite for a point that maps to infinity."""
    points0, points1 = _homogeneous(problem.points0), _homogeneous(problem.points1)
    if problem.cameras is not None:  # to a fundamental matrix, whose errors are in pixels
        matrix = np.linalg.inv(problem.cameras[1]).T @ matrix @ np.linalg.inv(problem.cameras[0])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if problem.kind == "homography":
            mapped = points0 @ matrix.T
            errors = np.linalg.norm(mapped[:, :2] / mapped[:, 2:] - problem.points1, axis=1)
        else:
            lines1, lines0 = points0 @ matrix.T, points1 @ matrix
            slope = (lines1[:, :2] ** 2).sum(1) + (lines0[:, :2] ** 2).sum(1)
            errors = np.abs((points1 * lines1).sum(1)) / np.sqrt(slope)
    return np.where(np.isfinite(errors), errors, np.inf)


def _homogeneous(points: Float64Array) -> Float64Array:
    return np.column_stack([points, np.ones(len(points))])


def _to_rays(points: Float64Array, intrinsics: Float64Array) -> Float64Array:
    """Pixels [N, 2] to rays [N, 3] with z = 1."""
    rays: Float64Array = np.linalg.solve(intrinsics, _homogeneous(points).T).T
    return rays


def _normalise(matrix: Float64Array, kind: Kind) -> Float64Array:
    norm = float(np.linalg.norm(matrix))
    if kind == "homography":
        corner = float(matrix[2, 2])
        return matrix / (corner if abs(corner) > 1e-12 * norm else norm)
    return matrix / norm * (np.sqrt(2.0) if kind == "essential" else 1.0)


def _pose(
    problem: _Problem, cameras: tuple[Float64Array, Float64Array], essential: Float64Array, inliers: BoolArray
) -> tuple[Float64Array | None, Float64Array | None]:
    """The one of four poses that has most inliers in front of both cameras; (None, None) if none has any."""
    rays0 = _to_rays(problem.points0[inliers], cameras[0])[:, :2]
    rays1 = _to_rays(problem.points1[inliers], cameras[1])[:, :2]
    # By default OpenCV does not count points farther than 50 baselines: with a short baseline, that is all of them.
    in_front, rotation, translation = cv2.recoverPose(essential, rays0, rays1, np.eye(3), distanceThresh=1e9)[:3]
    if in_front == 0:
        return None, None
    return np.asarray(rotation, np.float64), np.asarray(translation, np.float64).reshape(3)
