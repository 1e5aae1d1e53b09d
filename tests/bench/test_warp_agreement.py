"""Dense engines are judged by the reference's warp at the pixels that they chose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from matchrt.bench.agreement import Agreement
from matchrt.bench.gate import FP16, Verdict
from matchrt.bench.verify import Verification, VerifiedPair
from matchrt.bench.warp_agreement import DenseReference, WarpAgreement, warp_agreement

SIDE = 640
RNG = np.random.default_rng(0)


def made(symmetric: bool) -> dict[str, np.ndarray]:
    """A dense output whose warp moves everything by (3.5, -2.4) pixels, and back in the other direction."""
    y, x = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
    here = np.stack([x, y], axis=2).astype(np.float32)
    there = here + np.float32([3.5, -2.4])
    left = np.concatenate([here, there], axis=2)
    right = np.concatenate([here - np.float32([3.5, -2.4]), here], axis=2)
    pixels = np.concatenate([left, right], axis=1) if symmetric else left
    warp = (pixels + 0.5) * 2 / SIDE - 1
    certainty = RNG.random(warp.shape[:2], dtype=np.float32)
    return {"warp": warp[None].astype(np.float32), "certainty": certainty[None]}


def chosen(reference: DenseReference, symmetric: bool, count: int = 200) -> dict[str, np.ndarray]:
    """An engine's answer with the reference's own warp: matches at random pixels of both directions."""
    pixels = RNG.integers(20, SIDE - 20, (count, 2))
    second = (np.arange(count) % 2 == 1) & symmetric
    column = pixels[:, 0] + second * SIDE
    target = reference.targets[pixels[:, 1], column].astype(np.float64)
    scores = reference.certainty[pixels[:, 1], column]
    first, other = np.where(second[:, None], target, pixels), np.where(second[:, None], pixels, target)
    return {"keypoints0": first[None], "keypoints1": other[None], "scores": scores[None],
            "num_matches": np.array([count])}  # fmt: skip


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_reference_agrees_with_itself_whatever_pixels_are_chosen(symmetric: bool) -> None:
    reference = DenseReference.from_outputs(made(symmetric), 0, SIDE)
    found = warp_agreement(reference, chosen(reference, symmetric), 0)
    assert found.share(1.0) == 1.0 and found.median < 1e-3 and found.certainty < 1e-6


@pytest.mark.parametrize("symmetric", [False, True])
def test_what_moves_is_seen(symmetric: bool) -> None:
    reference = DenseReference.from_outputs(made(symmetric), 0, SIDE)
    answer = chosen(reference, symmetric)
    ends = answer["keypoints1"].copy()
    ends[0, ::2] += [0.0, 5.0]
    moved = warp_agreement(reference, {**answer, "keypoints1": ends}, 0)
    assert moved.share(1.0) == 0.5
    dim = warp_agreement(reference, {**answer, "scores": answer["scores"] - 0.25}, 0)
    assert dim.share(1.0) == 1.0 and dim.certainty == pytest.approx(0.25, abs=1e-3)


def test_pixels_that_a_gpu_rounded_like_float16_are_found(symmetric: bool = True) -> None:
    reference = DenseReference.from_outputs(made(symmetric), 0, SIDE)
    answer = chosen(reference, symmetric)
    rounded = {
        name: ((answer[name] + 0.5) * 2 / SIDE - 1).astype(np.float16).astype(np.float64) for name in
        ("keypoints0", "keypoints1")
    }  # fmt: skip
    found = warp_agreement(reference, {**answer, **{n: (v + 1) * SIDE / 2 - 0.5 for n, v in rounded.items()}}, 0)
    assert found.share(1.0) == 1.0 and 0 < found.median < 0.2 and found.certainty < 1e-3


def test_garbage_counts_as_lost() -> None:
    reference = DenseReference.from_outputs(made(True), 0, SIDE)
    answer = chosen(reference, True)
    for value in (np.nan, np.inf, -1e9, 0.5):
        bad = warp_agreement(reference, {**answer, "keypoints0": np.full((1, 200, 2), value),
                                         "keypoints1": np.full((1, 200, 2), value)}, 0)  # fmt: skip
        assert bad.share(1.0) == 0.0 and bad.median == np.inf and bad.certainty == 1.0
    none = warp_agreement(reference, {**answer, "num_matches": np.array([0])}, 0)
    assert none.share(1.0) == 0.0 and none.median == np.inf


def verdict_of(warp: WarpAgreement) -> Verdict:
    """A verdict on one pair in which only a third of the selected matches is kept, as with any rounding."""
    agreement = Agreement(2000, 2000, (600, 680, 700), 0.9)
    pair = VerifiedPair(None, (agreement, agreement), None, ({}, {}), None, warp)  # type: ignore[arg-type]
    return Verdict(Verification("fp32", "fp16", (0.05, 0.05), (pair,)), FP16, "emulation")


def test_the_gate_of_dense_networks_asks_for_the_warp_and_not_for_the_same_matches() -> None:
    good = WarpAgreement(np.full(100, 0.1), np.full(100, 0.004))
    assert verdict_of(good).failures == ()
    said = verdict_of(good).checks()
    assert said["precision_warp_within"] == 1.0 and said["precision_warp_median"] == pytest.approx(0.1)
    assert said["precision_kept"] == pytest.approx(0.34)
    for warp, words in (
        (replace(good, distances=np.where(np.arange(100) < 20, 5.0, 0.1)), "80.00% of 100 matches within 1 px"),
        (replace(good, distances=np.full(100, 0.9)), "moves by 0.90 px in the median"),
        (replace(good, certainties=np.full(100, 0.3)), "certainties differ by 0.300"),
    ):
        assert any(words in failure for failure in verdict_of(warp).failures), words
