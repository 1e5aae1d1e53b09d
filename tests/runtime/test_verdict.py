"""The verdict on a pair: from matches that are made by hand, through files, and in words."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from matchrt.errors import MatchRTError
from matchrt.runtime.calibration import DEFAULT, Logistic, calibration
from matchrt.runtime.hloc import save_pairs
from matchrt.runtime.match_data import ImageRef, Provenance
from matchrt.runtime.matches import Matches
from matchrt.runtime.notebook import matches_html
from matchrt.runtime.verdict import (
    ENOUGH_CELLS,
    MATCH_FROM,
    NO_MATCH_TO,
    Verdict,
    features,
    judge,
    shown,
    weigh,
    word_of,
)

H = np.array([[1.1, 0.1, 5], [-0.05, 0.9, 20], [1e-4, 2e-5, 1]])
K = np.array([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]])


def made(true: int, wrong: int, spread: float = 0.5, model: str = "some-network", seed: int = 1) -> Matches:
    """Matches of a homography, with an error of `spread` pixels, among wrong ones."""
    dice, count = np.random.default_rng(seed), true + wrong
    points0 = dice.uniform((0, 0), (640, 480), (count, 2))
    mapped = np.column_stack([points0, np.ones(count)]) @ H.T
    points1 = np.clip(mapped[:, :2] / mapped[:, 2:] + dice.normal(0, spread, (count, 2)), 0, (799, 599))
    order = dice.permutation(count)
    points1[order[:wrong]] = dice.uniform((0, 0), (800, 600), (wrong, 2))
    scores = np.sort(dice.uniform(0.3, 0.9, count))[::-1]
    made_by = Provenance(model, "0" * 64, "fp32", "onnxruntime", "0", (480, 640), (480, 640))
    return Matches(points0, points1, scores, ImageRef("a", 480, 640), ImageRef("b", 600, 800), {}, made_by)


def test_a_true_pair_is_a_match_and_random_points_are_none() -> None:
    for kind in ("homography", "fundamental"):
        matches = made(200, 100).verify(kind)
        assert matches.verdict == "match" and matches.probability >= MATCH_FROM
        assert matches.judgement is not None and matches.judgement.log10_nfa < -50
        nothing = made(0, 300).verify(kind)
        assert nothing.verdict == "no match" and nothing.probability <= NO_MATCH_TO
    assert made(200, 100).judge().verdict == "match"
    assert made(0, 300).judge().verdict == "no match"


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_too_few_matches_say_nothing(count: int) -> None:
    verdict = judge(made(count, 0))
    assert verdict.verdict == "doubtful" and 0 < verdict.probability < 0.5


def test_the_same_matches_give_the_same_verdict_and_stay_as_they_are() -> None:
    matches = made(60, 60)
    assert judge(matches) == judge(matches)
    judged = matches.judge()
    assert judged.geometry is None and np.array_equal(judged.keypoints1, matches.keypoints1)
    assert matches.judgement is None


def test_a_verdict_is_of_the_pair_and_filters_keep_it() -> None:
    judged = made(100, 20).judge()
    assert judged.top(3).judgement == judged.filter(0.8).judgement == judged.judgement
    with pytest.raises(MatchRTError) as caught:
        _ = made(10, 0).probability
    assert caught.value.code == "matches-unverified"
    assert made(100, 20).verify("homography", judged=False).judgement is None


def test_more_right_matches_make_it_surer() -> None:
    probabilities = [judge(made(true, 60)).probability for true in (0, 15, 30, 60, 120)]
    assert probabilities == sorted(probabilities) and probabilities[0] <= NO_MATCH_TO and probabilities[-1] > 0.9
    sharp = [weigh(made(80, 20, spread)).sharpness for spread in (16.0, 4.0, 1.0)]
    assert sharp == sorted(sharp)


def test_neighbours_that_only_repeat_each_other_are_no_evidence() -> None:
    """Three spots, each with a hundred matches that agree, count as three matches."""
    dice = np.random.default_rng(3)
    spots = np.repeat([(100.0, 100.0), (400.0, 300.0), (550.0, 90.0)], 100, axis=0)
    near = dice.uniform(-4, 4, spots.shape)
    other = np.repeat([(300.0, 500.0), (90.0, 80.0), (700.0, 300.0)], 100, axis=0)
    matches = replace(made(300, 0), keypoints0=spots + near, keypoints1=other + near)
    assert weigh(matches).cells < ENOUGH_CELLS
    assert judge(matches).verdict == "doubtful" and judge(matches).probability < 0.3


@pytest.mark.parametrize("knots", [(3, 4), (4, 5), (6, 8)])
def test_a_smooth_warp_that_means_nothing_is_no_match(knots: tuple[int, int]) -> None:
    """What dense networks return for unrelated images: everywhere smooth, everywhere certain."""
    for seed in range(4):
        dice = np.random.default_rng(seed)
        places = dice.uniform((0, 0), (640, 480), (*knots, 2)).astype(np.float32)
        warp = np.stack(
            [cv2.resize(places[..., axis], (640, 480), interpolation=cv2.INTER_CUBIC) for axis in (0, 1)], 2
        )
        points0 = dice.uniform((0, 0), (639, 479), (5000, 2))
        points1 = warp[points0[:, 1].astype(int), points0[:, 0].astype(int)] + dice.normal(0, 0.5, (5000, 2))
        size = ImageRef("a", 480, 640)
        matches = replace(
            made(5000, 0, model="roma-outdoor"),
            keypoints0=points0,
            keypoints1=np.clip(points1, 0, (639, 479)),
            scores=np.ones(5000),
            image0=size,
            image1=size,
        )
        assert judge(matches).verdict == "no match"


def test_an_essential_matrix_counts_with_its_cameras() -> None:
    matches = made(80, 20).verify("essential", K0=K, K1=K)
    assert matches.verdict == "match"
    assert judge(matches).verdict == "match"  # its cameras are not known any more


def test_large_images_are_judged_as_the_network_saw_them() -> None:
    small = made(60, 60)
    large = replace(
        small,
        keypoints0=(small.keypoints0 + 0.5) * 8 - 0.5,
        keypoints1=(small.keypoints1 + 0.5) * 8 - 0.5,
        image0=ImageRef("a", 8 * 480, 8 * 640),
        image1=ImageRef("b", 8 * 600, 8 * 800),
    )
    first, second = weigh(small), weigh(large)
    assert second.cells == first.cells
    assert second.homography == pytest.approx(first.homography, rel=0.2)


def test_two_thousand_matches_take_milliseconds() -> None:
    matches = made(1200, 800)
    judge(matches)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        judge(matches)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.05  # 5 to 10 ms where nothing else runs


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_files_keep_it(tmp_path: Path, suffix: str) -> None:
    for case in (made(100, 20).verify("homography"), made(0, 60).judge(), made(100, 20)):
        case.save(tmp_path / f"m{suffix}")
        assert Matches.load(tmp_path / f"m{suffix}").judgement == case.judgement


@pytest.mark.parametrize("change", [{"verdict": "perhaps"}, {"probability": 1.5}, {"log10_nfa": "x"}, {"evidence": 3}])
def test_files_with_another_verdict_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "m.json"
    made(100, 20).judge().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(MatchRTError) as caught:
        Matches.load(path)
    assert caught.value.code == "matches-format"


def test_hdf5_has_it_as_attributes(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    judged = made(100, 20).judge()
    save_pairs([judged], tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        attributes = file["a/b"].attrs
        assert attributes["verdict"] == "match" and attributes["probability"] == judged.probability
        assert json.loads(attributes["matchrt"])["verdict"] == "match"


def test_summary_and_words() -> None:
    judged = made(100, 20).judge()
    summary = judged.summary()
    assert summary["verdict"] == "match" and summary["probability"] == pytest.approx(judged.probability, abs=1e-4)
    assert json.loads(json.dumps(summary))["evidence"]["matches"] == 120
    assert judged.judgement is not None
    evidence = judged.judgement.evidence
    assert str(Verdict("match", 0.998, -41.2, evidence)) == "match (probability 0.99, 1 false alarm in 10^41)"
    assert str(Verdict("no match", 0.001, -9.0, evidence)) == "no match (probability 0.01)"
    assert str(Verdict("doubtful", 0.5, 0.0, evidence)) == "doubtful (probability 0.50)"
    assert "verdict: match (probability 0.9" in repr(judged) and "verdict: match" in matches_html(judged)
    assert [shown(value) for value in (0.0, 0.005, 0.42, 1.0)] == ["0.01", "0.01", "0.42", "0.99"]
    no = weigh(made(0, 300))
    words = [word_of(value, no) for value in (0.0, NO_MATCH_TO, 0.5, MATCH_FROM, 1.0)]
    assert words == ["no match", "no match", "doubtful", "match", "match"]
    few, agreeing = replace(no, cells=ENOUGH_CELLS - 1), replace(no, fundamental=-9.0)
    for other in (few, agreeing):
        assert [word_of(value, other) for value in (0.0, 0.5, 1.0)] == ["doubtful", "doubtful", "match"]
    said = str(Verdict("doubtful", 0.11, 0.0, few))
    assert said == "doubtful (probability 0.11, too few matches to tell)"
    # One match with a high score is more likely right than none at all, and tells as little.
    assert str(judge(made(0, 1, model="eloftr-lite"))).endswith("too few matches to tell)")
    assert str(Verdict("doubtful", 0.11, -9.0, agreeing)) == "doubtful (probability 0.11, 1 false alarm in 10^9)"


def test_the_constants_that_come_with_the_package() -> None:
    known = set(features(weigh(made(50, 10))))
    for name, model in calibration().models.items():
        assert set(model.weights) <= known and min(model.weights.values()) >= 0
        # Scores of different networks mean different things.
        assert name != DEFAULT or not [weight for weight in model.weights if weight.startswith("score")]
        assert model.probability(dict.fromkeys(known, 0.0)) <= 0.5


def test_a_logistic_model_grows_with_its_features_and_never_overflows() -> None:
    model = Logistic(-2.0, {"homography": 1.0})
    values = [model.probability({"homography": value}) for value in (-1e9, 0.0, 2.0, 1e9)]
    assert values == sorted(values) and values[2] == 0.5 and values[3] == 1.0
