"""Whether the matches survive a precision: the lowered graph against the fp32 graph, on pairs of images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from matchrt.building.parity import ENOUGH, Arrays, onnx_runner, sample_inputs
from matchrt.errors import InternalError, MatchRTError
from matchrt.export.precision.emulation import emulate
from matchrt.manifest import InputContract

# DESIGN, fidelity: fp16 keeps at least 99 % of the matches within 1 px and 98 to 102 % of the count.
PIXELS = 1.0
MIN_KEPT = 0.99
COUNT_RANGE = (0.98, 1.02)


@dataclass(frozen=True)
class Survival:
    """Matches of all pairs together with a score of at least `score`.

    expected: in fp32; actual: in the other precision; kept: of the expected, those that the other has within 1 px at
    both ends, at a score of at least `score` too.
    """

    score: float
    expected: int
    actual: int
    kept: int

    @property
    def share_kept(self) -> float:
        """kept / expected; 1 where nothing was expected and nothing came."""
        return self.kept / self.expected if self.expected else float(self.actual == 0)

    @property
    def count_ratio(self) -> float:
        """actual / expected; 1 where nothing was expected and nothing came, infinite where something did."""
        if self.expected:
            return self.actual / self.expected
        return 1.0 if self.actual == 0 else float("inf")

    @property
    def passed(self) -> bool:
        """Whether both figures are within the limits."""
        return self.share_kept >= MIN_KEPT and COUNT_RANGE[0] <= self.count_ratio <= COUNT_RANGE[1]

    def __str__(self) -> str:
        return (
            f"from score {self.score:g} on, {self.kept} of {self.expected} matches kept within {PIXELS:g} px "
            f"({self.share_kept:.2%}), count {self.count_ratio:.2%}"
        )


@dataclass(frozen=True)
class GateResult:
    """The figures at every score that was asked for; pairs: how many pairs they are over."""

    precision: str
    pairs: int
    survivals: tuple[Survival, ...]

    @property
    def passed(self) -> bool:
        """Whether every score passes."""
        return all(survival.passed for survival in self.survivals)

    @property
    def expected(self) -> int:
        """Matches of fp32 at the smallest score: the fewer, the less this proves."""
        return max((survival.expected for survival in self.survivals), default=0)

    def checks(self) -> dict[str, float]:
        """For the manifest: `precision_kept`, `precision_count` (the worst of the scores), `precision_matches`."""
        return {
            "precision_matches": float(self.expected),
            "precision_kept": min(s.share_kept for s in self.survivals),
            "precision_count": max((s.count_ratio for s in self.survivals), key=lambda ratio: abs(ratio - 1)),
        }

    def require(self) -> GateResult:
        """Raises `precision-gate` with the figures, or `precision-gate-empty` where there is too little to judge."""
        if self.expected < ENOUGH:
            raise InternalError(
                "precision-gate-empty",
                f"fp32 finds {self.expected} matches in {self.pairs} pairs: too few to judge {self.precision}.",
                "Check that the checkpoint holds trained weights, give image pairs that match, or build with fp32.",
            )
        if not self.passed:
            failed = "; ".join(str(s) for s in self.survivals if not s.passed)
            raise MatchRTError(
                "precision-gate",
                f"{self.precision} loses matches of fp32: {failed} (limits: {MIN_KEPT:.0%} kept, count "
                f"{COUNT_RANGE[0]:.0%} to {COUNT_RANGE[1]:.0%}).",
                "Build with --precision fp32, or accept the loss by forcing the build.",
            )
        return self


def gate(
    reference: onnx.ModelProto,
    lowered: onnx.ModelProto,
    pairs: Iterable[Mapping[str, npt.NDArray[Any]]],
    scores: Sequence[float],
    precision: str = "fp16",
) -> GateResult:
    """Compares the matches of both graphs on the CPU; `lowered` is run as `emulate` has it.

    pairs: inputs by name, as in `parity.sample_inputs`. scores: the engine's threshold, the model's default score.
    Nothing is raised for figures out of limits: `require` does that.
    """
    run, run_lowered = onnx_runner(reference), onnx_runner(emulate(lowered))
    results = [(run(inputs), run_lowered(inputs)) for inputs in pairs]
    survivals = tuple(_survival(results, score) for score in sorted(set(scores)))
    return GateResult(precision, len(results), survivals)


def sample_pairs(contract: InputContract, stride: int, count: int = 3) -> list[Arrays]:
    """The pairs of `parity.sample_inputs` with `count` textures."""
    return [inputs for seed in range(count) for inputs in sample_inputs(contract, stride, seed)]


def _survival(results: Sequence[tuple[Arrays, Arrays]], score: float) -> Survival:
    rows = [
        (_rows(first, score, pair), _rows(second, score, pair))
        for first, second in results
        for pair in range(len(first["num_matches"]))
    ]
    return Survival(
        score,
        sum(len(expected) for expected, _ in rows),
        sum(len(actual) for _, actual in rows),
        sum(_kept(expected, actual) for expected, actual in rows),
    )


def _rows(outputs: Arrays, score: float, pair: int) -> npt.NDArray[np.float64]:
    """[N, 4]: x0, y0, x1, y1 of the matches of a pair of the batch; a score that is NaN is no match."""
    count = int(outputs["num_matches"][pair])
    good = outputs["scores"][pair][:count] >= score
    points = np.concatenate([outputs[name][pair][:count][good] for name in ("keypoints0", "keypoints1")], axis=1)
    return points.astype(np.float64)


def _kept(expected: npt.NDArray[np.float64], actual: npt.NDArray[np.float64]) -> int:
    """How many rows of `expected` have a row of `actual` within PIXELS at both ends."""
    kept = 0
    for start in range(0, len(expected), 256):
        offsets = expected[start : start + 256, None] - actual[None]
        near0 = np.hypot(offsets[..., 0], offsets[..., 1]) <= PIXELS
        near1 = np.hypot(offsets[..., 2], offsets[..., 3]) <= PIXELS
        kept += int(np.any(near0 & near1, axis=1).sum())
    return kept
