"""Relative pose from matches, with a choice of estimators.

The result depends on the estimator as much as on the matches, so reports name it:

- `ransac`: OpenCV's findEssentialMat with RANSAC on normalised points. Most papers and our baselines use it.
- `magsac`, `poselib`: see `matchrt.runtime.geometry`.

Errors: `pose-estimator`, and for poselib `package-missing`.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.bench.metrics import normalise_points
from matchrt.errors import MatchRTError
from matchrt.runtime.geometry import estimate

PoseEstimator = Literal["ransac", "magsac", "poselib"]
Pose = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]


def check_estimator(name: str) -> PoseEstimator:
    """The name, if it is the name of an estimator. Error: pose-estimator."""
    for known in get_args(PoseEstimator):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise MatchRTError(
        "pose-estimator", f"There is no pose estimator '{name}'.", f"Use {', '.join(get_args(PoseEstimator))}."
    )


def relative_pose(
    points0: npt.NDArray[Any],
    points1: npt.NDArray[Any],
    intrinsics: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    threshold_px: float,
    estimator: PoseEstimator,
    seed: int = 0,
) -> Pose | None:
    """Estimates R [3, 3], t [3] of unit length, and the number of inliers; None if no pose was found.

    points0, points1: [N, 2] in pixels. intrinsics: K0 and K1, [3, 3] each, in pixels. threshold_px: inlier threshold in
    pixels. seed: seed of the random sampling. Error: package-missing, for poselib.
    """
    if estimator == "ransac":
        return _ransac(points0, points1, intrinsics, threshold_px, seed)
    found = estimate(
        points0,
        points1,
        "essential",
        threshold=threshold_px,
        K0=intrinsics[0],
        K1=intrinsics[1],
        estimator=estimator,
        seed=seed,
    )
    if found.rotation is None or found.translation is None:
        return None
    return found.rotation, found.translation, found.num_inliers


def _ransac(
    points0: npt.NDArray[Any],
    points1: npt.NDArray[Any],
    intrinsics: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    threshold_px: float,
    seed: int,
) -> Pose | None:
    if len(points0) < 6:  # five points always fit some pose, so they prove nothing
        return None
    rays0, rays1 = (normalise_points(p, k) for p, k in zip((points0, points1), intrinsics, strict=True))
    focal = float(np.mean([k[i, i] for k in intrinsics for i in (0, 1)]))
    cv2.setRNGSeed(seed)
    try:
        stacked, mask = cv2.findEssentialMat(rays0, rays1, np.eye(3), cv2.RANSAC, 0.99999, threshold_px / focal)
    except cv2.error:  # OpenCV's assertions on degenerate points: no pose
        return None
    if stacked is None or mask is None or int(mask.sum()) < 6:
        return None
    best: Pose | None = None
    most = 0
    for matrix in np.split(np.asarray(stacked, np.float64), len(stacked) // 3):
        chosen = mask.ravel() > 0
        # By default OpenCV does not count points farther than 50 baselines.
        found = cv2.recoverPose(matrix, rays0[chosen], rays1[chosen], np.eye(3), distanceThresh=1e9)
        if found[0] > most:
            most = int(found[0])
            best = np.asarray(found[1], np.float64), np.asarray(found[2], np.float64).reshape(3), int(mask.sum())
    return best
