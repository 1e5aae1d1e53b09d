"""Runs an engine and its reference on pairs of images and compares their matches. All verdicts come from here."""

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
from matchrt.bench.warp_agreement import DenseReference, warp_agreement
from matchrt.errors import MatchRTError
from matchrt.manifest import MatchContract
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.matches import Matches
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import PreparedImage
from matchrt.runtime.session import Session

Advance = Callable[[], None]
# All matches that the engine returns are read, because the limits decide which scores count. Images are not turned as
# EXIF says, because the truth of evaluation folders is for the stored pixels.
JUDGED = MatcherOptions(apply_exif=False, min_score=0.0, fit_frames=True)
# For each kind of truth, the figure that counts as accuracy: a share of correct matches.
MAIN_FIGURE = {"homography": "p3", "stereo": "p3", "pose": "epi_precision"}


@dataclass(frozen=True)
class Expected:
    """What the reference finds.

    matches: its matches, pair by pair.
    matching: what its matching stage was built with: thresholds and number of slots.
    warps: its dense warps, pair by pair; None, or empty, for a network without one.
    """

    matches: tuple[Matches, ...]
    matching: MatchContract
    warps: tuple[DenseReference | None, ...] = ()

    def count(self) -> int:
        """Number of matches in all pairs, from the default score on."""
        return sum(len(found.filter(self.matching.default_score)) for found in self.matches)


@dataclass(frozen=True)
class PairRun:
    """One pair's run.

    matches: its matches; the error `matches-invalid` if the output holds no valid ones (NaN, scores out of range).
    outputs: the engine's outputs, arrays `[B, ...]` by name.
    row: the pair's row in them.
    """

    matches: Matches | MatchRTError
    outputs: Mapping[str, npt.NDArray[Any]]
    row: int


def match_pairs(session: Session, pairs: Sequence[JudgedPair], advance: Advance) -> Iterator[Matches | MatchRTError]:
    """The matches of `run_pairs`. Errors: those of `run_pairs`."""
    return (run.matches for run in run_pairs(session, pairs, advance))


def run_pairs(session: Session, pairs: Sequence[JudgedPair], advance: Advance) -> Iterator[PairRun]:
    """Matches all pairs in order, as many in a run as the engine takes. `advance` is called after each pair.

    Errors: image-*, size-memory, session-*.
    """
    adapter, rows = PairAdapter(session.manifest, JUDGED), session.manifest.input.batch
    for start in range(0, len(pairs), rows):
        images = [
            (_prepared(adapter, pair.image0, 0), _prepared(adapter, pair.image1, 1))
            for pair in pairs[start : start + rows]
        ]
        outputs = session.run(stacked([adapter.inputs(*pair) for pair in images], rows))
        for row, pair in enumerate(images):
            try:
                found: Matches | MatchRTError = adapter.matches(pair, outputs, {}, row)
            except MatchRTError as error:
                if error.code != "matches-invalid":
                    raise
                found = error
            yield PairRun(found, outputs, row)
            advance()


def _prepared(adapter: PairAdapter, image: Any, side: int) -> PreparedImage:
    name = f"image{side}"
    if adapter.manifest.input.frames is not None:  # an array of a pair is RGB, not what the engine's camera gives
        image = adapter.read(image, name)
    return adapter.prepare(image, name, side)


def stacked(inputs: Sequence[Mapping[str, npt.NDArray[Any]]], rows: int) -> dict[str, npt.NDArray[Any]]:
    """Joins the inputs of single pairs to those of one run. The last pair is repeated in rows that are left over."""
    if rows == 1:
        return dict(inputs[0])
    filled = [*inputs, *[inputs[-1]] * (rows - len(inputs))]
    return {name: np.concatenate([each[name] for each in filled]) for name in inputs[0]}


def reference_matches(session: Session, pairs: Sequence[JudgedPair], advance: Advance) -> Expected:
    """Matches all pairs with the reference. The result serves for any number of engines.

    Errors: those of `match_pairs`, and matches-invalid.
    """
    found, warps = [], []
    for run in run_pairs(session, pairs, advance):
        if isinstance(run.matches, MatchRTError):
            raise run.matches
        found.append(run.matches)
        warps.append(_warp(run, session))
    return Expected(tuple(found), session.manifest.matching, tuple(warps))


def _warp(run: PairRun, session: Session) -> DenseReference | None:
    width = session.manifest.input.width
    if width is None or not session.manifest.dense:
        return None
    return DenseReference.from_outputs(run.outputs, run.row, width)


def judge_engine(
    expected: Expected,
    session: Session,
    pairs: Sequence[JudgedPair],
    limits: Limits,
    names: tuple[str, str],
    advance: Advance,
    *,
    accuracy: bool = True,
    where: str = "",
) -> Verdict:
    """Matches every pair with the engine in `session` and compares the matches with the expected ones.

    Each side is counted from its own default score on, because a reference of another model has another.
    limits: what the engine may lose. names: names of the reference and of the engine, for reports.
    advance: called after each pair. where: where the engine runs, for reports.
    accuracy: whether matches are also measured against the truth of the pairs.
    Errors: those of `match_pairs`.
    """
    ours, theirs = limits.scores(session.manifest.matching), limits.scores(expected.matching)
    found = []
    warps = expected.warps or (None,) * len(pairs)
    runs = run_pairs(session, pairs, advance)
    for reference, warp, run, pair in zip(expected.matches, warps, runs, pairs, strict=True):
        actual = run.matches
        invalid = actual.message if isinstance(actual, MatchRTError) else None
        # An invalid output counts as no matches at all.
        usable = reference.top(0) if isinstance(actual, MatchRTError) else actual
        agreements = _agreements(reference, theirs, usable, ours)
        right, figures = _NONE
        if accuracy and _measurable(pair):
            right, figures = _accuracy(pair, reference.filter(theirs[-1]), usable.filter(ours[-1]))
        near = None if warp is None else warp_agreement(warp, run.outputs, run.row)
        found.append(VerifiedPair(pair, agreements, right, figures, invalid, near))
    return Verdict(Verification(*names, ours, tuple(found)), limits, where)


Accuracy = tuple[tuple[float, float] | None, tuple[dict[str, float], dict[str, float]]]
_NONE: Accuracy = (None, ({}, {}))


def _agreements(
    reference: Matches, theirs: Sequence[float], engine: Matches, ours: Sequence[float]
) -> tuple[Agreement, ...]:
    first, second = PairMatches.from_matches(reference), PairMatches.from_matches(engine)
    return tuple(agree(first.above(a), second.above(b)) for a, b in zip(theirs, ours, strict=True))


def _measurable(pair: JudgedPair) -> bool:
    """Whether `measure_pair` can measure the pair. Without truth it needs image files, not arrays."""
    return not isinstance(pair.truth, PlainPair) or isinstance(pair.image1, Path)


def _accuracy(pair: JudgedPair, reference: Matches, actual: Matches) -> Accuracy:
    """The shares (0..1) of correct matches on both sides, and all figures against the truth."""
    kind, before = measure_pair(pair.truth, reference, AccuracyOptions())
    _, after = measure_pair(pair.truth, actual, AccuracyOptions())
    main = MAIN_FIGURE.get(kind)
    known = main is not None and len(reference) > 0
    return (before[main], after[main]) if known and main else None, (before, after)
