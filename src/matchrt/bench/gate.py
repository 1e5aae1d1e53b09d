"""What a variant may lose before `build` refuses it."""

from __future__ import annotations

from dataclasses import dataclass

from matchrt.bench.verify import Verification
from matchrt.errors import InternalError, MatchRTError

# Fewer matches than this prove nothing.
ENOUGH = 20


@dataclass(frozen=True)
class Limits:
    """kept: smallest share within 1 px. count: range of the count ratio. accuracy: largest loss, as a share."""

    kept: float
    count: tuple[float, float]
    accuracy: float


# int8 states its cost; beyond this it is not the same matcher any more.
INT8 = Limits(kept=0.95, count=(0.9, 1.1), accuracy=0.02)
# DESIGN, fidelity.
FP16 = Limits(kept=0.99, count=(0.98, 1.02), accuracy=0.02)
LIMITS = {"fp32": FP16, "fp16": FP16, "int8": INT8, "fp8": INT8}


@dataclass(frozen=True)
class Verdict:
    """The figures, the limits, and what is beyond them in words."""

    verification: Verification
    limits: Limits

    @property
    def failures(self) -> tuple[str, ...]:
        """Empty where everything is within the limits."""
        agreement, accuracy, limits = self.verification.agreement, self.verification.accuracy, self.limits
        found = []
        if agreement.share(1.0) < limits.kept:
            found.append(f"{agreement.share(1.0):.2%} of {agreement.expected} matches kept within 1 px "
                         f"(limit {limits.kept:.0%})")  # fmt: skip
        low, high = limits.count
        if not low <= agreement.count_ratio <= high:
            found.append(f"count {agreement.count_ratio:.2%} (limits {low:.0%} to {high:.0%})")
        if accuracy is not None and round(accuracy[0] - accuracy[1], 6) > limits.accuracy:
            found.append(
                f"accuracy {accuracy[1]:.2%} instead of {accuracy[0]:.2%} (limit {100 * limits.accuracy:g} points)"
            )
        return tuple(found)

    def checks(self) -> dict[str, float]:
        """For the manifest."""
        agreement, accuracy = self.verification.agreement, self.verification.accuracy
        found = {
            "precision_matches": float(agreement.expected),
            "precision_kept": agreement.share(1.0),
            "precision_count": agreement.count_ratio,
            "precision_pairs": float(len(self.verification.pairs)),
            "precision_kept_3px": agreement.share(3.0),
        }
        if accuracy is not None:
            found |= {"precision_accuracy_fp32": accuracy[0], "precision_accuracy": accuracy[1]}
        return found

    def require(self, precision: str) -> None:
        """Raises `precision-gate` with the figures, or `precision-gate-empty` where there is too little to judge."""
        agreement = self.verification.agreement
        if agreement.expected < ENOUGH:
            raise InternalError(
                "precision-gate-empty",
                f"fp32 finds {agreement.expected} matches in {len(self.verification.pairs)} pairs: too few to judge "
                f"{precision}.",
                "Check that the checkpoint holds trained weights, give pairs that match with --calibration, or build "
                "with fp32.",
            )
        if self.failures:
            raise MatchRTError(
                "precision-gate",
                f"{precision} loses matches of fp32: {'; '.join(self.failures)}.",
                "`matchrt verify --per-block` says what costs them and --keep-fp32 holds it back; or build with fp16 "
                "or fp32, or accept the loss with --accept-accuracy-loss.",
            )
