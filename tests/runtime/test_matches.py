"""Matches: what is checked on the way in, and what its methods give."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from matchrt.errors import MatchRTError
from matchrt.runtime.image import Image


def test_arrays_are_float32_read_only_copies(matches):
    scores = np.array(matches.scores)
    again = replace(matches, scores=scores)
    scores[:] = 0
    assert again.scores.max() > 0
    for array in (again.keypoints0, again.keypoints1, again.scores):
        assert array.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(FrozenInstanceError):
        again.scores = scores


def test_timings_are_copied(matches):
    timings = {"network": 1}
    again = replace(matches, timings=timings)
    timings["network"] = 5
    assert again.timings == {"network": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        {"keypoints0": np.zeros((119, 2))},
        {"keypoints1": np.zeros((120, 3))},
        {"keypoints1": np.zeros(240)},
        {"keypoints0": np.full((120, 2), np.nan)},
        {"keypoints0": np.full((120, 2), np.inf)},
        {"scores": np.linspace(0, 1, 120)},
        {"scores": np.full(120, np.nan)},
        {"scores": np.full(120, 1.5)},
        {"scores": np.full(120, -0.2)},
        {"scores": np.zeros((120, 1))},
        {"scores": 0.5},
    ],
)
def test_what_is_refused(matches, change):
    with pytest.raises(MatchRTError) as caught:
        replace(matches, **change)
    assert caught.value.code == "matches-invalid"
    assert caught.value.remedy


def test_scores_a_rounding_error_above_one_are_clipped(matches):
    clipped = replace(matches, scores=np.full(120, 1.0004)).scores
    assert clipped.max() == 1.0 and not clipped.flags.writeable


def test_filter_and_top(matches):
    limit = float(matches.scores[50])
    kept = matches.filter(limit)
    assert len(kept) == 51
    assert (kept.scores >= limit).all()
    assert np.array_equal(kept.keypoints0, matches.keypoints0[:51])
    assert len(matches.filter(0)) == 120
    assert len(matches.filter(1.1)) == 0
    assert len(matches.top(7)) == 7
    assert len(matches.top(500)) == 120
    with pytest.raises(MatchRTError):
        matches.top(-1)


def test_verify_returns_new_matches(matches):
    verified = matches.verify("homography")
    assert matches.geometry is None
    assert verified.geometry.kind == "homography"
    assert 88 <= verified.inliers.sum() <= 92
    assert not verified.inliers[::4][:5].all()
    assert np.array_equal(verified.scores, matches.scores)


def test_verify_passes_its_options_on(matches):
    assert matches.verify("homography", threshold=0.7).geometry.threshold_px == 0.7
    with pytest.raises(MatchRTError) as caught:
        matches.verify("essential")
    assert caught.value.code == "intrinsics-missing"


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ({"threshold": 0.0}, "geometry-input"),
        ({"confidence": 1.0}, "geometry-input"),
        ({"max_iterations": 0}, "geometry-input"),
        ({"seed": -1}, "geometry-input"),
        ({"estimator": "ransac"}, "geometry-estimator"),
    ],
)
def test_verify_drops_none_of_its_options(matches, option, code):
    with pytest.raises(MatchRTError) as caught:
        matches.verify("homography", **option)
    assert caught.value.code == code


def test_verify_passes_both_cameras_on(matches):
    camera = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    for cameras, wrong in (({"K0": -camera, "K1": camera}, "K0"), ({"K0": camera, "K1": -camera}, "K1")):
        with pytest.raises(MatchRTError) as caught:
            matches.verify("essential", **cameras)
        assert caught.value.code == "intrinsics-invalid" and wrong in caught.value.message


def test_filter_cuts_the_inliers_too(matches):
    verified = matches.verify("homography")
    assert np.array_equal(verified.top(31).inliers, verified.inliers[:31])
    assert verified.filter(2.0).inliers.shape == (0,)


def test_inliers_before_verify(matches):
    with pytest.raises(MatchRTError) as caught:
        _ = matches.inliers
    assert caught.value.code == "matches-unverified"
    assert "verify" in caught.value.remedy


def test_a_geometry_of_other_matches_is_refused(matches):
    with pytest.raises(MatchRTError):
        replace(matches.top(5), geometry=matches.verify("homography").geometry)


def test_no_matches_work_everywhere(no_matches, photos):
    assert len(no_matches) == 0
    assert not no_matches.verify("fundamental").geometry.found
    assert no_matches.summary()["scores"] is None
    assert no_matches.draw(*photos).dtype == np.uint8


def test_summary_is_json(matches):
    plain = json.loads(json.dumps(matches.summary(), allow_nan=False))
    assert plain["matches"] == 120
    assert plain["image0"] == {"name": "db/left.jpg", "height": 480, "width": 640, "orientation": 1}
    assert plain["pixels"] == "upright"
    assert plain["provenance"]["network_size0"] == [480, 640]
    assert plain["timings_ms"]["network"] == 8.5
    assert "geometry" not in plain
    verified = json.loads(json.dumps(matches.verify("homography").summary(), allow_nan=False))
    assert verified["geometry"]["found"] is True
    assert verified["geometry"]["inliers"] == matches.verify("homography").inliers.sum()
    assert np.shape(verified["geometry"]["matrix"]) == (3, 3)


def test_matches_pickle_and_copy(matches):
    for again in (pickle.loads(pickle.dumps(matches)), copy.deepcopy(matches)):
        assert np.array_equal(again.keypoints1, matches.keypoints1)
        assert again.provenance == matches.provenance


def test_draw_takes_arrays_and_images(matches, photos):
    from_arrays = matches.draw(*photos)
    from_images = matches.draw(Image(photos[0], "a"), Image(photos[1], "b"))
    assert np.array_equal(from_arrays, from_images)


def test_what_is_wrong_with_scores_is_said(matches):
    """Scores near 1 that do not descend are in range; scores beyond it are told first."""
    for scores, said in (([0.5, 0.9995], "do not descend"), ([0.5, 1.5], "run from 0.5 to 1.5")):
        with pytest.raises(MatchRTError) as caught:
            replace(matches, keypoints0=matches.keypoints0[:2], keypoints1=matches.keypoints1[:2], scores=scores)
        assert caught.value.code == "matches-invalid" and said in caught.value.message
