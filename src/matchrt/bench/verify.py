"""The figures of an engine compared with its reference, pair by pair."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from matchrt.bench.agreement import Agreement, together
from matchrt.bench.pairs import JudgedPair
from matchrt.bench.warp_agreement import WarpAgreement, warps_together


@dataclass(frozen=True, eq=False)
class VerifiedPair:
    """The figures of one pair.

    pair: the images and their truth.
    agreements: one for each score that is judged; the last one is for the default score, which users get.
    accuracy: shares (0..1) of correct matches, of the reference and of the engine; None without truth.
    figures: what was measured against the truth, of the reference and of the engine, as `PairResult.figures`.
    invalid: why the engine's output holds no valid matches; None if it does. An invalid output keeps no match.
    warp: how far the engine's matches are from the reference's dense warp; None for networks without one.
    """

    pair: JudgedPair
    agreements: tuple[Agreement, ...]
    accuracy: tuple[float, float] | None
    figures: tuple[dict[str, float], dict[str, float]]
    invalid: str | None = None
    warp: WarpAgreement | None = None

    @property
    def agreement(self) -> Agreement:
        """The agreement at the default score, which users get."""
        return self.agreements[-1]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        truth = self.pair.truth
        found: dict[str, Any] = {"id": truth.id, "set": truth.set, **self.agreement.to_json()}
        if self.accuracy is not None:
            found["accuracy_reference"], found["accuracy"] = (round(value, 6) for value in self.accuracy)
        if self.invalid is not None:
            found["invalid"] = self.invalid
        if self.warp is not None:
            found["warp"] = _warp_json(self.warp)
        for name, figures in zip(("figures_reference", "figures"), self.figures, strict=True):
            found[name] = {k: round(v, 6) if math.isfinite(v) else None for k, v in figures.items()}
        return found


@dataclass(frozen=True)
class Verification:
    """The comparison of one engine with one reference on all pairs.

    reference, engine: their names in reports.
    scores: the engine's smallest scores at which matches are counted; the last one is the default score, which users
        get.
    pairs: the figures of each pair.
    """

    reference: str
    engine: str
    scores: tuple[float, ...]
    pairs: tuple[VerifiedPair, ...]

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        """The agreement of all pairs together, for each of `scores`."""
        return tuple(together([pair.agreements[index] for pair in self.pairs]) for index in range(len(self.scores)))

    @property
    def agreement(self) -> Agreement:
        """The agreement of all pairs together at the default score."""
        return together([pair.agreement for pair in self.pairs])

    @property
    def warp(self) -> WarpAgreement | None:
        """The agreement of all warps together; None for networks without one."""
        known = [pair.warp for pair in self.pairs if pair.warp is not None]
        return warps_together(known) if known else None

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Mean accuracy (0..1) over the pairs with truth, of the reference and of the engine; None without truth."""
        known = [pair.accuracy for pair in self.pairs if pair.accuracy is not None]
        if not known:
            return None
        return float(np.mean([first for first, _ in known])), float(np.mean([second for _, second in known]))

    def worst(self, count: int) -> list[VerifiedPair]:
        """The `count` pairs with the smallest share of matches kept within 1 px.

        Pairs in which the reference finds nothing, and pairs with an invalid output, are left out.
        """
        matched = [pair for pair in self.pairs if pair.agreement.expected and pair.invalid is None]
        return sorted(matched, key=lambda pair: pair.agreement.share(1.0))[:count]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        accuracy = self.accuracy
        named = None if accuracy is None else {"reference": round(accuracy[0], 6), "engine": round(accuracy[1], 6)}
        return {
            "reference": self.reference,
            "engine": self.engine,
            "together": self.agreement.to_json(),
            "accuracy": named,
            "warp": None if self.warp is None else _warp_json(self.warp),
            "pairs": [pair.to_json() for pair in self.pairs],
        }


def _warp_json(warp: WarpAgreement) -> dict[str, float | None]:
    """As JSON values; a value that is not finite is null."""
    found = {"within_1px": warp.share(1.0), "median_px": warp.median, "certainty_difference": warp.certainty}
    return {name: round(value, 6) if math.isfinite(value) else None for name, value in found.items()}


def together_by_set(verification: Verification) -> dict[str, Verification]:
    """One verification for each set of pairs, in the order of the sets."""
    names = dict.fromkeys(pair.pair.truth.set for pair in verification.pairs)
    return {
        name: replace(verification, pairs=tuple(p for p in verification.pairs if p.pair.truth.set == name))
        for name in names
    }
