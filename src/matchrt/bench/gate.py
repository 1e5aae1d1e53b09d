"""The gate: how much a variant may lose. `build` and `verify` use the same verdict for every precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from matchrt.bench.agreement import ENOUGH, Agreement
from matchrt.bench.verify import Verification
from matchrt.errors import MatchRTError
from matchrt.manifest import MatchContract

# The place of a judgement that no hardware with the engine's precision made.
EMULATION = "emulation"
_OR_ACCEPT = "or accept the loss with --accept-accuracy-loss"


@dataclass(frozen=True)
class WarpLimits:
    """How far a dense engine's matches may be from the warp of its reference (`bench.warp_agreement`).

    within: smallest share (0..1) of the matches within 1 px of it.
    median: largest median distance in pixels.
    certainty: largest mean difference of the certainty.
    """

    within: float
    median: float
    certainty: float


@dataclass(frozen=True)
class Limits:
    """What a precision may lose, and at which scores it is judged.

    kept: smallest share (0..1) of the reference's matches that the engine must have within 1 px.
    count: smallest and largest ratio of the engine's number of matches to the reference's.
    accuracy: largest loss of accuracy, as a difference of shares (0..1).
    at_threshold: whether all matches that the engine returns are judged too, not only those from the model's default
        score on.
    remedy: what to do about an engine that is beyond its limits.
    warp: the limits of dense networks, which take the place of `kept`.
    """

    kept: float
    count: tuple[float, float]
    accuracy: float
    at_threshold: bool
    remedy: str
    warp: WarpLimits

    def scores(self, matching: MatchContract) -> tuple[float, ...]:
        """The smallest scores at which matches are counted. The last one is the default score, which users get."""
        return (*((matching.threshold,) if self.at_threshold else ()), matching.default_score)


# fp16 promises the same matches. So it is judged at the engine's threshold too: users may ask for weak matches, and
# rounding shows in these first. Of dense networks, the yardstick is the official code under autocast: with random
# weights, its warp moves by 0.88 px in the median, and 44 % of it by more than 1 px (docs/gpu-figures.md).
FP16 = Limits(
    kept=0.99,
    count=(0.98, 1.02),
    accuracy=0.02,
    at_threshold=True,
    remedy=f"Build with --precision fp32, {_OR_ACCEPT}.",
    warp=WarpLimits(within=0.9, median=0.5, certainty=0.02),
)
# int8 states its cost; beyond these limits it is another matcher. It is judged from the default score on, which is what
# users get. Near the threshold, 8 bits exchange matches that are mostly wrong in fp32 too.
INT8 = Limits(
    kept=0.95,
    count=(0.9, 1.1),
    accuracy=0.02,
    at_threshold=False,
    remedy="Find the parts that cost matches with `matchrt verify --per-block` and keep them in floating point with "
    f"--keep-fp32; or build with --precision fp16 or fp32, {_OR_ACCEPT}.",
    warp=WarpLimits(within=0.8, median=0.8, certainty=0.05),
)
# An fp32 engine of another backend must keep at least what fp16 keeps.
LIMITS = {"fp32": FP16, "fp16": FP16, "int8": INT8, "fp8": INT8}


def judged_how(where: str) -> str:
    """How a place of judgement is said: `by emulation`, or `on` the device and backend."""
    return f"by {where}" if where == EMULATION else f"on {where}"


@dataclass(frozen=True)
class Verdict:
    """The gate's answer on one engine.

    verification: the figures of all pairs.
    limits: what the figures are compared with.
    where: where the engine was run: `emulation`, or the device and backend; empty if that is not known.
    reason: why an engine that fails does so, as a sentence; None if that is not known.
    """

    verification: Verification
    limits: Limits
    where: str = ""
    reason: str | None = None

    @property
    def because(self) -> str:
        """The reason, with a space before it; empty if it is not known."""
        return "" if self.reason is None else f" {self.reason}"

    @property
    def matches(self) -> int:
        """Number of the reference's matches at the lowest score. The fewer there are, the less the verdict proves."""
        return max(agreement.expected for agreement in self.verification.agreements)

    @property
    def enough(self) -> bool:
        """Whether the reference finds enough matches for a verdict."""
        return self.matches >= ENOUGH

    @property
    def too_few(self) -> str:
        """The sentence that says that there are not `enough` matches."""
        return f"fp32 finds {self.matches} matches in {len(self.verification.pairs)} pairs: too few to judge"

    @property
    def failures(self) -> tuple[str, ...]:
        """What is beyond the limits, in words. Empty if there are `enough` matches and all figures are within them."""
        if not self.enough:
            return (self.too_few,)
        found = self._invalid()
        for score, agreement in zip(self.verification.scores, self.verification.agreements, strict=True):
            found += self._beyond(score, agreement)
        found += self._warped() + self._less_accurate()
        return tuple(dict.fromkeys(found))  # the threshold may be the default score

    def _invalid(self) -> list[str]:
        reasons = [pair.invalid for pair in self.verification.pairs if pair.invalid is not None]
        if not reasons:
            return []
        return [f"unusable output in {len(reasons)} of {len(self.verification.pairs)} pairs: {reasons[0]}"]

    def _beyond(self, score: float, agreement: Agreement) -> list[str]:
        found = []
        if self.verification.warp is None and agreement.share(1.0) < self.limits.kept:
            found.append(
                f"from score {score:g} on, {agreement.share(1.0):.2%} of {agreement.expected} matches kept within 1 px "
                f"(limit {self.limits.kept:.0%})"
            )
        low, high = self.limits.count
        if not low <= agreement.count_ratio <= high:
            found.append(f"from score {score:g} on, count {agreement.count_ratio:.2%} (limits {low:.0%} to {high:.0%})")
        return found

    def _warped(self) -> list[str]:
        warp, limits = self.verification.warp, self.limits.warp
        found: list[str] = []
        if warp is None:
            return found
        if warp.share(1.0) < limits.within:
            found.append(
                f"{warp.share(1.0):.2%} of {len(warp.distances)} matches within 1 px of fp32's warp "
                f"(limit {limits.within:.0%})"
            )
        if warp.median > limits.median:
            found.append(f"the warp moves by {warp.median:.2f} px in the median (limit {limits.median:g} px)")
        if warp.certainty > limits.certainty:
            found.append(f"certainties differ by {warp.certainty:.3f} on average (limit {limits.certainty:g})")
        return found

    def _less_accurate(self) -> list[str]:
        accuracy, limit = self.verification.accuracy, self.limits.accuracy
        if accuracy is None or round(accuracy[0] - accuracy[1], 6) <= limit:
            return []
        return [f"accuracy {accuracy[1]:.2%} instead of {accuracy[0]:.2%} (limit {100 * limit:g} points)"]

    def checks(self) -> dict[str, float]:
        """The figures for the manifest, each at the score where it is worst. Shares and ratios are 0..1.

        A figure that is not finite is left out.
        """
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
        if (warp := self.verification.warp) is not None:
            found |= {
                "precision_warp_within": warp.share(1.0),
                "precision_warp_median": warp.median,
                "precision_warp_certainty": warp.certainty,
            }
        if accuracy is not None:
            found |= {"precision_accuracy_fp32": accuracy[0], "precision_accuracy": accuracy[1]}
        # JSON has no infinity, which a count is where fp32 finds nothing and the loss was accepted.
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _worst(self, figure: Callable[[Agreement], float]) -> float:
        return min(figure(agreement) for agreement in self.verification.agreements)

    def require(self, precision: str) -> None:
        """Raises an error unless the engine passes. precision: the engine's, for the message.

        Errors: precision-gate, with the figures; precision-gate-empty if there are too few matches for a verdict.
        """
        if not self.enough:
            raise MatchRTError(
                "precision-gate-empty",
                f"{self.too_few} {precision}.",
                "Check that the checkpoint holds trained weights, give pairs that match (--calibration of int8 and "
                "fp8, --pairs of `matchrt verify`), or build with fp32.",
            )
        if self.failures:
            judged = f" (judged {judged_how(self.where)})" if self.where else ""
            raise MatchRTError(
                "precision-gate",
                f"{precision} loses matches of fp32{judged}: {'; '.join(self.failures)}.{self.because}",
                self.limits.remedy,
            )
