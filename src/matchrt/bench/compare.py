"""Comparing a run with others: with published baselines, or with another engine's run.

Two runs are compared on the pairs that both have, set by set. Every figure for which more or less is better gets a
verdict, favourable or not. Counts without truth get none.

Errors: `baselines-missing`, `baseline-invalid`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from matchrt._util.reading import read_regular
from matchrt._util.strict_json import read_json
from matchrt.bench.accuracy import AccuracyReport, summarise
from matchrt.errors import MatchRTError

Verdict = Literal["ahead", "behind", "level", ""]
Figures = Mapping[str, Mapping[str, float]]

# Figures of a set, in the order of the table, and which way is better. Numbers of matches and of inliers are neither
# better nor worse without truth ("").
_BETTER = {
    "matches": "", "p1": "more", "p3": "more", "p5": "more", "p8": "more", "p16": "more", "corner_median_px": "less",
    "corner_3px": "more", "corner_10px": "more", "epi_precision": "more", "under_5": "more", "under_10": "more",
    "under_20": "more", "auc_5": "more", "auc_10": "more", "auc_20": "more", "F_inliers": "", "H_inliers": "",
}  # fmt: skip
_MOST_BYTES = 1 << 28
# A baseline writes "nothing found" as an error of at least this size.
_FAILED_PX = 1e5
_FAILED_DEGREES = 180.0


@dataclass(frozen=True)
class Baseline:
    """The figures of one matcher, as a file of the baselines folder gives them.

    name: the matcher's name, which is the file's name without its suffix.
    pairs: figures by name, by pair id, in the units of `PairResult.figures`; failures are infinite.
    """

    name: str
    pairs: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Row:
    """One figure of one set, over the same pairs for both sides.

    set: the name of the set.
    figure: the name of the figure, as in `summarise`.
    pairs: number of pairs that both sides have.
    ours: the run's value; infinite where a median falls on a failure.
    theirs: the baseline's value; infinite where a median falls on a failure.
    verdict: `ahead`, `behind` or `level` from the run's side; empty where no value is better.
    """

    set: str
    figure: str
    pairs: int
    ours: float
    theirs: float
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """As JSON values; an infinite value is null."""
        ours, theirs = (value if math.isfinite(value) else None for value in (self.ours, self.theirs))
        return {**asdict(self), "ours": ours, "theirs": theirs}


@dataclass(frozen=True)
class Comparison:
    """The comparison of a run with one baseline.

    run: the name of the run.
    baseline: the name of the baseline.
    rows: the figures of all sets.
    notes: sentences that say what makes the two less comparable.
    """

    run: str
    baseline: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        """How many figures have this verdict."""
        return sum(row.verdict == verdict for row in self.rows)

    def line(self) -> str:
        """The number of figures by verdict, in one line."""
        return (
            f"{self.run} against {self.baseline}: ahead in {self.count('ahead')} figures, "
            f"behind in {self.count('behind')}, level in {self.count('level')}"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "run": self.run,
            "baseline": self.baseline,
            "ahead": self.count("ahead"),
            "behind": self.count("behind"),
            "level": self.count("level"),
            "notes": list(self.notes),
            "rows": [row.to_json() for row in self.rows],
        }


def read_baselines(folder: Path) -> tuple[Baseline, ...]:
    """Reads every `*.json` of a folder, sorted by name. Errors: baselines-missing, baseline-invalid."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        raise MatchRTError(
            "baselines-missing", f"'{folder}' has no baselines.", "Name a folder with one .json file for each matcher."
        )
    return tuple(read_baseline(path) for path in files)


def compare(report: AccuracyReport, baseline: Baseline) -> Comparison:
    """Compares a report with a baseline on the pairs that both have."""
    rows: list[Row] = []
    ours = report.by_id()
    for name, pairs in report.sets().items():
        common = [pair.id for pair in pairs if pair.id in baseline.pairs]
        if common:
            rows += _rows(name, [ours[key] for key in common], [baseline.pairs[key] for key in common])
    notes = []
    estimator = report.options.pose_estimator
    if estimator != "ransac" and any(row.figure.startswith("auc") for row in rows):
        notes.append(f"The run estimates poses with {estimator}; the baseline may use another estimator.")
    if any(row.set == "negative" and row.verdict for row in rows):
        notes.append("Counts of inliers depend on thresholds, and a baseline file does not state its thresholds.")
    return Comparison(report.name, baseline.name, tuple(rows), tuple(notes))


def as_baseline(report: AccuracyReport) -> Baseline:
    """A report in the form of a baseline, so that two runs can be compared."""
    return Baseline(report.name, report.by_id())


def _rows(name: str, ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> list[Row]:
    shared = set.intersection(*(set(pair) for pair in (*ours, *theirs)))
    first, second = (summarise([{k: v for k, v in p.items() if k in shared} for p in side]) for side in (ours, theirs))
    rows = []
    for figure, better in _better_in(name).items():
        if figure in first and figure in second:
            verdict = _verdict(figure, first[figure], second[figure], better)
            rows.append(Row(name, figure, len(ours), first[figure], second[figure], verdict))
    return rows


def _better_in(name: str) -> dict[str, str]:
    """Which way each figure is better. On pairs of different places, every verified match is false."""
    return {**_BETTER, "F_inliers": "less", "H_inliers": "less"} if name == "negative" else _BETTER


def _verdict(figure: str, ours: float, theirs: float, better: str) -> Verdict:
    if not better:
        return ""
    rounding = 0.01 if figure == "corner_median_px" else 0.001  # baselines are stored with so many digits
    if ours == theirs or abs(ours - theirs) <= rounding:
        return "level"
    return "ahead" if (ours > theirs) == (better == "more") else "behind"


def read_baseline(path: Path) -> Baseline:
    """Reads one file of figures by pair id; the name is the file's name without suffix. Error: baseline-invalid."""
    try:
        raw = read_json(read_regular(path, _MOST_BYTES))
        pairs = {str(key): _figures(entry) for key, entry in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise MatchRTError(
            "baseline-invalid",
            f"'{path}' is not a baseline: {error}.",
            'Write a JSON object of numbers by pair id, such as {"v_dogman/1_2": {"matches": 567}}.',
        ) from error
    return Baseline(path.stem, pairs)


def _figures(entry: dict[str, Any]) -> dict[str, float]:
    figures = {}
    for name, value in entry.items():
        number = math.inf if value is None else float(value)
        failed = (name == "corner_err_px" and number >= _FAILED_PX) or (
            name in ("err_R", "err_t") and number >= _FAILED_DEGREES
        )
        figures[str(name)] = math.inf if failed else number
    return figures
