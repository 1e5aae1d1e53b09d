"""The tools that calibrate the verdict: what they draw, split and fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.pictures import texture

from matchrt.runtime.verdict import Evidence, features

torch = pytest.importorskip("torch")
from tools.train_lite.pairs import Recipe  # noqa: E402
from tools.train_lite.photometric import Strength  # noqa: E402
from tools.train_lite.scene import Difficulty  # noqa: E402
from tools.verdict.drawn import DRAWN  # noqa: E402
from tools.verdict.evaluation import evaluation_pairs  # noqa: E402
from tools.verdict.fit import Sample, fit, report, wrong  # noqa: E402
from tools.verdict.make_pairs import UNRELATED, true_pairs, unrelated_pairs, write  # noqa: E402
from tools.verdict.photographs import Photograph, split_of  # noqa: E402


@pytest.mark.parametrize("kind", sorted(DRAWN))
def test_drawn_pictures_differ_and_repeat(kind: str) -> None:
    first, second, again = (DRAWN[kind](np.random.default_rng(seed), 96, 128) for seed in (1, 2, 1))
    assert first.shape == (96, 128, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, second)


def test_no_photograph_is_in_both_splits() -> None:
    names = [f"train-photo-{number:012x}.webp" for number in range(40)] + ["validation-photo-00000000000a.webp"]
    splits = {name: split_of(Path(name)) for name in names}
    assert 15 < sum(split == "fit" for split in splits.values()) < 25
    assert splits["validation-photo-00000000000a.webp"] == "test"


def _photographs(folder: Path, kinds: list[str], size: tuple[int, int]) -> list[Photograph]:
    """Pictures of these kinds, written and read as those of the pack are. size: height and width."""
    paths = [folder / f"train-{kind}-{index:012x}.webp" for index, kind in enumerate(kinds)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), texture(*size, seed=index))
    return [Photograph.read(path) for path in paths]


def test_unrelated_pairs_are_written(tmp_path: Path) -> None:
    photographs = _photographs(tmp_path, ["texture", "photo"] * 4, (96, 160))
    pairs = [pair for _, pair in zip(range(25), unrelated_pairs(photographs, (64, 96), 1), strict=False)]
    assert {pair.kind for pair in pairs} <= set(UNRELATED) and len({pair.kind for pair in pairs}) > 4
    row = write(tmp_path, 3, pairs[0])
    assert row["true"] is False and json.dumps(row)
    assert cv2.imread(str(tmp_path / "00003_1.png"), cv2.IMREAD_GRAYSCALE).shape == (64, 96)


def test_true_pairs_are_drawn_from_scenes(tmp_path: Path) -> None:
    photographs = _photographs(tmp_path, ["photo"] * 3, (512, 512))
    recipe = Recipe(replace(Difficulty(), negative=0.0), replace(Strength(), modality=0.08), 0.08)
    pairs = [pair for _, pair in zip(range(3), true_pairs(photographs, (64, 96), 1, recipe), strict=False)]
    for pair in pairs:
        assert pair.kind == "scene" and pair.overlap >= 0.15 and pair.images[0].shape == (64, 96)
        assert pair.there is not None and pair.there.shape == (8 * 12, 2) and np.isfinite(pair.there).any()


def test_evaluation_pairs_are_of_one_place_or_of_two(shared: Path) -> None:
    rows = evaluation_pairs(shared / "eval")
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(Path(row["image0"]).is_file() and Path(row["image1"]).is_file() for row in rows)
    true = {frozenset((row["image0"], row["image1"])) for row in rows if row["true"]}
    unrelated = {frozenset((row["image0"], row["image1"])) for row in rows if not row["true"]}
    assert len(unrelated) > 250 and not true & unrelated


def sample(true: bool, alarms: float, sharpness: float) -> Sample:
    evidence = Evidence("homography", 90, 60, 40, 0.3, 0.3, -alarms, -alarms / 2, sharpness, 0.5, 0.7)
    row = {"id": "x", "kind": "scene" if true else "text", "true": true, "overlap": 0.4, "seen_in_training": False}
    return Sample(row, "m", evidence, 40 if true else -1)


def test_a_fit_separates_what_can_be_separated_and_has_no_negative_weight() -> None:
    dice = np.random.default_rng(1)
    samples = [sample(True, float(dice.uniform(40, 300)), float(dice.uniform(2.5, 4))) for _ in range(60)]
    samples += [sample(False, float(dice.uniform(0, 30)), float(dice.uniform(0, 0.7))) for _ in range(120)]
    for with_scores in (True, False):
        model = fit(samples, with_scores)
        assert min(model.weights.values()) > 0 and set(model.weights) <= set(features(samples[0].evidence))
        assert with_scores or not [name for name in model.weights if name.startswith("score")]
        assert not wrong(samples, model)
        said = report(samples, model)
        assert "| true, all | 60 | 60 (100.0%) |" in said and "| unrelated, all | 120 | 0 (0.0%) |" in said
