"""The metrics, as pure functions of arrays.

Coordinates are pixels of the original images: x right, y down, the centre of the top-left pixel is (0, 0).
Angles are in degrees. Shares are 0..1, and 0 for an empty input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Thresholds are pixels of an image whose long side has this length.
REFERENCE_SIDE = 640


def pixel_scale(*sides: int) -> float:
    """Number of original pixels in one pixel of the same image at a long side of 640. sides: height and width."""
    return max(sides) / REFERENCE_SIDE


def project(homography: npt.ArrayLike, points: npt.NDArray[Any]) -> FloatArray:
    """Maps points [N, 2] by a homography [3, 3]; the result [N, 2] is not finite where a point maps to infinity."""
    mapped = _homogeneous(points) @ np.asarray(homography, np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        result: FloatArray = mapped[:, :2] / mapped[:, 2:]
    return result


def transfer_errors(homography: npt.ArrayLike, points0: npt.NDArray[Any], points1: npt.NDArray[Any]) -> FloatArray:
    """Distances [N], in pixels of image 1, of `points1` [N, 2] from `points0` [N, 2] mapped by `homography` [3, 3]."""
    errors = np.linalg.norm(project(homography, points0) - np.asarray(points1, np.float64), axis=1)
    return np.where(np.isfinite(errors), errors, np.inf)


def share_within(errors: npt.NDArray[Any], threshold: float) -> float:
    """Share (0..1) of `errors` [N] below `threshold`; 0 if there are none."""
    return float(np.mean(np.asarray(errors) < threshold)) if len(errors) else 0.0


def corner_error(
    estimate: npt.ArrayLike | None, truth: npt.ArrayLike, image0_hw: tuple[int, int]
) -> float:  # fmt: skip
    """Mean distance in pixels of image 1 between the corners of image 0 mapped by two homographies [3, 3].

    image0_hw: (height, width) in pixels. The result is infinite without an estimate.
    """
    if estimate is None:
        return float("inf")
    right, bottom = image0_hw[1] - 1.0, image0_hw[0] - 1.0
    corners = np.array([[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]])
    distance = float(np.linalg.norm(project(estimate, corners) - project(truth, corners), axis=1).mean())
    return distance if np.isfinite(distance) else float("inf")


def rotation_error(estimate: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Angle in degrees (0..180) of the rotation between two rotation matrices [3, 3]."""
    rest = np.asarray(estimate, np.float64).T @ np.asarray(truth, np.float64)
    sine = np.linalg.norm([rest[2, 1] - rest[1, 2], rest[0, 2] - rest[2, 0], rest[1, 0] - rest[0, 1]]) / 2
    return float(np.degrees(np.arctan2(sine, (np.trace(rest) - 1) / 2)))  # exact for small angles, unlike arccos


def translation_error(estimate: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Angle in degrees (0..90) between two directions of translation [3], whose signs do not matter."""
    first, second = (np.asarray(vector, np.float64).reshape(3) for vector in (estimate, truth))
    cross, dot = np.linalg.norm(np.cross(first, second)), abs(float(first @ second))
    return float(np.degrees(np.arctan2(cross, dot)))


def essential_of(rotation: npt.NDArray[Any], translation: npt.NDArray[Any]) -> FloatArray:
    """The essential matrix E = [t]x R [3, 3] of x1 = R x0 + t. The length of t does not change epipolar distances."""
    x, y, z = np.asarray(translation, np.float64).reshape(3)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    result: FloatArray = cross @ np.asarray(rotation, np.float64)
    return result


def normalise_points(points: npt.NDArray[Any], intrinsics: npt.NDArray[Any]) -> FloatArray:
    """Maps pixels [N, 2] by the inverse of K [3, 3] to points [N, 2] of the plane z = 1 in front of the camera."""
    rays: FloatArray = np.linalg.solve(np.asarray(intrinsics, np.float64), _homogeneous(points).T).T
    return rays[:, :2] / rays[:, 2:]


def symmetric_epipolar(essential: npt.NDArray[Any], points0: npt.NDArray[Any], points1: npt.NDArray[Any]) -> FloatArray:
    """Squared distances [N] of normalised points [N, 2] to their epipolar lines, summed over both images."""
    rays0, rays1 = _homogeneous(points0), _homogeneous(points1)
    lines1, lines0 = rays0 @ essential.T, rays1 @ essential
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = 1 / (lines1[:, :2] ** 2).sum(1) + 1 / (lines0[:, :2] ** 2).sum(1)
        distances: FloatArray = (rays1 * lines1).sum(1) ** 2 * weight
    return np.where(np.isfinite(distances), distances, np.inf)


def recall_curve(errors: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    """Sorted errors [N], and the share [N] of all errors up to each. Failures are infinite errors."""
    ordered = np.sort(np.asarray(errors, np.float64))
    recall = np.arange(1, len(ordered) + 1) / max(len(ordered), 1)
    return ordered, recall


def area_under_recall(errors: Sequence[float], threshold: float) -> float:
    """Area under the recall curve up to `threshold`, divided by `threshold`.

    It is 1 if all errors are 0, and 0 if no error is below the threshold. It is computed as in the literature on
    relative pose: the curve has straight lines from (0, 0) through (error, recall), and is level from the last error
    below the threshold to the threshold.
    """
    ordered, recall = recall_curve(errors)
    below = int(np.searchsorted(ordered, threshold))
    x = np.concatenate([[0.0], ordered[:below], [threshold]])
    y = np.concatenate([[0.0], recall[:below], [recall[below - 1] if below else 0.0]])
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / threshold)


def disparity_errors(disparity: npt.NDArray[Any], points0: npt.NDArray[Any], points1: npt.NDArray[Any]) -> FloatArray:
    """Distances [M] in pixels of image 1 between the point of image 1 and (x0 - d, y0).

    disparity: d [H, W] of image 0, in pixels. points0, points1: [N, 2]. Only the M matches whose nearest pixel of image
    0 has a known disparity are measured.
    """
    points0, points1 = np.asarray(points0, np.float64), np.asarray(points1, np.float64)
    height, width = disparity.shape
    columns, rows = np.rint(points0).astype(np.int64).reshape(-1, 2).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    found = disparity[rows.clip(0, height - 1), columns.clip(0, width - 1)].astype(np.float64)
    known = inside & np.isfinite(found)
    expected = points0[known] - np.column_stack([found[known], np.zeros(int(known.sum()))])
    errors: FloatArray = np.linalg.norm(expected - points1[known], axis=1)
    return errors


def _homogeneous(points: npt.NDArray[Any]) -> FloatArray:
    return np.column_stack([np.asarray(points, np.float64).reshape(-1, 2), np.ones(len(points))])
