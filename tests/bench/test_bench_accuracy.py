"""The harness end to end on the tiny folder, with matchers whose quality is known."""

import json
import math

import numpy as np
import pytest

from matchrt.bench.accuracy import AccuracyOptions, evaluate, summarise
from matchrt.bench.folder import read_folder
from matchrt.bench.pose import check_estimator, relative_pose
from matchrt.errors import MatchRTError
from matchrt.runtime.match_data import ImageRef, Provenance
from matchrt.runtime.matches import Matches


def test_true_matches_get_what_their_noise_allows(eval_folder, true_matcher):
    folder = read_folder(eval_folder)
    report = evaluate(true_matcher(noise=1.0), folder, name="true")
    sets = report.summary()
    # Two normal deviates of 1 px: the distance is below r for a share of 1 - exp(-r^2 / 2).
    for pixels in (1, 3):
        assert sets["tiny"][f"p{pixels}"] == pytest.approx(1 - math.exp(-(pixels**2) / 2), abs=0.08)
    assert sets["tiny"]["p5"] == 1
    assert sets["tiny"]["corner_median_px"] < 1
    assert sets["tiny"]["inliers"] > 180
    assert sets["stereo"]["p1"] == pytest.approx(1 - math.exp(-0.5), abs=0.1)
    assert sets["stereo"]["known"] == 200
    assert sets["scene"]["under_5"] == 3
    assert sets["scene"]["auc_20"] > 0.8
    assert sets["scene"]["epi_precision"] == 1
    assert sets["no-truth"]["H_inliers"] > 180
    assert sets["negative"] == {"pairs": 1, "matches": 0, "F_inliers": 0, "H_inliers": 0}


def test_exact_matches_are_perfect(eval_folder, true_matcher):
    sets = evaluate(true_matcher(), read_folder(eval_folder)).summary()
    assert sets["tiny"]["p1"] == 1
    assert sets["tiny"]["corner_median_px"] == pytest.approx(0, abs=0.01)
    assert sets["stereo"]["p1"] == 1
    assert sets["scene"]["auc_5"] == pytest.approx(1, abs=0.02)
    assert sets["scene"]["inliers"] == 200


def test_garbage_gets_what_chance_allows(eval_folder, garbage_matcher):
    sets = evaluate(garbage_matcher, read_folder(eval_folder)).summary()
    # A random point lies within 5 px of the right one with a chance of 25 pi / (640 * 480) = 0.03 %.
    assert sets["tiny"]["p5"] < 0.01
    assert sets["tiny"]["corner_10px"] == 0
    assert sets["stereo"]["p3"] < 0.01
    assert sets["scene"]["epi_precision"] < 0.1
    assert sets["scene"]["under_5"] == 0
    assert sets["negative"]["H_inliers"] < 20


def test_no_matches_are_failures_and_not_errors(eval_folder, no_matches):
    report = evaluate(no_matches, read_folder(eval_folder))
    sets = report.summary()
    assert sets["tiny"]["corner_median_px"] == math.inf
    assert sets["tiny"]["p5"] == 0
    assert sets["scene"]["auc_20"] == 0
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["sets"]["tiny"]["corner_median_px"] is None
    assert document["pairs"]["scene/a__b"]["err_R"] is None


def test_thresholds_scale_with_the_image(eval_folder, true_matcher, tmp_path):
    """The same errors in pixels count half in an image of twice the size."""
    folder = read_folder(eval_folder)
    small = folder.homography[0]
    large = type(small)(**{**vars(small), "image1_hw": (960, 1280)})
    matcher = true_matcher(noise=2.0)
    reports = [evaluate(matcher, type(folder)(homography=(pair,))).pairs[0].figures for pair in (small, large)]
    assert reports[1]["p3"] > reports[0]["p3"] + 0.15
    assert reports[1]["p8"] >= reports[0]["p16"] - 0.02


@pytest.mark.parametrize("estimator", ["ransac", "magsac", "poselib"])
def test_every_pose_estimator_finds_the_pose(eval_folder, true_matcher, estimator):
    if estimator == "poselib":
        pytest.importorskip("poselib")
    report = evaluate(
        true_matcher(noise=0.3),
        read_folder(eval_folder).only(("scene",)),
        AccuracyOptions(pose_estimator=check_estimator(estimator)),
    )
    assert [pair.id for pair in report.pairs] == ["scene/a__b", "scene/a__c", "scene/b__c"]
    assert all(pair.figures["err_R"] < 1 and pair.figures["err_t"] < 3 for pair in report.pairs)
    assert report.to_json()["pose_estimator"] == estimator


def test_a_wrong_truth_is_seen_as_an_error_of_that_angle(eval_folder, true_matcher):
    """Turning the true rotation by 12 degrees must show as 12 degrees."""
    folder = read_folder(eval_folder)
    pair = folder.pose[0]
    angle = np.radians(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned = type(pair)(**{**vars(pair), "rotation": turn @ pair.rotation})
    figures = evaluate(true_matcher(), type(folder)(pose=(turned,))).pairs[0].figures
    assert figures["err_R"] == pytest.approx(12, abs=0.1)
    assert figures["err_t"] < 0.5


def test_five_points_are_no_pose(eval_folder, true_matcher):
    folder = read_folder(eval_folder)
    pair = folder.pose[0]
    points = true_matcher(count=5)(pair.image0, pair.image1)
    assert relative_pose(*points, (pair.intrinsics0, pair.intrinsics1), 1.0, "ransac") is None


def test_unknown_estimator():
    with pytest.raises(MatchRTError) as caught:
        check_estimator("lmeds")
    assert caught.value.code == "pose-estimator"


def test_summary_weighs_pairs_equally_and_counts_failures():
    pairs = [
        {"corner_err_px": 1.0, "p3": 1.0},
        {"corner_err_px": math.inf, "p3": 0.0},
        {"corner_err_px": 4.0, "p3": 0.5},
    ]
    summary = summarise(pairs)
    assert summary["corner_median_px"] == 4
    assert summary["corner_3px"] == pytest.approx(1 / 3)
    assert summary["corner_10px"] == pytest.approx(2 / 3)
    assert summary["p3"] == pytest.approx(0.5)


def test_pose_summary_takes_the_larger_error():
    pairs = [{"err_R": 1.0, "err_t": 7.0}, {"err_R": 12.0, "err_t": 0.0}, {"err_R": math.inf, "err_t": math.inf}]
    summary = summarise(pairs)
    assert (summary["under_5"], summary["under_10"], summary["under_20"]) == (0, 1, 2)


def matches_for(size):
    return Matches(
        np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), ImageRef("a", *size), ImageRef("b", 480, 640), {},
        Provenance("m", "0" * 64, "fp32", "onnxruntime", "0", (480, 640), (480, 640)),
    )  # fmt: skip


def test_matches_are_taken_and_their_size_is_checked(eval_folder):
    folder = read_folder(eval_folder).only(("tiny",))
    assert evaluate(lambda a, b: matches_for((480, 640)), folder).pairs[0].matches == 0
    with pytest.raises(MatchRTError) as caught:  # as if the image had been turned by its EXIF
        evaluate(lambda a, b: matches_for((640, 480)), folder)
    assert caught.value.code == "matcher-result"


@pytest.mark.parametrize(
    "result",
    [None, (np.zeros((3, 2)), np.zeros((4, 2))), (np.zeros((3, 3)), np.zeros((3, 3))), np.full((2, 4, 2), np.nan)],
)
def test_anything_else_is_refused(eval_folder, result):
    with pytest.raises(MatchRTError) as caught:
        evaluate(lambda a, b: result, read_folder(eval_folder))
    assert caught.value.code == "matcher-result"


def test_advance_is_called_for_every_pair(eval_folder, no_matches):
    calls = []
    folder = read_folder(eval_folder)
    evaluate(no_matches, folder, advance=lambda: calls.append(1))
    assert len(calls) == len(folder) == 8


def test_coarse_loftr_baseline_is_read_as_the_harness_writes(shared_eval):
    """The shared folder is of the format that the harness reads."""
    folder = read_folder(shared_eval)
    assert len([pair for pair in folder.pose if pair.set == "reichstag"]) == 45
    assert {pair.set for pair in folder.homography} == {"v_dogman", "synthetic"}
    assert sum(pair.negative for pair in folder.plain) == 1


def test_sift_gives_the_stored_figures(shared_eval):
    """A known matcher through the harness: the shares agree with figures that were computed by other code."""
    import importlib.util
    from pathlib import Path

    from matchrt.bench.compare import read_baseline

    spec = importlib.util.spec_from_file_location("sift_check", Path(__file__).parents[2] / "bench" / "sift_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = read_folder(shared_eval).only(("v_dogman", "motorcycle"))
    baseline = read_baseline(shared_eval / "baselines" / "sift.json")
    report = evaluate(module.Sift(), folder)
    differences = module.largest_differences(report, baseline)
    assert differences["v_dogman"]["figures"] == 15
    assert differences["v_dogman"]["largest"] < 0.02
    assert differences["motorcycle"]["largest"] < 0.02
