"""One verdict for all precisions: what is judged, what is beyond the limits, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from matchrt.bench.agreement import Agreement
from matchrt.bench.folder import PlainPair
from matchrt.bench.gate import LIMITS, Verdict
from matchrt.bench.pairs import JudgedPair
from matchrt.bench.verify import Verification, VerifiedPair
from matchrt.bench.verify_report import to_json, verdict_line
from matchrt.errors import MatchRTError
from matchrt.manifest import MatchContract

STRICT, LOOSE = ("fp32", "fp16"), ("int8", "fp8")
MATCHING = MatchContract(2048, threshold=0.2, border=2, mutual=True, coarse_stride=8, default_score=0.4)
PAIR = JudgedPair(None, None, PlainPair("id", "set", Path("a"), Path("b"), False))
GOOD = Agreement(1000, 1000, (1000, 1000, 1000), 1.0)


def verdict_of(
    precision: str, *agreements: Agreement, accuracy: tuple[float, float] | None = None, invalid: str | None = None
) -> Verdict:
    """Of one pair. agreements: at every score that is judged; one is taken for all."""
    limits = LIMITS[precision]
    scores = limits.scores(MATCHING)
    every = agreements if len(agreements) == len(scores) else agreements * len(scores)
    pair = VerifiedPair(PAIR, every, accuracy, ({}, {}), invalid)
    return Verdict(Verification("fp32", precision, scores, (pair,)), limits)


def counted(kept: int, actual: int) -> Agreement:
    return Agreement(1000, actual, (kept, kept, kept + 1), 1.0)


def test_fp16_is_judged_at_both_scores_and_int8_at_what_users_get() -> None:
    assert {LIMITS[precision].scores(MATCHING) for precision in STRICT} == {(0.2, 0.4)}
    assert {LIMITS[precision].scores(MATCHING) for precision in LOOSE} == {(0.4,)}


@pytest.mark.parametrize(
    ("precisions", "kept", "actual", "accuracy", "word"),
    [
        (STRICT, 990, 1000, (0.9, 0.88), None),
        (STRICT, 989, 1000, None, "98.90% of 1000 matches kept within 1 px"),
        (STRICT, 990, 979, None, "count 97.90%"),
        (STRICT, 990, 981, None, None),
        (STRICT, 1000, 1021, None, "count 102.10%"),
        (LOOSE, 950, 1000, (0.9, 0.88), None),
        (LOOSE, 949, 1000, None, "94.90% of 1000 matches kept within 1 px"),
        (LOOSE, 1000, 899, None, "count 89.90%"),
        (LOOSE, 1000, 1101, None, "count 110.10%"),
        ((*STRICT, *LOOSE), 1000, 1000, (0.9, 0.879), "accuracy 87.90% instead of 90.00%"),
    ],
)
def test_limits(
    precisions: tuple[str, ...], kept: int, actual: int, accuracy: tuple[float, float] | None, word: str | None
) -> None:
    for precision in precisions:
        verdict = verdict_of(precision, counted(kept, actual), accuracy=accuracy)
        if word is None:
            assert verdict.failures == () and verdict_line(verdict) == "gate: passed"
            verdict.require(precision)
            continue
        assert any(word in failure for failure in verdict.failures) and word in verdict_line(verdict)
        with pytest.raises(MatchRTError) as caught:
            verdict.require(precision)
        assert caught.value.code == "precision-gate" and word in caught.value.message
        assert caught.value.message.startswith(precision)
        assert "--accept-accuracy-loss" in caught.value.remedy and "--precision fp" in caught.value.remedy


@pytest.mark.parametrize("bad", [0, 1])
def test_fp16_has_to_pass_at_every_score(bad: int) -> None:
    agreements = [GOOD, GOOD]
    agreements[bad] = counted(980, 1000)
    (failure,) = verdict_of("fp16", *agreements).failures
    assert failure.startswith(f"from score {MATCHING.threshold if bad == 0 else MATCHING.default_score:g} on")


def test_a_threshold_that_is_the_default_score_is_told_once() -> None:
    limits, matching = LIMITS["fp16"], replace(MATCHING, default_score=0.2)
    pair = VerifiedPair(PAIR, (counted(900, 1000),) * 2, None, ({}, {}))
    assert len(Verdict(Verification("fp32", "fp16", limits.scores(matching), (pair,)), limits).failures) == 1


@pytest.mark.parametrize("precision", [*STRICT, *LOOSE])
def test_the_manifest_gets_the_same_figures_of_every_precision(precision: str) -> None:
    checks = verdict_of(precision, counted(990, 995), accuracy=(0.9, 0.89)).checks()
    assert checks == {
        "precision_matches": 1000.0,
        "precision_kept": 0.99,
        "precision_count": 0.995,
        "precision_pairs": 1.0,
        "precision_kept_3px": 0.991,
        "precision_accuracy_fp32": 0.9,
        "precision_accuracy": 0.89,
    }
    assert "precision_accuracy" not in verdict_of(precision, GOOD).checks()


def test_the_manifest_gets_no_infinity() -> None:
    """JSON has none; a count is infinite where fp32 finds nothing and somebody accepted the loss."""
    checks = verdict_of("fp16", *[Agreement(0, 5, (0, 0, 0), 1.0)] * 2).checks()
    assert "precision_count" not in checks and checks["precision_kept"] == 0.0


def test_the_manifest_gets_the_worst_score() -> None:
    fewer = Agreement(100, 103, (90, 95, 96), 1.0)
    for agreements in ((GOOD, fewer), (fewer, GOOD)):
        checks = verdict_of("fp16", *agreements).checks()
        assert checks["precision_matches"] == 1000 and checks["precision_kept"] == 0.95
        assert checks["precision_count"] == 1.03 and checks["precision_kept_3px"] == 0.96


@pytest.mark.parametrize("precision", [*STRICT, *LOOSE])
def test_too_few_matches_prove_nothing_and_the_verdict_says_so(precision: str) -> None:
    verdict = verdict_of(precision, Agreement(19, 19, (19, 19, 19), 1.0))
    assert not verdict.enough and verdict_line(verdict).startswith("gate: no verdict, fp32 finds")
    assert to_json(verdict, None)["gate"] == {
        "passed": False,
        "failures": list(verdict.failures),
        "judged": "",
        "reason": None,
    }
    with pytest.raises(MatchRTError) as caught:
        verdict.require(precision)
    assert caught.value.code == "precision-gate-empty" and "19 matches in 1 pairs" in caught.value.message
    verdict_of(precision, Agreement(20, 20, (20, 20, 20), 1.0)).require(precision)


def test_matches_out_of_nothing_fail() -> None:
    nothing = Agreement(0, 5, (0, 0, 0), math.nan)
    assert len(verdict_of("fp16", GOOD, nothing).failures) == 2
    assert verdict_of("fp16", GOOD, Agreement(0, 0, (0, 0, 0), math.nan)).failures == ()


def test_an_output_that_is_no_matches_fails_whatever_the_figures() -> None:
    (failure,) = verdict_of("int8", GOOD, invalid="keypoints0 holds NaN").failures
    assert failure == "unusable output in 1 of 1 pairs: keypoints0 holds NaN"
