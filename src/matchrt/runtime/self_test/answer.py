"""An engine's answer to its self-test, as it is stored, and how another answer is compared with it.

`examples/cpp/include/matchrt/self_test.h` compares in the same way.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.manifest import SelfTest, decode_rows
from matchrt.runtime.nearest import FloatArray, nearest_rows

Outputs = Mapping[str, npt.NDArray[Any]]
# An end of a match of a dense warp is a pixel of the image that the warp belongs to: in the stored answer, which was
# computed in fp32, a whole number but for rounding. GPUs round it more: on an H200, an fp16 engine of 560 x 560 had it
# up to 0.07 px off, as if it had gone through float16.
_ON_PIXEL, _SAME_PIXEL = 0.05, 0.3
# Two dense answers are compared where they chose the same pixel. With fewer of these, nothing is proven.
ENOUGH = 20


@dataclass(frozen=True)
class SelfTestResult:
    """How an answer differs from the stored one.

    compared: number of matches that could be compared.
    within: the share (0..1) of them that the engine has within 1 px.
    pixels: the median of the distances of those that it has, in pixels of the input; infinite if it has none.
    score: the mean difference of their scores; infinite if it has none.
    """

    compared: int
    within: float
    pixels: float
    score: float

    def failures(self, test: SelfTest) -> tuple[str, ...]:
        """What is beyond the test's limits, in words; empty if the engine passes."""
        found = []
        if self.compared < ENOUGH:
            found.append(f"only {self.compared} matches can be compared (at least {ENOUGH} are needed)")
        if not self.within >= test.within:
            found.append(f"{self.within:.1%} of {self.compared} matches within 1 px (limit {test.within:.1%})")
        if not self.pixels <= test.pixels:
            found.append(f"median distance {self.pixels:.3g} px (limit {test.pixels:.3g})")
        if not self.score <= test.score:
            found.append(f"mean score difference {self.score:.3g} (limit {test.score:.3g})")
        return tuple(found)

    def __str__(self) -> str:
        return (
            f"{self.within:.1%} of {self.compared} matches within 1 px, median {self.pixels:.3g} px, scores differ by "
            f"{self.score:.3g}"
        )


def encode_answer(matches: FloatArray) -> str:
    """Base64 of matches `[N, 5]`: x0, y0, x1, y1 in pixels and the score, stored as little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(matches, "<f4").tobytes()).decode("ascii")


def decode_answer(text: str) -> FloatArray:
    """Matches float64 `[N, 5]` of `encode_answer`. Error: ValueError if the text is not that."""
    return np.frombuffer(decode_rows(text), "<f4").reshape(-1, 5).astype(np.float64)


def matches_of(outputs: Outputs, row: int = 0) -> FloatArray:
    """The matches in one row of an engine's outputs, float64 `[N, 5]`, best first. A bad count gives no matches."""
    count, most = int(outputs["num_matches"][row]), outputs["scores"].shape[1]
    count = count if 0 <= count <= most else 0
    columns = (outputs["keypoints0"][row, :count], outputs["keypoints1"][row, :count], outputs["scores"][row, :count])
    return np.column_stack([np.asarray(column, np.float64) for column in columns])


def compare_answer(test: SelfTest, outputs: Outputs) -> SelfTestResult:
    """The worst figures of all rows of a batch, each by itself: an engine must compute every row right.

    outputs: of a run on `self_test_inputs`, arrays `[B, ...]` by name. Raises nothing: `SelfTest` has checked the
    stored answer.
    """
    expected = decode_answer(test.answer)
    compare = _compare_warp if test.kind == "warp" else _compare_matches
    results = [compare(expected, matches_of(outputs, row)) for row in range(outputs["num_matches"].shape[0])]
    return SelfTestResult(
        compared=min(result.compared for result in results),
        within=min(result.within for result in results),
        pixels=max(result.pixels for result in results),
        score=max(result.score for result in results),
    )


def _compare_matches(expected: FloatArray, actual: FloatArray) -> SelfTestResult:
    """Each expected match against the nearest actual one."""
    nearest, distances = nearest_rows(expected[:, :4], actual[:, :4])
    if not len(actual):
        return SelfTestResult(len(expected), 0.0, math.inf, math.inf)
    return _result(distances, np.abs(expected[:, 4] - actual[nearest, 4]))


def _compare_warp(expected: FloatArray, actual: FloatArray) -> SelfTestResult:
    """The other ends of matches whose pixel both sides chose."""
    distances, scores = [np.zeros(0)], [np.zeros(0)]
    for chosen, other in ((slice(0, 2), slice(2, 4)), (slice(2, 4), slice(0, 2))):
        ours = expected[_on_pixel(expected[:, chosen])]
        nearest, gaps = nearest_rows(ours[:, chosen], actual[:, chosen])
        same = gaps < _SAME_PIXEL
        partner = actual[nearest[same]]
        with np.errstate(invalid="ignore"):
            distances.append(np.hypot(*(ours[same][:, other] - partner[:, other]).T))
        scores.append(np.abs(ours[same][:, 4] - partner[:, 4]))
    return _result(np.concatenate(distances), np.concatenate(scores))


def _on_pixel(points: FloatArray) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):  # infinity less infinity
        near: npt.NDArray[np.bool_] = np.abs(points - np.rint(points)) < _ON_PIXEL
    return np.asarray(near.all(axis=1))


def _result(distances: FloatArray, scores: FloatArray) -> SelfTestResult:
    near = distances <= 1.0
    if not near.any():
        return SelfTestResult(len(distances), 0.0, math.inf, math.inf)
    score = float(np.where(np.isnan(scores[near]), np.inf, scores[near]).mean())
    return SelfTestResult(len(distances), float(near.mean()), float(np.median(distances[near])), score)
