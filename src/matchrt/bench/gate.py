"""What a variant may lose: the one verdict of `build` and `verify` on every precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from matchrt.bench.agreement import ENOUGH, Agreement
from matchrt.bench.verify import Verification
from matchrt.errors import InternalError, MatchRTError
from matchrt.manifest import MatchContract

_OR_ACCEPT = "or accept the loss with --accept-accuracy-loss"


@dataclass(frozen=True)
class Limits:
    """What a precision may lose, and at which scores it is judged.

    kept: smallest share of the reference's matches within 1 px. count: range of the count ratio. accuracy: largest
    loss of accuracy, as a share. at_threshold: judge all matches that the engine returns too, not only those from the
    model's default score on. remedy: what to do about an engine that is beyond its limits.
    """

    kept: float
    count: tuple[float, float]
    accuracy: float
    at_threshold: bool
    remedy: str

    def scores(self, matching: MatchContract) -> tuple[float, ...]:
        """The scores from which on matches are counted; the last one is what users get unless they ask for less."""
        return (*((matching.threshold,) if self.at_threshold else ()), matching.default_score)


# DESIGN, fidelity. fp16 promises the same matches, so it is judged at the engine's threshold too: weak matches, which
# users may ask for, lie near the threshold, where rounding shows first.
FP16 = Limits(
    kept=0.99,
    count=(0.98, 1.02),
    accuracy=0.02,
    at_threshold=True,
    remedy=f"Build with --precision fp32, {_OR_ACCEPT}.",
)
# int8 states its cost; beyond this it is not the same matcher any more. It is judged on what users get, from the
# default score on: near the threshold 8 bits exchange matches that are mostly wrong in fp32 too.
INT8 = Limits(
    kept=0.95,
    count=(0.9, 1.1),
    accuracy=0.02,
    at_threshold=False,
    remedy="`matchrt verify --per-block` says what costs matches and --keep-fp32 holds it back; or build with "
    f"--precision fp16 or fp32, {_OR_ACCEPT}.",
)
# An fp32 engine of another backend has to keep what fp16 keeps, at least.
LIMITS = {"fp32": FP16, "fp16": FP16, "int8": INT8, "fp8": INT8}


@dataclass(frozen=True)
class Verdict:
    """The figures, the limits, and what is beyond them in words."""

    verification: Verification
    limits: Limits

    @property
    def matches(self) -> int:
        """Matches of the reference at the lowest score: the fewer, the less this proves."""
        return max(agreement.expected for agreement in self.verification.agreements)

    @property
    def enough(self) -> bool:
        """Whether the reference finds enough matches to judge by."""
        return self.matches >= ENOUGH

    @property
    def too_few(self) -> str:
        """What is said where there are not `enough`."""
        return f"fp32 finds {self.matches} matches in {len(self.verification.pairs)} pairs: too few to judge"

    @property
    def failures(self) -> tuple[str, ...]:
        """Empty where there is enough to judge and everything is within the limits."""
        if not self.enough:
            return (self.too_few,)
        found = self._invalid()
        for score, agreement in zip(self.verification.scores, self.verification.agreements, strict=True):
            found += self._beyond(score, agreement)
        found += self._less_accurate()
        return tuple(dict.fromkeys(found))  # the threshold may be the default score

    def _invalid(self) -> list[str]:
        reasons = [pair.invalid for pair in self.verification.pairs if pair.invalid is not None]
        if not reasons:
            return []
        return [f"unusable output in {len(reasons)} of {len(self.verification.pairs)} pairs: {reasons[0]}"]

    def _beyond(self, score: float, agreement: Agreement) -> list[str]:
        found = []
        if agreement.share(1.0) < self.limits.kept:
            found.append(
                f"from score {score:g} on, {agreement.share(1.0):.2%} of {agreement.expected} matches kept within 1 px "
                f"(limit {self.limits.kept:.0%})"
            )
        low, high = self.limits.count
        if not low <= agreement.count_ratio <= high:
            found.append(f"from score {score:g} on, count {agreement.count_ratio:.2%} (limits {low:.0%} to {high:.0%})")
        return found

    def _less_accurate(self) -> list[str]:
        accuracy, limit = self.verification.accuracy, self.limits.accuracy
        if accuracy is None or round(accuracy[0] - accuracy[1], 6) <= limit:
            return []
        return [f"accuracy {accuracy[1]:.2%} instead of {accuracy[0]:.2%} (limit {100 * limit:g} points)"]

    def checks(self) -> dict[str, float]:
        """For the manifest: the figures at the score where each is worst; those that are not finite are left out."""
        accuracy = self.verification.accuracy
        found = {
            "precision_matches": float(self.matches),
            "precision_kept": self._worst(lambda agreement: agreement.share(1.0)),
            "precision_count": max(
                (agreement.count_ratio for agreement in self.verification.agreements), key=lambda r: abs(r - 1)
            ),
            "precision_pairs": float(len(self.verification.pairs)),
            "precision_kept_3px": self._worst(lambda agreement: agreement.share(3.0)),
        }
        if accuracy is not None:
            found |= {"precision_accuracy_fp32": accuracy[0], "precision_accuracy": accuracy[1]}
        # JSON has no infinity, which a count is where fp32 finds nothing and the loss was accepted.
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _worst(self, figure: Callable[[Agreement], float]) -> float:
        return min(figure(agreement) for agreement in self.verification.agreements)

    def require(self, precision: str) -> None:
        """Raises `precision-gate` with the figures, or `precision-gate-empty` where there is too little to judge."""
        if not self.enough:
            raise InternalError(
                "precision-gate-empty",
                f"{self.too_few} {precision}.",
                "Check that the checkpoint holds trained weights, give pairs that match (--calibration of int8 and "
                "fp8, --pairs of `matchrt verify`), or build with fp32.",
            )
        if self.failures:
            raise MatchRTError(
                "precision-gate", f"{precision} loses matches of fp32: {'; '.join(self.failures)}.", self.limits.remedy
            )
