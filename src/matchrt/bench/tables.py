"""Reports as tables. The same cells become Markdown for files and rich tables for terminals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matchrt.bench.accuracy import AccuracyReport
from matchrt.bench.calls import CallReport
from matchrt.bench.compare import Comparison
from matchrt.bench.engines import EngineFacts
from matchrt.bench.latency import LatencyReport
from matchrt.bench.peers import PeerReport
from matchrt.bench.stream_rate import StreamRate
from matchrt.bench.throughput import ThroughputReport

if TYPE_CHECKING:
    from rich.table import Table

_STYLE = {"ahead": "green", "behind": "red"}
_PLACES = {"host": "host", "gpu": "GPU"}
_WHOLE = ("pairs", "under_5", "under_10", "under_20")
_TENTHS = ("matches", "inliers", "F_inliers", "H_inliers", "known")
_LABELS = {
    "matches": "matches (mean)",
    "inliers": "inliers (mean)",
    "F_inliers": "inliers of F (mean)",
    "H_inliers": "inliers of H (mean)",
    "known": "at known disparity (mean)",
    "epi_precision": "epipolar precision",
    "corner_median_px": "corner error, median px",
}


@dataclass(frozen=True)
class Cells:
    """The cells of a table, as text. The first column is left-aligned, the others are right-aligned.

    title: the text above the table.
    headings: one for each column.
    rows: the cells, one tuple for each row, as long as `headings`.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a Markdown table under a heading."""
        rule = "| --- |" + " ---: |" * (len(self.headings) - 1)
        lines = [f"### {self.title}", "", _line(self.headings), rule, *(_line(row) for row in self.rows)]
        return "\n".join(lines) + "\n"

    def rich(self) -> Table:
        """As a table for a terminal, in which verdicts are coloured."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.title), title_justify="left")
        for index, heading in enumerate(self.headings):
            table.add_column(Text(heading), justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row), style=_STYLE.get(row[-1]))
        return table


def engines_table(engines: Sequence[EngineFacts]) -> Cells:
    """A row for each engine with its facts, which says what each name stands for."""
    rows = []
    for facts in engines:
        memory = facts.memory
        held = ("-", "-") if memory is None else (_mb(memory.scratch), _mb(memory.tensors))
        runtime = f"{facts.backend} {facts.backend_version}"
        rows.append((facts.name, runtime, facts.precision, facts.input, facts.launch, _mb(facts.engine_bytes), *held))
    headings = ("engine", "backend", "precision", "input", "launch", "file, MB", "scratch, MB", "tensors, MB")
    return Cells("Engines (memory: of one session on the GPU, weights aside)", headings, tuple(rows))


def throughput_table(report: ThroughputReport) -> Cells:
    """Pairs per second by engine and number of streams."""
    most = max(len(rates) for rates in report.rates.values())
    rows = tuple((name, *(f"{rate.per_second:.1f}" for rate in rates)) for name, rates in report.rates.items())
    headings = ("engine", *(f"{count} stream{'s' if count > 1 else ''}" for count in range(1, most + 1)))
    return Cells("Throughput, pairs a second", headings, rows)


def throughput_notes(report: ThroughputReport) -> list[str]:
    """A sentence that says what a stream is."""
    options = report.options
    length = f"{options.seconds:g} s" if options.count is None else f"{options.count} pairs a stream"
    return [
        "A stream is a thread with its own session on the one loaded engine. "
        f"Engines are measured in turn, for {length} each."
    ]


def latency_table(report: LatencyReport) -> Cells:
    """Milliseconds by engine and stage."""
    ratios = report.ratios()
    rows = []
    for subject in report.subjects:
        for name, stage in subject.stages.items():
            ratio = f"{ratios[subject.name]:.2f}" if name == "total" else ""
            times = (f"{value:.2f}" for value in (stage.p50, stage.p90, stage.p99))
            rows.append((subject.name, name.replace("_", " "), *times, ratio))
    title = f"Latency, ms, {report.options.runs} runs each, interleaved"
    return Cells(title, ("engine", "stage", "p50", "p90", "p99", "ratio to the first"), tuple(rows))


def calls_table(report: CallReport) -> Cells:
    """Whole calls by engine, place and size of the frames, with the shares of host, copies and engine."""
    rows = []
    for times in report.calls:
        height, width = times.call.size
        shares = (_share(part, times.total.p50) for part in (times.host, times.copies, times.engine))
        figures = (f"{value:.2f}" for value in (times.total.p50, times.total.p90, times.engine))
        rows.append((times.call.engine, f"{width}x{height} on the {_PLACES[times.call.place]}", *figures, *shares))
    title = f"Whole calls on RGB frames, ms, {report.options.runs} runs each, interleaved"
    headings = ("engine", "frames", "p50", "p90", "engine, p50", "host", "copies", "engine's share")
    return Cells(title, headings, tuple(rows))


def calls_notes(report: CallReport) -> list[str]:
    """Calls that could not be made, and why."""
    return [
        f"Left out: {entry.call.engine}, {entry.call.size[1]}x{entry.call.size[0]} on the {_PLACES[entry.call.place]}: "
        f"{entry.reason}"
        for entry in report.skipped
    ]


def peers_table(report: PeerReport) -> Cells:
    """Runs of an engine and of its peers, in milliseconds."""
    ratios = report.latency.ratios()
    rows = tuple(
        (subject.name, *(f"{value:.2f}" for value in (subject.median, subject.stages["total"].p90)),
         f"{ratios[subject.name]:.2f}")
        for subject in report.latency.subjects
    )  # fmt: skip
    title = f"Peers of {report.engine}: one run, ms, {report.latency.options.runs} runs each, interleaved"
    return Cells(title, ("what runs it", "p50", "p90", "ratio to the engine"), rows)


def peers_notes(report: PeerReport) -> list[str]:
    """Peers that were left out, and why."""
    return [f"Left out: {name}: {reason}" for name, reason in report.skipped.items()]


def streams_table(rates: Mapping[str, Sequence[StreamRate]]) -> Cells:
    """Pairs per second of one stream through `match_many`, and what its engine did meanwhile."""
    rows = tuple(
        (name, f"{rate.size[1]}x{rate.size[0]}", f"{rate.pairs / rate.seconds:.1f}", f"{rate.busy:.0%}",
         f"{rate.waited:.0%}")
        for name, found in rates.items()
        for rate in found
    )  # fmt: skip
    headings = ("engine", "frames", "pairs a second", "engine busy", "engine waited for images")
    return Cells("One stream of RGB frames in host memory (match_many)", headings, rows)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole > 0 else "-"


def latency_notes(report: LatencyReport) -> list[str]:
    """Sentences that a reader should know beside the figures."""
    if report.options.runs < 100:
        return [f"With {report.options.runs} runs, p99 is close to the slowest one."]
    return []


def accuracy_table(reports: Sequence[AccuracyReport]) -> Cells:
    """Figures by set, with one column for each run."""
    summaries = [report.summary() for report in reports]
    rows = []
    for name in dict.fromkeys(set_name for summary in summaries for set_name in summary):
        for figure in dict.fromkeys(key for summary in summaries for key in summary.get(name, {})):
            values = (summary.get(name, {}).get(figure) for summary in summaries)
            rows.append((name, label(figure), *(number(figure, value) for value in values)))
    estimators = ", ".join(dict.fromkeys(report.options.pose_estimator for report in reports))
    return Cells(
        f"Accuracy (poses by {estimators})",
        ("set", "figure", *(report.name for report in reports)),
        tuple(rows),
    )


def comparison_table(comparison: Comparison) -> Cells:
    """A run and a baseline side by side, with the verdicts."""
    rows = tuple(
        (row.set, label(row.figure), str(row.pairs), number(row.figure, row.ours), number(row.figure, row.theirs),
         row.verdict)
        for row in comparison.rows
    )  # fmt: skip
    headings = ("set", "figure", "pairs", comparison.run, comparison.baseline, "verdict")
    return Cells(comparison.line(), headings, rows)


def label(figure: str) -> str:
    """A figure's name in plain words."""
    if figure in _LABELS:
        return _LABELS[figure]
    kind, _, value = figure.partition("_")
    if kind == "under":
        return f"pairs under {value} degrees"
    if kind == "auc":
        return f"AUC at {value} degrees"
    if kind == "corner":
        return f"corner error under {value.removesuffix('px')} px"
    if figure[:1] == "p" and figure[1:].isdigit():
        return f"within {figure[1:]} px"
    return figure


def number(figure: str, value: float | None) -> str:
    """A figure's value as text; `-` if there is none, `failed` if it is not finite."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "failed"
    if figure in _WHOLE:
        return f"{value:.0f}"
    return f"{value:.1f}" if figure in _TENTHS else f"{value:.3f}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
