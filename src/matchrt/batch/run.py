"""A run over many pairs: opens the journal, matches the pairs without a result, and writes the output at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from matchrt._version import __version__
from matchrt.batch.journal import Journal
from matchrt.batch.journal_rows import Counts, Failure
from matchrt.batch.listing import PairSource
from matchrt.batch.names import readable
from matchrt.batch.output import Output
from matchrt.batch.places import Places
from matchrt.batch.results import ImageFacts, ListedPair, Result
from matchrt.batch.run_report import write_report
from matchrt.batch.sources import check_all
from matchrt.batch.view_graph import ViewGraph
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.verdict import Word

# A commit takes milliseconds. If the process is killed, at most the results within these limits are lost.
_COMMIT_PAIRS = 64
_COMMIT_SECONDS = 1.0
_MOST_TOLD = 100
# Options that say where and how fast an engine runs. The engine itself is in the plan.
_WITHOUT_EFFECT = ("threads", "device", "backend", "cuda_graph")
_CHECKED_AT_ONCE = 256
_TURNS = 3

Match = Callable[[Iterable[ListedPair]], Iterator[Result]]
# Called with the number of pairs done and the number of all pairs.
Tell = Callable[[int, int], None]


def journal_of(output: Output, journal: Path | None) -> Path:
    """The file of the journal. journal: None for `OUTPUT.journal` beside the output. Raises nothing."""
    return journal or output.path.with_name(f"{output.path.name}.journal")


def run_places(output: Output, journal: Path | None, beside: Iterable[Path] = ()) -> Places:
    """The files that a run writes. beside: those that are no outputs. Error: output-twice, if two of them are one."""
    return Places(journal_of(output, journal), [*output.files, *beside], output.failed)


@dataclass(frozen=True)
class BatchRun:
    """The settings of a run.

    source: the pairs to match; their images are below `source.base`.
    output: the output that is written at the end.
    journal: file that keeps results; None for `OUTPUT.journal` beside the output.
    retry_failed: whether pairs that failed in an earlier run are tried again.
    report: page about the run that is written at the end; None for none.
    beside: all other files that the command writes, which must be no image and no output.
    """

    source: PairSource
    output: Output
    journal: Path | None = None
    retry_failed: bool = False
    report: Path | None = None
    beside: tuple[Path, ...] = ()

    @property
    def journal_path(self) -> Path:
        """The file of the journal."""
        return journal_of(self.output, self.journal)

    def places(self) -> Places:
        """The files that the run writes. Error: output-twice, if two of them are one."""
        return run_places(self.output, self.journal, self.beside)


@dataclass(frozen=True)
class BatchReport:
    """The report of a run.

    counts: numbers of pairs by their state after the run.
    graph: which images are connected by pairs whose verdict is `match`, and why others failed.
    verdicts: how many of the matched pairs have which verdict.
    now: number of pairs that were tried in this run.
    written: whether the output was written; False if it was up to date already.
    changed: images whose content has changed since they were matched, and whose pairs were matched again.
    warnings: what a person should know about images of matched pairs, a sentence each, the first of them.
    mended: number of damaged rows of the journal that were dropped, and whose pairs were matched again.
    seconds: time that the run took.
    """

    counts: Counts
    graph: ViewGraph
    verdicts: dict[Word, int]
    now: int
    written: bool
    changed: tuple[str, ...]
    warnings: tuple[str, ...]
    mended: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **self.counts._asdict(),
            "verdicts": self.verdicts,
            "view_graph": self.graph.to_json(),
            "tried_now": self.now,
            "output_written": self.written,
            "images_changed": list(self.changed),
            "rows_mended": self.mended,
            "warnings": [readable(text) for text in self.warnings],
            "seconds": round(self.seconds, 3),
        }


def plan_of(
    run: BatchRun, manifest: EngineManifest, options: MatcherOptions, features: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Everything that decides the matches, as JSON values. It reads the whole list.

    features: the engine's parts and how features are kept, if pairs are matched from them; None for whole pairs.
    Errors: those of `PairSource.digest`; output-is-input if an image is a file that the run writes; output-twice.
    """
    return {
        "pairs": run.source.digest(run.places().image_check(run.source.base)),
        "engine": manifest.engine_sha256,
        "version": __version__,
        "features": None if features is None else dict(features),
        **{name: value for name, value in asdict(options).items() if name not in _WITHOUT_EFFECT},
        # What these two come to: None may mean either.
        "rotate": "auto" if options.turns else "off",
        "zoom": "auto" if options.zooms else "off",
    }


def match_pairs(
    run: BatchRun,
    plan: dict[str, Any],
    match: Match,
    tell: Tell | None = None,
    begun: Callable[[Counts], None] | None = None,
) -> tuple[BatchReport, list[Failure]]:
    """Matches the pairs that have no result yet and writes the output. Returns a report and the first 100 failures.

    If the process is killed at any moment, the next call goes on after the last commit.
    plan: that of `plan_of`, which has the digest of the pairs. match: yields results for pairs, in any order.
    tell: called after every result.
    begun: called with the numbers of pairs before any is matched.
    Errors: those of `journal`, `output` and `match`; matches-name if no image has a name that the output can hold;
    image-changed if images go on changing while they are matched; pairs-changed if the list does.
    """
    start = time.perf_counter()
    with Journal(run.journal_path) as journal:
        journal.begin(plan, run.source.unchanged(plan["pairs"]))
        run.output.require_own(journal)
        mended = journal.mend()
        changed = _forget_changed(journal, run.source.base)
        run.output.refuse_names(journal)
        if run.retry_failed:
            journal.forget_failures()
            run.output.forget_refusals(journal)
        _require_names(journal)
        before = journal.counts()
        if begun is not None:
            begun(before)
        _match_all(journal, match, before, tell)
        written = not run.output.is_written(journal)
        if written:
            run.output.write(journal, run.source.base)
        failures = list(islice(journal.failures(), _MOST_TOLD))
        notices = (row.facts.notice for row in journal.images() if row.facts is not None and row.facts.notice)
        warnings = tuple(islice(notices, _MOST_TOLD))
        seconds = time.perf_counter() - start
        counts, verdicts, graph = journal.counts(), journal.verdicts(), ViewGraph.of(journal)
        if run.report is not None:
            write_report(run.report, journal, graph, run.source.base, run.output.path.name)
        report = BatchReport(counts, graph, verdicts, before.waiting, written, changed, warnings, mended, seconds)
        return report, failures


def _forget_changed(journal: Journal, root: Path) -> tuple[str, ...]:
    """Forgets the results of images whose files have another content by now. Returns the names of these images."""
    changed: dict[int, str] = {}
    rows = (row for row in journal.images() if row.facts is not None)
    while some := list(islice(rows, _CHECKED_AT_ONCE)):
        newer: dict[int, ImageFacts] = {}
        known = [(root / row.name, row.facts) for row in some if row.facts is not None]
        for row, facts in zip(some, check_all(known), strict=True):
            if facts is None:
                changed[row.id] = row.name
            elif facts != row.facts:
                newer[row.id] = facts
        journal.restamp(newer)
    journal.forget_images(changed)
    return tuple(changed.values())


def _require_names(journal: Journal) -> None:
    """Raises the error of the first refused image if every pair has one: then the names or the root are wrong."""
    refused = journal.refused()
    if refused and journal.counts().pairs == journal.refused_pairs():
        error = refused[min(refused)]
        raise MatchRTError(error.code, readable(error.message), error.remedy)


def _match_all(journal: Journal, match: Match, before: Counts, tell: Tell | None) -> None:
    """Matches the pairs without a result. An image that changes meanwhile gives its earlier pairs another turn."""
    for _ in range(_TURNS):
        if not journal.counts().waiting:
            return
        _record(journal, match(journal.waiting()), before, tell)
    if journal.counts().waiting:
        raise MatchRTError(
            "image-changed",
            f"Images change while they are matched; {journal.counts().waiting} pairs are left.",
            "Wait until nothing writes to the images, and run the command again.",
        )


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
