"""Matches and images that the tests of this folder share."""

import numpy as np
import pytest

from matchrt.runtime.match_data import ImageRef, Provenance
from matchrt.runtime.matches import Matches

H = np.array([[1.1, 0.1, 5], [-0.05, 0.9, 20], [1e-4, 2e-5, 1]])


@pytest.fixture
def matches():
    """120 matches between a 640x480 and an 800x600 image: a homography, and every fourth one wrong."""
    rng = np.random.default_rng(5)
    keypoints0 = rng.uniform((0, 0), (640, 480), (120, 2))
    mapped = np.column_stack([keypoints0, np.ones(120)]) @ H.T
    keypoints1 = mapped[:, :2] / mapped[:, 2:]
    keypoints1[::4] = rng.uniform((0, 0), (800, 600), (30, 2))
    return Matches(
        keypoints0=keypoints0,
        keypoints1=keypoints1,
        scores=np.sort(rng.uniform(0.1, 1, 120))[::-1],
        image0=ImageRef("db/left.jpg", 480, 640),
        image1=ImageRef("query/right.jpg", 600, 800),
        timings={"preprocess": 1.25, "network": 8.5, "total": 10.0},
        provenance=Provenance("loftr-outdoor", "ab" * 32, "fp16", "tensorrt", "0.1.0", (480, 640), (480, 640)),
    )


@pytest.fixture
def no_matches(matches):
    return matches.top(0)


@pytest.fixture
def photos():
    """Two RGB images of the sizes that `matches` are for."""
    rng = np.random.default_rng(6)
    return rng.integers(0, 256, (480, 640, 3), dtype=np.uint8), rng.integers(0, 256, (600, 800, 3), dtype=np.uint8)
