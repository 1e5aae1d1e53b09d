"""The figures of an engine beside its reference, pair by pair."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from matchrt.bench.agreement import Agreement, together
from matchrt.bench.pairs import JudgedPair


@dataclass(frozen=True, eq=False)
class VerifiedPair:
    """One pair.

    agreements: at every score that is judged; the last one is that of users. accuracy: of the reference and of the
    engine, where there is truth: share of matches that are right. figures: of both, what was measured against the
    truth. invalid: what is wrong with the engine's output where it holds no valid matches; it then keeps nothing.
    """

    pair: JudgedPair
    agreements: tuple[Agreement, ...]
    accuracy: tuple[float, float] | None
    figures: tuple[dict[str, float], dict[str, float]]
    invalid: str | None = None

    @property
    def agreement(self) -> Agreement:
        """Of the matches that users get unless they ask for less."""
        return self.agreements[-1]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        truth = self.pair.truth
        found: dict[str, Any] = {"id": truth.id, "set": truth.set, **self.agreement.to_json()}
        if self.accuracy is not None:
            found["accuracy_reference"], found["accuracy"] = (round(value, 6) for value in self.accuracy)
        if self.invalid is not None:
            found["invalid"] = self.invalid
        for name, figures in zip(("figures_reference", "figures"), self.figures, strict=True):
            found[name] = {k: round(v, 6) if math.isfinite(v) else None for k, v in figures.items()}
        return found


@dataclass(frozen=True)
class Verification:
    """All pairs of one engine against one reference.

    reference, engine: what they are called in reports. scores: of the engine, from which on matches are counted; the
    last one is what users get unless they ask for less.
    """

    reference: str
    engine: str
    scores: tuple[float, ...]
    pairs: tuple[VerifiedPair, ...]

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        """All pairs together, at every score."""
        return tuple(together([pair.agreements[index] for pair in self.pairs]) for index in range(len(self.scores)))

    @property
    def agreement(self) -> Agreement:
        """All pairs together, of the matches that users get unless they ask for less."""
        return together([pair.agreement for pair in self.pairs])

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Mean over the pairs with truth, of the reference and of the engine; None where there is none."""
        known = [pair.accuracy for pair in self.pairs if pair.accuracy is not None]
        if not known:
            return None
        return float(np.mean([first for first, _ in known])), float(np.mean([second for _, second in known]))

    def worst(self, count: int) -> list[VerifiedPair]:
        """Pairs with the smallest share within 1 px, of those with matches of the reference and a valid output."""
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
            "pairs": [pair.to_json() for pair in self.pairs],
        }


def together_by_set(verification: Verification) -> dict[str, Verification]:
    """The same by sets of pairs, in order."""
    names = dict.fromkeys(pair.pair.truth.set for pair in verification.pairs)
    return {
        name: replace(verification, pairs=tuple(p for p in verification.pairs if p.pair.truth.set == name))
        for name in names
    }
