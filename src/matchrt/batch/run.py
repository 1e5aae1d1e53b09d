"""A run over many pairs: opens the journal, matches the pairs without a result, and writes the output at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matchrt._version import __version__
from matchrt.batch.journal import Counts, Failure, Journal
from matchrt.batch.listing import PairSource
from matchrt.batch.output import Output
from matchrt.batch.results import ListedPair, Result
from matchrt.manifest import EngineManifest
from matchrt.runtime.options import MatcherOptions

# A commit takes milliseconds. If the process is killed, at most the results within these limits are lost.
_COMMIT_PAIRS = 64
_COMMIT_SECONDS = 1.0

Match = Callable[[Iterable[ListedPair]], Iterator[Result]]
# Called with the number of pairs done and the number of all pairs.
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class BatchRun:
    """The settings of a run.

    source: the pairs to match.
    output: the output that is written at the end.
    journal: file that keeps results; None for `OUTPUT.journal` beside the output.
    retry_failed: whether pairs that failed in an earlier run are tried again.
    """

    source: PairSource
    output: Output
    journal: Path | None = None
    retry_failed: bool = False

    @property
    def journal_path(self) -> Path:
        """The file of the journal."""
        return self.journal or self.output.path.with_name(f"{self.output.path.name}.journal")


@dataclass(frozen=True)
class BatchReport:
    """The report of a run.

    counts: numbers of pairs by their state after the run.
    now: number of pairs that were tried in this run.
    written: whether the output was written; False if it was up to date already.
    seconds: time that the run took.
    """

    counts: Counts
    now: int
    written: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **self.counts._asdict(),
            "tried_now": self.now,
            "output_written": self.written,
            "seconds": round(self.seconds, 3),
        }


def plan_of(source: PairSource, manifest: EngineManifest, options: MatcherOptions) -> dict[str, Any]:
    """Everything that decides the matches, as JSON values. It reads the whole list.

    Errors: those of `PairSource.digest`.
    """
    return {
        "pairs": source.digest(),
        "engine": manifest.engine_sha256,
        "version": __version__,
        "resize": options.resize,
        "min_score": options.min_score,
        "apply_exif": options.apply_exif,
        "max_pixels": options.max_pixels,
        "sample": options.sample,
        "seed": options.seed,
    }


def match_pairs(
    run: BatchRun, plan: dict[str, Any], match: Match, tell: Tell | None = None
) -> tuple[BatchReport, list[Failure]]:
    """Matches the pairs that have no result yet and writes the output. Returns a report and the first 100 failures.

    If the process is killed at any moment, the next call goes on after the last commit.
    plan: that of `plan_of`. match: yields results for pairs, in any order. tell: called after every result.
    Errors: those of `journal`, `output` and `match`.
    """
    start = time.perf_counter()
    with Journal(run.journal_path) as journal:
        journal.begin(plan, run.source.pairs())
        run.output.require_own(journal)
        run.output.check_names(row.name for row in journal.images())
        if run.retry_failed:
            journal.forget_failures()
        before = journal.counts()
        _record(journal, match(journal.waiting()), before, tell)
        written = not run.output.is_written(journal)
        if written:
            run.output.write(journal, run.source.base)
        failures = list(_first(journal.failures(), 100))
        report = BatchReport(journal.counts(), before.waiting, written, time.perf_counter() - start)
        return report, failures


def _first(failures: Iterator[Failure], count: int) -> Iterator[Failure]:
    for _, failure in zip(range(count), failures, strict=False):
        yield failure


def _record(journal: Journal, results: Iterator[Result], before: Counts, tell: Tell | None) -> None:
    """Commits results as they come. If an error ends the run, the results that have come are committed too."""
    waiting: list[Result] = []
    done, last = before.pairs - before.waiting, time.monotonic()
    try:
        for result in results:
            waiting.append(result)
            if len(waiting) >= _COMMIT_PAIRS or time.monotonic() - last >= _COMMIT_SECONDS:
                journal.commit(waiting)
                done, last, waiting = done + len(waiting), time.monotonic(), []
            if tell is not None:
                tell(done + len(waiting), before.pairs)
    finally:
        journal.commit(waiting)
