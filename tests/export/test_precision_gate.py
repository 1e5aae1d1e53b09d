"""The gate: what it measures, what it lets through, and what it stops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from matchrt.building.fp16_gate import GateResult, Survival, gate, sample_pairs
from support.broken import with_saturated_softmax

import matchrt
from matchrt.building.parity import Arrays
from matchrt.errors import InternalError, MatchRTError
from matchrt.export import precision
from matchrt.export.to_onnx import ExportOptions, input_contract
from matchrt.families.base import Preprocess
from matchrt.manifest import Profile

SCORES = (0.2, 0.4)


@pytest.fixture(scope="module")
def lite() -> onnx.ModelProto:
    return onnx.load(Path(matchrt.__file__).parent / "assets" / "loftr-lite.onnx")


@pytest.fixture(scope="module")
def pairs() -> list[Arrays]:
    size = (192, 256)
    return sample_pairs(
        input_contract(Preprocess(1, 8), ExportOptions(*size, profile=Profile((64, 64), size, size))), 8, count=1
    )


def test_the_bundled_model_passes(lite: onnx.ModelProto, pairs: list[Arrays]) -> None:
    lowered, _ = precision.apply(lite, "fp16", "loftr")
    result = gate(lite, lowered, pairs, SCORES).require()
    assert [s.score for s in result.survivals] == [0.2, 0.4] and result.pairs == len(pairs) == 2
    assert result.expected > 100
    checks = result.checks()
    assert set(checks) == {"precision_matches", "precision_kept", "precision_count"}
    assert checks["precision_kept"] >= 0.99


def test_fp32_against_itself_is_perfect(lite: onnx.ModelProto, pairs: list[Arrays]) -> None:
    for survival in gate(lite, lite, pairs[:1], SCORES).survivals:
        assert survival.expected == survival.actual == survival.kept > 0


def test_a_saturated_softmax_is_stopped(lite: onnx.ModelProto, pairs: list[Arrays]) -> None:
    result = gate(lite, with_saturated_softmax(lite), pairs[:1], SCORES)
    assert not result.passed
    with pytest.raises(MatchRTError) as caught:
        result.require()
    assert caught.value.code == "precision-gate" and "--precision fp32" in caught.value.remedy
    assert f"{result.survivals[0].kept} of {result.survivals[0].expected}" in caught.value.message


@pytest.mark.parametrize(
    ("expected", "actual", "kept", "passed"),
    [
        (1000, 1000, 990, True),
        (1000, 1000, 989, False),
        (1000, 979, 979, False),
        (1000, 981, 990, True),
        (1000, 1021, 1000, False),
        (0, 0, 0, True),
        (0, 5, 0, False),
    ],
)
def test_limits(expected: int, actual: int, kept: int, passed: bool) -> None:
    assert Survival(0.2, expected, actual, kept).passed is passed


def test_too_few_matches_prove_nothing() -> None:
    with pytest.raises(InternalError) as caught:
        GateResult("fp16", 2, (Survival(0.2, 3, 3, 3),)).require()
    assert caught.value.code == "precision-gate-empty"


def _outputs(rows: list[tuple[float, ...]]) -> Arrays:
    values = np.array(rows, np.float32).reshape(-1, 5)
    arrays = {"keypoints0": values[None, :, :2], "keypoints1": values[None, :, 2:4], "scores": values[None, :, 4]}
    return {**arrays, "num_matches": np.array([len(values)], np.int32)}


def test_both_ends_and_the_score_count(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = _outputs([(8, 8, 20, 20, 0.9), (16, 8, 30, 20, 0.8), (24, 8, 40, 20, 0.5), (32, 8, 50, 20, 0.3)])
    other = _outputs([(8, 8, 20.9, 20, 0.9), (16, 8, 31.1, 20, 0.8), (24, 8, 40, 20, 0.39), (33.1, 8, 50, 20, 0.3)])
    runs = iter([lambda _: reference, lambda _: other])
    monkeypatch.setattr("matchrt.building.fp16_gate.onnx_runner", lambda _: next(runs))
    monkeypatch.setattr("matchrt.building.fp16_gate.emulate", lambda model: model)
    low, high = gate(onnx.ModelProto(), onnx.ModelProto(), [{}], (0.4, 0.2)).survivals
    assert (low.score, low.expected, low.actual, low.kept) == (0.2, 4, 4, 2)
    assert (high.score, high.expected, high.actual, high.kept) == (0.4, 3, 2, 1)
