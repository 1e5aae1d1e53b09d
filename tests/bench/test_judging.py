"""Engines are run on pairs and compared: rows of a batch, scores, and output that is no matches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.matching import Row, made_outputs

from matchrt.bench.folder import HomographyPair, PlainPair
from matchrt.bench.gate import LIMITS
from matchrt.bench.judging import judge_engine, match_pairs, reference_matches
from matchrt.bench.pairs import JudgedPair
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, InputContract
from matchrt.runtime.calling import CallingSession
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.session import Arrays

SIDE = 640
Answer = Callable[[int], Sequence[Row]]


class Answering(CallingSession):
    """An engine of 640x640 that reads a number off every pair's first pixel and answers as told; it counts its runs."""

    def __init__(self, answer: Answer, batch: int = 1, default_score: float = 0.4) -> None:
        bundled = read_engine("loftr-lite").manifest
        contract = InputContract(1, 8, "letterbox", "area-linear", batch=batch, height=SIDE, width=SIDE)
        matching = replace(bundled.matching, threshold=0.2, default_score=default_score)
        self.manifest: EngineManifest = replace(bundled, input=contract, matching=matching)
        self.answer, self.seen = answer, list[list[int]]()

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """A row of matches for every row of images."""
        numbers = [int(image[0, 0, 0]) for image in inputs["image0"]]
        assert all(len(value) == self.manifest.input.batch for value in inputs.values())
        self.seen.append(numbers)
        return made_outputs(*(self.answer(number) for number in numbers), slots=64)

    def close(self) -> None:
        """Nothing is held."""


def numbered(count: int) -> list[JudgedPair]:
    """Pairs whose first pixel is their number."""
    truth = PlainPair("id", "set", Path("a"), Path("b"), False)
    images = [np.full((SIDE, SIDE), number, np.uint8) for number in range(count)]
    return [JudgedPair(image, image, truth) for image in images]


def grid(number: int, count: int = 20) -> list[Row]:
    """Matches that are far from each other and from those of other numbers."""
    return [(20.0 * index, 100.0 * number, 20.0 * index, 3.0, 0.9 - index / 100) for index in range(count)]


@pytest.mark.parametrize(("batch", "runs"), [(1, [[0], [1], [2]]), (2, [[0, 1], [2, 2]]), (4, [[0, 1, 2, 2]])])
def test_an_engine_gets_as_many_pairs_a_run_as_it_takes(batch: int, runs: list[list[int]]) -> None:
    session, told = Answering(grid, batch), []
    found = list(match_pairs(session, numbered(3), lambda: told.append(len(told))))
    assert session.seen == runs and told == [0, 1, 2]
    rows = [matches.keypoints0[0, 1] for matches in found if not isinstance(matches, MatchRTError)]
    assert rows == [0.0, 100.0, 200.0]


def test_every_row_of_a_batch_is_compared_with_its_own_pair() -> None:
    pairs = numbered(3)
    expected = reference_matches(Answering(grid), pairs, lambda: None)

    def third_is_lost(number: int) -> Sequence[Row]:
        return grid(number) if number < 2 else grid(4)

    verdict = judge_engine(expected, Answering(third_is_lost, 2), pairs, LIMITS["fp16"], ("a", "b"), lambda: None)
    kept = [pair.agreement.share(1.0) for pair in verdict.verification.pairs]
    assert kept == [1.0, 1.0, 0.0] and expected.count() == 60


REFERENCE: list[Row] = [(8, 8, 20, 20, 0.9), (16, 8, 30, 20, 0.8), (24, 8, 40, 20, 0.5), (32, 8, 50, 20, 0.3)]
OTHER: list[Row] = [(8, 8, 20.9, 20, 0.9), (16, 8, 31.1, 20, 0.8), (24, 8, 40, 20, 0.39), (33.1, 8, 50, 20, 0.3)]


def test_both_ends_and_the_score_count() -> None:
    pairs = numbered(1)
    expected = reference_matches(Answering(lambda _: REFERENCE), pairs, lambda: None)
    verdicts = [
        judge_engine(expected, Answering(lambda _: OTHER), pairs, LIMITS[precision], ("a", "b"), lambda: None)
        for precision in ("fp16", "int8")
    ]
    low, high = verdicts[0].verification.agreements
    assert (low.expected, low.actual, low.kept[1]) == (4, 4, 2)
    assert (high.expected, high.actual, high.kept[1]) == (3, 2, 1)
    assert verdicts[1].verification.agreements == (high,) and verdicts[1].verification.agreement == high


def test_a_reference_of_another_model_counts_from_its_own_scores_on() -> None:
    pairs = numbered(1)
    expected = reference_matches(Answering(lambda _: REFERENCE, default_score=0.85), pairs, lambda: None)
    verdict = judge_engine(expected, Answering(lambda _: OTHER), pairs, LIMITS["int8"], ("a", "b"), lambda: None)
    assert (verdict.verification.agreement.expected, verdict.verification.agreement.actual) == (1, 2)
    assert expected.count() == 1


def test_output_with_nan_keeps_nothing_of_its_pair_and_is_named() -> None:
    pairs = numbered(2)
    expected = reference_matches(Answering(grid), pairs, lambda: None)

    def second_is_broken(number: int) -> Sequence[Row]:
        return grid(number) if number == 0 else [(np.nan, 8, 8, 8, 0.95), *grid(number)]

    verdict = judge_engine(expected, Answering(second_is_broken), pairs, LIMITS["int8"], ("a", "b"), lambda: None)
    good, broken = verdict.verification.pairs
    assert good.invalid is None and broken.agreement.actual == 0 and "NaN" in (broken.invalid or "")
    assert any("unusable output in 1 of 2 pairs" in failure for failure in verdict.failures)
    assert verdict.verification.worst(5) == [good] and "NaN" in broken.to_json()["invalid"]
    with pytest.raises(MatchRTError) as caught:
        reference_matches(Answering(second_is_broken), pairs, lambda: None)
    assert caught.value.code == "matches-invalid"


def test_accuracy_is_that_of_what_users_get() -> None:
    size, name = (SIDE, SIDE), Path("a")
    truth = HomographyPair("id", "set", name, name, np.eye(3), size, size)
    pairs = [replace(pair, truth=truth) for pair in numbered(1)]
    right: list[Row] = [(50, 50, 50, 50, 0.9), (90, 50, 90, 50, 0.8)]
    wrong: list[Row] = [(90, 90, 10, 10, 0.7), (90, 10, 10, 90, 0.3)]
    expected = reference_matches(Answering(lambda _: [*right, *wrong]), pairs, lambda: None)
    session = Answering(lambda _: [*right, (9, 9, 9, 9, 0.7), *wrong[1:]])
    verdict = judge_engine(expected, session, pairs, LIMITS["fp16"], ("a", "b"), lambda: None)
    assert verdict.verification.accuracy == (pytest.approx(2 / 3), 1.0)
    bare = judge_engine(expected, session, pairs, LIMITS["fp16"], ("a", "b"), lambda: None, accuracy=False)
    assert bare.verification.accuracy is None
