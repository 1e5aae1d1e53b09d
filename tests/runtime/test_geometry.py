"""Known two-view geometry, with noise and outliers, must be found again; what cannot be solved is None."""

import importlib.util

import cv2
import numpy as np
import pytest

from matchrt.errors import MatchRTError
from matchrt.runtime.geometry import Geometry, estimate

K0 = np.array([[800.0, 0, 320], [0, 790, 240], [0, 0, 1]])
K1 = np.array([[1500.0, 0, 700], [0, 1510, 400], [0, 0, 1]])
R = cv2.Rodrigues(np.array([0.03, -0.15, 0.05]))[0]
T = np.array([-1.0, 0.1, 0.2]) / np.linalg.norm([-1.0, 0.1, 0.2])
H = np.array([[1.1, 0.1, 5], [-0.05, 0.9, 20], [1e-4, 2e-5, 1]])
ESTIMATORS = [
    "magsac",
    pytest.param(
        "poselib", marks=pytest.mark.skipif(importlib.util.find_spec("poselib") is None, reason="needs poselib")
    ),
]
KINDS = ["homography", "fundamental", "essential"]


def project(camera, points):
    image = points @ camera.T
    return image[:, :2] / image[:, 2:]


def two_views(count=300, outliers=100, noise=0.3):
    """A cloud of points 4 to 9 units away seen by two different cameras; the last `outliers` matches are wrong."""
    rng = np.random.default_rng(1)
    cloud = np.column_stack([rng.uniform(-3, 3, (count, 2)), rng.uniform(4, 9, count)])
    points0 = project(K0, cloud) + rng.normal(0, noise, (count, 2))
    points1 = project(K1, cloud @ R.T + T) + rng.normal(0, noise, (count, 2))
    points1[count - outliers :] = rng.uniform((0, 0), (1400, 800), (outliers, 2))
    return points0.astype(np.float32), points1.astype(np.float32), np.arange(count) < count - outliers


def flat_views(count=300, outliers=120, noise=0.3):
    rng = np.random.default_rng(2)
    points0 = rng.uniform((0, 0), (640, 480), (count, 2))
    points1 = project(H, np.column_stack([points0, np.ones(count)])) + rng.normal(0, noise, (count, 2))
    points1[count - outliers :] = rng.uniform((0, 0), (640, 480), (outliers, 2))
    return points0, points1, np.arange(count) < count - outliers


def agreement(found, true):
    """The share of true inliers that were found, and of found ones that are true."""
    both = np.count_nonzero(found & true)
    return both / true.sum(), both / found.sum()


def assert_inliers(geometry, true):
    recall, precision = agreement(geometry.inliers, true)
    assert recall > 0.95
    assert precision > 0.93


def angle(a, b):
    return np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_homography(estimator):
    points0, points1, true = flat_views()
    geometry = estimate(points0, points1, "homography", estimator=estimator)
    assert_inliers(geometry, true)
    corners = np.array([[0, 0, 1], [639, 0, 1], [0, 479, 1], [639, 479, 1.0]])
    assert np.abs(project(geometry.matrix, corners) - project(H, corners)).max() < 0.5
    assert geometry.matrix[2, 2] == 1
    assert geometry.matrix.dtype == np.float64
    assert (geometry.estimator, geometry.threshold_px) == (estimator, 3.0)
    assert geometry.rotation is None


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_fundamental(estimator):
    points0, points1, true = two_views()
    geometry = estimate(points0, points1, "fundamental", estimator=estimator)
    assert_inliers(geometry, true)
    assert np.isclose(np.linalg.norm(geometry.matrix), 1)
    assert abs(np.linalg.det(geometry.matrix)) < 1e-9
    clean0, clean1, _ = two_views(noise=0, outliers=0)
    ones = np.ones((len(clean0), 1))
    lines = np.hstack([clean0, ones]) @ geometry.matrix.T
    distance = np.abs((np.hstack([clean1, ones]) * lines).sum(1)) / np.linalg.norm(lines[:, :2], axis=1)
    assert np.median(distance) < 0.5


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_essential_with_two_different_cameras(estimator):
    points0, points1, true = two_views()
    geometry = estimate(points0, points1, "essential", K0=K0, K1=K1, estimator=estimator)
    assert_inliers(geometry, true)
    assert np.allclose(np.linalg.svd(geometry.matrix)[1], [1, 1, 0], atol=1e-6)
    assert np.degrees(np.arccos((np.trace(geometry.rotation @ R.T) - 1) / 2)) < 0.3
    assert np.isclose(np.linalg.det(geometry.rotation), 1)
    assert geometry.translation.shape == (3,)
    assert np.isclose(np.linalg.norm(geometry.translation), 1)
    assert angle(geometry.translation, T) < 1.5  # the sign as well: that is the cheirality test


def test_swapping_the_views_inverts_the_pose():
    points0, points1, _ = two_views()
    geometry = estimate(points1, points0, "essential", K0=K1, K1=K0)
    assert np.degrees(np.arccos((np.trace(geometry.rotation @ R) - 1) / 2)) < 0.3
    assert angle(geometry.translation, -R.T @ T) < 1.5


def test_short_baseline_still_gives_a_pose():
    """Every point is farther than 50 baselines away."""
    rng = np.random.default_rng(3)
    cloud = np.column_stack([rng.uniform(-300, 300, (300, 2)), rng.uniform(400, 900, 300)])
    points0, points1 = project(K0, cloud), project(K1, cloud @ R.T + 4 * T)
    geometry = estimate(points0, points1, "essential", K0=K0, K1=K1)
    assert geometry.num_inliers > 290
    assert angle(geometry.translation, T) < 3


@pytest.mark.parametrize("kind", KINDS)
def test_runs_repeat_exactly(kind):
    points0, points1, _ = two_views()
    first, second = (estimate(points0, points1, kind, K0=K0, K1=K1, threshold=2.0) for _ in range(2))
    assert np.array_equal(first.inliers, second.inliers)
    assert (first.matrix is None and second.matrix is None) or np.array_equal(first.matrix, second.matrix)


def test_a_tighter_threshold_keeps_fewer():
    points0, points1, _ = flat_views(noise=1.0)
    loose, tight = (estimate(points0, points1, "homography", threshold=value) for value in (4.0, 0.8))
    assert 0 < tight.num_inliers < loose.num_inliers
    assert tight.threshold_px == 0.8


@pytest.mark.parametrize("option", ["confidence", "max_iterations"])
def test_the_search_ends_as_asked(option):
    """Most matches are wrong: a search of one sample, or one that is content early, finds another matrix."""
    estimator = "magsac"
    points0, points1, _ = two_views(count=120, outliers=72, noise=1.0)
    long, short = ({"confidence": 0.9999, "max_iterations": 10000}, {"confidence": 0.01, "max_iterations": 1})
    whole = estimate(points0, points1, "fundamental", estimator=estimator, **long)
    hasty = estimate(points0, points1, "fundamental", estimator=estimator, **{**long, option: short[option]})
    assert hasty.matrix is None or not np.array_equal(hasty.matrix, whole.matrix)


@pytest.mark.parametrize("kind", KINDS)
def test_poselib_is_told_everything(kind, monkeypatch):
    """It makes at least 1000 samples whatever the confidence, after which nothing better is found in small cases."""
    poselib = pytest.importorskip("poselib")
    told = {}

    def record(real):
        def call(*arguments):
            told.update(arguments[-1])
            return real(*arguments)

        return call

    for name in ("estimate_homography", "estimate_fundamental", "estimate_relative_pose"):
        monkeypatch.setattr(poselib, name, record(getattr(poselib, name)))
    points0, points1, _ = two_views()
    options = {"threshold": 1.5, "seed": 7, "confidence": 0.75, "max_iterations": 1234}
    estimate(points0, points1, kind, K0=K0, K1=K1, estimator="poselib", **options)
    assert (told["success_prob"], told["max_iterations"], told["seed"]) == (0.75, 1234, 7)
    assert told["max_reproj_error" if kind == "homography" else "max_epipolar_error"] == 1.5


def assert_nothing(geometry: Geometry, count: int):
    assert not geometry.found
    assert geometry.matrix is None
    assert geometry.inliers.shape == (count,)
    assert geometry.inliers.dtype == bool
    assert not geometry.inliers.any()
    assert geometry.rotation is None
    assert geometry.translation is None


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", range(5))
def test_too_few(kind, count, estimator):
    points = np.random.default_rng(0).uniform(0, 500, (count, 2))
    assert_nothing(estimate(points, points + 3, kind, K0=K0, K1=K1, estimator=estimator), count)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_points(kind, estimator):
    line = np.column_stack([np.arange(60.0), 2 * np.arange(60.0) + 7])
    spread = np.random.default_rng(0).uniform(0, 500, (60, 2))
    same = np.full((60, 2), 33.0)
    few = np.repeat(spread[:4], 15, axis=0)
    for points0, points1 in ((line, line), (line, spread), (spread, line), (same, same), (spread, same), (few, few)):
        assert_nothing(estimate(points0, points1, kind, K0=K0, K1=K1, estimator=estimator), 60)


def test_a_homography_supported_by_a_line_only_is_none():
    """40 matches on a line that agree, and 10 that do not: a homography through the line is not determined."""
    rng = np.random.default_rng(4)
    line = np.column_stack([np.linspace(0, 600, 40), np.linspace(0, 300, 40)])
    points0 = np.vstack([line, rng.uniform(0, 500, (10, 2))])
    points1 = np.vstack([line + 5, rng.uniform(0, 500, (10, 2))])
    assert_nothing(estimate(points0, points1, "homography", threshold=0.5), 50)


def fails(code, *args, **options):
    with pytest.raises(MatchRTError) as caught:
        estimate(*args, **options)
    assert caught.value.code == code
    assert caught.value.remedy


POINTS = np.random.default_rng(0).uniform(0, 500, (30, 2))


@pytest.mark.parametrize("cameras", [{}, {"K0": K0}, {"K1": K1}])
def test_essential_needs_both_intrinsics(cameras):
    fails("intrinsics-missing", POINTS, POINTS, "essential", **cameras)


@pytest.mark.parametrize(
    "camera", [np.eye(2), np.zeros((3, 3)), np.full((3, 3), np.nan), K0.T, -K0, "K", [[1, 2], [3]]]
)
def test_intrinsics_that_are_none(camera):
    fails("intrinsics-invalid", POINTS, POINTS, "essential", K0=K0, K1=camera)


@pytest.mark.parametrize("points", [POINTS[:-1], POINTS.T, POINTS.ravel(), np.full_like(POINTS, np.nan)])
def test_keypoints_that_are_none(points):
    fails("geometry-input", points, POINTS, "homography")


@pytest.mark.parametrize(
    "options", [{"threshold": 0}, {"threshold": np.nan}, {"confidence": 1.0}, {"max_iterations": 0}, {"seed": -1}]
)
def test_settings_out_of_range(options):
    fails("geometry-input", POINTS, POINTS, "homography", **options)


def test_unknown_names():
    fails("geometry-kind", POINTS, POINTS, "affine")
    fails("geometry-estimator", POINTS, POINTS, "homography", estimator="ransac")


@pytest.mark.skipif(importlib.util.find_spec("poselib") is not None, reason="poselib is installed")
def test_poselib_is_optional():
    fails("package-missing", POINTS, POINTS + 1, "homography", estimator="poselib")
