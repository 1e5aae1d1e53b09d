"""Metrics against cases that can be computed by hand."""

import math

import numpy as np
import pytest

from matchrt.bench import metrics


def rotation(axis, degrees):
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def test_pixel_scale_follows_the_long_side():
    assert metrics.pixel_scale(480, 640) == 1
    assert metrics.pixel_scale(1280, 720) == 2
    assert metrics.pixel_scale(240, 320) == 0.5


def test_transfer_errors_of_shifted_points():
    shift = np.array([[1.0, 0, 10], [0, 1, -5], [0, 0, 1]])
    points0 = np.array([[0.0, 0], [100, 50], [3, 4], [7, 7]])
    off = np.array([[0.0, 0], [3, 4], [0, 1], [-6, 8]])
    errors = metrics.transfer_errors(shift, points0, points0 + np.array([10, -5]) + off)
    np.testing.assert_allclose(errors, [0, 5, 1, 10], atol=1e-12)
    assert metrics.share_within(errors, 1) == 0.25  # 1 is not below 1
    assert metrics.share_within(errors, 5.1) == 0.75
    assert metrics.share_within(errors, 100) == 1


def test_transfer_errors_divide_by_depth():
    homography = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 4]])
    assert metrics.transfer_errors(homography, np.array([[8.0, 6]]), np.array([[4.0, 0]]))[0] == pytest.approx(3)


def test_a_point_at_infinity_is_infinitely_wrong():
    horizon = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])  # x = 0 goes to infinity
    errors = metrics.transfer_errors(horizon, np.array([[0.0, 3], [1, 1]]), np.array([[0.0, 3], [1, 1]]))
    assert errors[0] == math.inf
    assert errors[1] == 0


def test_share_of_nothing_is_zero():
    assert metrics.share_within(np.zeros(0), 5) == 0


def test_corner_error_is_the_mean_over_the_corners():
    truth = np.eye(3)
    assert metrics.corner_error(truth, truth, (101, 201)) == 0
    shifted = np.array([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]])
    assert metrics.corner_error(shifted, truth, (101, 201)) == pytest.approx(5)
    doubled = np.diag([2.0, 2.0, 1.0])  # corners move by 0, 200, hypot(200, 100), 100
    expected = (0 + 200 + math.hypot(200, 100) + 100) / 4
    assert metrics.corner_error(doubled, truth, (101, 201)) == pytest.approx(expected)
    assert metrics.corner_error(None, truth, (101, 201)) == math.inf


@pytest.mark.parametrize("degrees", [0, 1e-6, 0.5, 7, 90, 179])
def test_rotation_error_is_the_angle(degrees):
    base = rotation((1, 2, 3), 40)
    assert metrics.rotation_error(base @ rotation((0, 1, -1), degrees), base) == pytest.approx(degrees, abs=1e-9)


def test_translation_error_ignores_length_and_sign():
    truth = np.array([1.0, 0, 0])
    ten = np.array([math.cos(math.radians(10)), math.sin(math.radians(10)), 0])
    assert metrics.translation_error(5 * ten, truth) == pytest.approx(10)
    assert metrics.translation_error(-0.1 * ten, truth) == pytest.approx(10)
    assert metrics.translation_error(np.array([0, 0, 2.0]), truth) == pytest.approx(90)


def test_normalise_points_inverts_the_intrinsics():
    intrinsics = np.array([[400.0, 0, 100], [0, 200, 50], [0, 0, 1]])
    points = metrics.normalise_points(np.array([[100.0, 50], [500, 250]]), intrinsics)
    np.testing.assert_allclose(points, [[0, 0], [1, 1]], atol=1e-12)


def test_symmetric_epipolar_of_a_sideways_step():
    """With R = I and t along x, epipolar lines are rows: a match off its row by d has d^2 + d^2."""
    essential = metrics.essential_of(np.eye(3), np.array([2.0, 0, 0]))
    points0 = np.array([[0.1, 0.2], [0.3, -0.1]])
    distances = metrics.symmetric_epipolar(essential, points0, points0 + np.array([[0.4, 0.0], [0.0, 0.03]]))
    np.testing.assert_allclose(distances, [0, 2 * 0.03**2], atol=1e-15)


def test_area_under_recall_of_a_known_list():
    """Errors 1, 2, 8 and a failure, up to 4: lines (0,0) (1,1/4) (2,1/2) (4,1/2), area 1/8 + 3/8 + 1 = 1.5."""
    assert metrics.area_under_recall([8, 1, math.inf, 2], 4) == pytest.approx(1.5 / 4)


def test_area_under_recall_extremes():
    assert metrics.area_under_recall([0.0] * 5, 10) == pytest.approx(1)
    assert metrics.area_under_recall([10.0, math.inf], 10) == 0
    assert metrics.area_under_recall([], 10) == 0
    assert metrics.area_under_recall([5.0], 10) == pytest.approx(0.75)  # triangle of 2.5, then 5 at recall 1


def test_disparity_errors_leave_out_what_is_not_known():
    disparity = np.full((10, 20), 4.0)
    disparity[5, 5] = np.inf
    points0 = np.array([[10.2, 3.0], [5.3, 4.8], [15, 2], [50, 2], [-3, 2]])
    points1 = points0 - [4, 0] + [[0, 0], [0, 0], [3, 4], [0, 0], [0, 0]]
    np.testing.assert_allclose(metrics.disparity_errors(disparity, points0, points1), [0, 5], atol=1e-12)
    assert metrics.disparity_errors(disparity, np.zeros((0, 2)), np.zeros((0, 2))).shape == (0,)


def test_disparity_reaches_to_every_edge_and_no_farther():
    disparity = np.ones((3, 4), np.float32)
    within = np.array([[0, 0], [3, 0], [0, 2], [3, 2], [3.4, 2.4], [-0.4, -0.4]])
    beyond = np.array([[-1, 0], [4, 0], [0, -1], [0, 3]])
    assert metrics.disparity_errors(disparity, within, within - [1, 0]) == pytest.approx(np.zeros(6))
    assert len(metrics.disparity_errors(disparity, beyond, beyond)) == 0
