"""Points of many pairs become keypoints of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from matchrt.batch.merging import MergeOptions, merge_points, one_to_one
from matchrt.errors import MatchRTError

POINTS = arrays(np.float32, st.tuples(st.integers(0, 40), st.just(2)), elements=st.floats(-4, 300, width=32))


def test_points_of_one_cell_become_their_weighted_mean() -> None:
    # Cells of 2 px begin at -0.5: x = 0 and 1 share one, 1.6 is in the next.
    points = np.array([[0, 0], [1, 0], [1.6, 0], [1, 9]], np.float32)
    keypoints, ids = merge_points(points, np.array([3, 1, 1, 1], np.float32), MergeOptions(2.0, None))
    assert ids.tolist() == [0, 0, 1, 2]
    assert np.allclose(keypoints.points, [[0.25, 0], [1.6, 0], [1, 9]], atol=1e-6)
    assert np.allclose(keypoints.scores, [4, 1, 1])


def test_what_is_far_or_weak_has_no_keypoint() -> None:
    points = np.array([[0, 0], [0, 0], [3, 0], [20, 0], [40, 0]], np.float32)
    scores = np.array([1, 1, 0.1, 0.5, 0.9], np.float32)
    keypoints, ids = merge_points(points, scores, MergeOptions(4.0, 1.0, None))
    assert ids.tolist() == [0, 0, -1, 1, 2]
    keypoints, ids = merge_points(points, scores, MergeOptions(4.0, 1.0, 2))
    assert ids.tolist() == [0, 0, -1, -1, 1] and np.allclose(keypoints.points[1], [40, 0])


@settings(max_examples=50, deadline=None)
@given(POINTS, st.sampled_from([0.5, 1.0, 4.0, 8.0]), st.sampled_from([None, 1.0, 2.0]), st.sampled_from([None, 3]))
def test_every_keypoint_is_used_and_near(
    points: np.ndarray, cell: float, error: float | None, most: int | None
) -> None:
    scores = np.linspace(1, 0, len(points)).astype(np.float32)
    keypoints, ids = merge_points(points, scores, MergeOptions(cell, error, most))
    assert ids.shape == (len(points),) and ids.dtype == np.int32
    assert sorted(set(ids[ids >= 0].tolist())) == list(range(len(keypoints.points)))
    assert most is None or len(keypoints.points) <= most
    kept = ids >= 0
    distance = np.linalg.norm(points[kept] - keypoints.points[ids[kept]], axis=1)
    assert (distance <= (error or cell * 2**0.5) + 1e-3).all()
    again = merge_points(points[::-1], scores[::-1], MergeOptions(cell, error, None))[0]
    if most is None:
        assert np.allclose(again.points, keypoints.points, atol=1e-3) or error is not None


def test_matches_share_no_keypoint() -> None:
    ids0 = np.array([0, 0, 1, 2, -1, 3, 4], np.int32)
    ids1 = np.array([5, 6, 5, 7, 8, -1, 6], np.int32)
    scores = np.linspace(1, 0.4, 7).astype(np.float32)
    matches, kept = one_to_one(ids0, ids1, scores)
    assert matches.tolist() == [[0, 5], [2, 7]] and np.array_equal(kept, scores[[0, 3]])
    matches, kept = one_to_one(ids0[:0], ids1[:0], scores[:0])
    assert matches.shape == (0, 2) and matches.dtype == np.uint32


@pytest.mark.parametrize("options", [{"cell_size": 0}, {"max_error": -1.0}, {"max_keypoints": 0}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(MatchRTError) as caught:
        MergeOptions(**options)  # type: ignore[arg-type]
    assert caught.value.code == "option-range"
