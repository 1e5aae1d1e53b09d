"""Runs an engine and its reference on pairs of images and compares their matches: what every verdict comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.bench.accuracy import AccuracyOptions, measure_pair
from matchrt.bench.agreement import Agreement, PairMatches, agree
from matchrt.bench.folder import PlainPair
from matchrt.bench.gate import Limits, Verdict
from matchrt.bench.pairs import JudgedPair
from matchrt.bench.verify import Verification, VerifiedPair
from matchrt.errors import MatchRTError
from matchrt.manifest import MatchContract
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.matches import Matches
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.session import Session

Advance = Callable[[], None]
# Everything that the engine returns: the limits say which scores count. Images are taken as they are stored, which is
# what is known about the pairs of evaluation folders.
JUDGED = MatcherOptions(apply_exif=False, min_score=0.0)
# Of each kind of truth, the share of matches that says how good they are.
MAIN_FIGURE = {"homography": "p3", "stereo": "p3", "pose": "epi_precision"}


@dataclass(frozen=True)
class Expected:
    """What the reference finds: its matches, pair by pair, and what its matching stage was built with."""

    matches: tuple[Matches, ...]
    matching: MatchContract

    def count(self) -> int:
        """Matches from the default score on, of all pairs."""
        return sum(len(found.filter(self.matching.default_score)) for found in self.matches)


def match_pairs(session: Session, pairs: Sequence[JudgedPair], advance: Advance) -> Iterator[Matches | MatchRTError]:
    """The matches of every pair in order, as many pairs a run as the engine takes; `advance` is called after each.

    Output that holds no valid matches (NaN, scores out of range) gives the error `matches-invalid` in their place.
    Errors: image-*, size-memory, session-*.
    """
    adapter, rows = PairAdapter(session.manifest, JUDGED), session.manifest.input.batch
    for start in range(0, len(pairs), rows):
        images = [
            (adapter.prepare(pair.image0, "image0"), adapter.prepare(pair.image1, "image1"))
            for pair in pairs[start : start + rows]
        ]
        outputs = session.run(_stacked([adapter.inputs(*pair) for pair in images], rows))
        for row, pair in enumerate(images):
            try:
                found: Matches | MatchRTError = adapter.matches(pair, outputs, {}, row)
            except MatchRTError as error:
                if error.code != "matches-invalid":
                    raise
                found = error
            yield found
            advance()


def _stacked(inputs: Sequence[Mapping[str, npt.NDArray[Any]]], rows: int) -> dict[str, npt.NDArray[Any]]:
    """Inputs of single pairs as those of one run; the last pair fills the rows that are left."""
    if rows == 1:
        return dict(inputs[0])
    filled = [*inputs, *[inputs[-1]] * (rows - len(inputs))]
    return {name: np.concatenate([each[name] for each in filled]) for name in inputs[0]}


def reference_matches(session: Session, pairs: Sequence[JudgedPair], advance: Advance) -> Expected:
    """The reference's matches: found once, however many engines are compared with it.

    Errors: those of `match_pairs`; matches-invalid.
    """
    found = []
    for matches in match_pairs(session, pairs, advance):
        if isinstance(matches, MatchRTError):
            raise matches
        found.append(matches)
    return Expected(tuple(found), session.manifest.matching)


def judge_engine(
    expected: Expected,
    session: Session,
    pairs: Sequence[JudgedPair],
    limits: Limits,
    names: tuple[str, str],
    advance: Advance,
    *,
    accuracy: bool = True,
) -> Verdict:
    """Matches every pair and compares.

    Each side counts from its own scores on: a reference of another model has others. names: of the reference and of
    the engine, for reports. accuracy: measure against the truth of the pairs too. Errors: those of `match_pairs`.
    """
    ours, theirs = limits.scores(session.manifest.matching), limits.scores(expected.matching)
    found = []
    for reference, actual, pair in zip(expected.matches, match_pairs(session, pairs, advance), pairs, strict=True):
        invalid = actual.message if isinstance(actual, MatchRTError) else None
        # Of output that is no matches nothing is kept.
        usable = reference.top(0) if isinstance(actual, MatchRTError) else actual
        agreements = _agreements(reference, theirs, usable, ours)
        right, figures = _NONE
        if accuracy and _measurable(pair):
            right, figures = _accuracy(pair, reference.filter(theirs[-1]), usable.filter(ours[-1]))
        found.append(VerifiedPair(pair, agreements, right, figures, invalid))
    return Verdict(Verification(*names, ours, tuple(found)), limits)


Accuracy = tuple[tuple[float, float] | None, tuple[dict[str, float], dict[str, float]]]
_NONE: Accuracy = (None, ({}, {}))


def _agreements(
    reference: Matches, theirs: Sequence[float], engine: Matches, ours: Sequence[float]
) -> tuple[Agreement, ...]:
    first, second = PairMatches.from_matches(reference), PairMatches.from_matches(engine)
    return tuple(agree(first.above(a), second.above(b)) for a, b in zip(theirs, ours, strict=True))


def _measurable(pair: JudgedPair) -> bool:
    """Whether `measure_pair` takes it: where there is no truth, it reads the images' files."""
    return not isinstance(pair.truth, PlainPair) or isinstance(pair.image1, Path)


def _accuracy(pair: JudgedPair, reference: Matches, actual: Matches) -> Accuracy:
    """The share of both sides' matches that is right, and all figures against the truth."""
    kind, before = measure_pair(pair.truth, reference, AccuracyOptions())
    _, after = measure_pair(pair.truth, actual, AccuracyOptions())
    main = MAIN_FIGURE.get(kind)
    known = main is not None and len(reference) > 0
    return (before[main], after[main]) if known and main else None, (before, after)
