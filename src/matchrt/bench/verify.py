"""An engine beside its reference, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from matchrt.bench.accuracy import AccuracyOptions, measure_pair
from matchrt.bench.agreement import Agreement, agree, together
from matchrt.bench.pairs import JudgedPair
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.matches import Matches

# Of each kind of truth, the share of matches that says how good they are.
MAIN_FIGURE = {"homography": "p3", "stereo": "p3", "pose": "epi_precision"}
Match = Callable[[Any, Any], Matches]


@dataclass(frozen=True, eq=False)
class VerifiedPair:
    """One pair. accuracy: of the reference and of the engine, where there is truth: share of matches that are right."""

    pair: JudgedPair
    agreement: Agreement
    accuracy: tuple[float, float] | None
    figures: tuple[dict[str, float], dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        truth = self.pair.truth
        found: dict[str, Any] = {"id": truth.id, "set": truth.set, **self.agreement.to_json()}
        if self.accuracy is not None:
            found["accuracy_reference"], found["accuracy"] = (round(value, 6) for value in self.accuracy)
        for name, figures in zip(("figures_reference", "figures"), self.figures, strict=True):
            found[name] = {k: round(v, 6) if math.isfinite(v) else None for k, v in figures.items()}
        return found


@dataclass(frozen=True)
class Verification:
    """All pairs of one engine against one reference."""

    reference: str
    engine: str
    pairs: tuple[VerifiedPair, ...]

    @property
    def agreement(self) -> Agreement:
        """All pairs together."""
        return together([pair.agreement for pair in self.pairs])

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Mean over the pairs with truth, of the reference and of the engine; None where there is none."""
        known = [pair.accuracy for pair in self.pairs if pair.accuracy is not None]
        if not known:
            return None
        return float(np.mean([first for first, _ in known])), float(np.mean([second for _, second in known]))

    def worst(self, count: int) -> list[VerifiedPair]:
        """Pairs with the smallest share within 1 px, of those with at least one match of the reference."""
        matched = [pair for pair in self.pairs if pair.agreement.expected]
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


def reference_matches(matcher: Matcher, pairs: Iterable[JudgedPair], advance: Callable[[], None]) -> list[Matches]:
    """The reference's matches: measured once, however many engines are compared with it."""
    found = []
    for pair in pairs:
        found.append(matcher.match(pair.image0, pair.image1))
        advance()
    return found


def compare_with(
    expected: Sequence[Matches],
    match: Match,
    pairs: Sequence[JudgedPair],
    names: tuple[str, str],
    advance: Callable[[], None],
    accuracy: bool = True,
) -> Verification:
    """Matches every pair and compares. names: of the reference and of the engine. accuracy: measure truth too."""
    found = []
    for reference, pair in zip(expected, pairs, strict=True):
        actual = match(pair.image0, pair.image1)
        found.append(_verified(pair, reference, actual, accuracy))
        advance()
    return Verification(*names, tuple(found))


def _verified(pair: JudgedPair, reference: Matches, actual: Matches, accuracy: bool) -> VerifiedPair:
    agreement = agree(reference, actual)
    if not accuracy:
        return VerifiedPair(pair, agreement, None, ({}, {}))
    kind, before = measure_pair(pair.truth, reference, AccuracyOptions())
    _, after = measure_pair(pair.truth, actual, AccuracyOptions())
    main = MAIN_FIGURE.get(kind)
    known = main is not None and agreement.expected > 0
    return VerifiedPair(pair, agreement, (before[main], after[main]) if known and main else None, (before, after))
