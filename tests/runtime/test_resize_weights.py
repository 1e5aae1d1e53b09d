"""The weights of each filter give the pixels that Pillow and OpenCV give."""

from typing import get_args

import cv2
import numpy as np
import pytest
from support.resizing import resized_by_weights

from matchrt.manifest import HOST_KERNELS, Kernel
from matchrt.runtime.fit import Fit, apply_fit
from matchrt.runtime.resize_weights import GREY_HALF, GREY_UNIT, GREY_WEIGHTS, axis_taps, resize_passes

KERNELS = tuple(kernel for kernel in get_args(Kernel) if kernel not in HOST_KERNELS)
# Of all pixels, how many may differ by one level. Sums that end near a half are rounded by their last digit. OpenCV's
# linear enlargement along both axes has up to 0.8%, where many sums end there.
SHARES = {"area-linear": 0.01, "lanczos": 5e-4, "bicubic": 1e-3, "bicubic-aliased": 1e-3}
SIZES = [
    ((200, 300), (100, 150)),  # half
    ((200, 300), (50, 75)),  # a quarter
    ((300, 450), (100, 150)),  # a third
    ((201, 301), (100, 77)),
    ((200, 300), (100, 300)),  # one axis alone
    ((200, 300), (200, 100)),
    ((64, 70), (128, 140)),  # twice
    ((100, 120), (317, 401)),
    ((100, 300), (217, 101)),  # one axis shrinks, one grows
    ((300, 90), (100, 130)),
    ((300, 90), (100, 30)),  # Pillow changes the height first
    ((540, 960), (360, 640)),
    ((17, 16), (480, 640)),
    ((480, 640), (64, 64)),
    ((90, 80), (90, 80)),
]


def noise(size, channels, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels)).astype(np.uint8)
    return pixels[:, :, 0] if channels == 1 else pixels


def compare(source, target, kernel, channels=1, seed=0):
    """(share of pixels that differ, largest difference) between the weights and the host's resize."""
    pixels = noise(source, channels, seed)
    fit = Fit(source[1] / target[1], source[0] / target[0], *target, *target)
    host = apply_fit(pixels, fit, kernel).reshape(*target, channels)
    ours = resized_by_weights(pixels, target, kernel).reshape(*target, channels)
    gap = np.abs(host.astype(int) - ours.astype(int))
    return (gap > 0).mean(), gap.max()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_the_host_gives_the_same_pixels(source, target, kernel):
    share, most = compare(source, target, kernel)
    assert share <= SHARES[kernel]
    assert most <= 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_random_sizes_and_colours(kernel):
    random = np.random.default_rng(5)
    for seed in range(12):
        source, target = (tuple(int(side) for side in random.integers(16, 400, 2)) for _ in range(2))
        share, most = compare(source, target, kernel, 3, seed)
        assert share <= SHARES[kernel] and most <= 1, (source, target)


def test_areas_are_exact():
    """Where both axes shrink, as with every camera frame, not one pixel of the usual filter differs."""
    for source, target in SIZES:
        if target[0] <= source[0] and target[1] <= source[1]:
            assert compare(source, target, "area-linear", 3) == (0, 0), (source, target)


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_sum_to_one_and_stay_inside(kernel):
    random = np.random.default_rng(1)
    for source, target in random.integers(1, 500, (50, 2)).tolist():
        taps = axis_taps(source, target, kernel)
        assert taps.first.dtype == np.int32 and taps.weights.shape[0] == len(taps.first) == target
        assert taps.first.min() >= 0 and taps.first.max() + taps.weights.shape[1] <= source
        assert np.abs(taps.weights.sum(1) - 1).max() < 1e-3  # parts of a sample below 1e-3 are left out
        matrix = taps.matrix(source)
        assert matrix.shape == (target, source)
        assert np.allclose(matrix.sum(1), taps.weights.sum(1))


def test_equal_sizes_need_no_pass():
    assert all(resize_passes((90, 80), (90, 80), kernel) == () for kernel in KERNELS)


def test_grey_is_that_of_opencv():
    pixels = noise((300, 400), 3, 3)
    total = pixels.astype(np.float32) @ np.array(GREY_WEIGHTS, np.float32) + np.float32(GREY_HALF)
    grey = np.floor(total / np.float32(GREY_UNIT)).astype(np.uint8)
    assert np.array_equal(grey, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
