"""A whole run as one document: JSON with all numbers, or Markdown with tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matchrt.bench.accuracy import AccuracyReport
from matchrt.bench.calls import CallReport
from matchrt.bench.compare import Comparison
from matchrt.bench.engines import EngineFacts
from matchrt.bench.latency import LatencyReport
from matchrt.bench.machine import Machine
from matchrt.bench.peers import PeerReport
from matchrt.bench.stream_rate import StreamRate
from matchrt.bench.tables import (
    Cells,
    accuracy_table,
    calls_notes,
    calls_table,
    comparison_table,
    engines_table,
    latency_notes,
    latency_table,
    peers_notes,
    peers_table,
    streams_table,
    throughput_notes,
    throughput_table,
)
from matchrt.bench.throughput import ThroughputReport


@dataclass(frozen=True)
class Results:
    """Everything that a run of `matchrt bench` measured.

    machine: where it was measured.
    engines: facts about the engines.
    latency: None if it was not measured.
    calls: whole calls on frames of several sizes; None if they were not measured.
    peers: of each engine; empty if they were not asked for.
    throughput: None if it was not measured.
    streams: by the engine's name, one stream of frames of each size; empty if it was not measured.
    accuracy: one report for each engine; empty if it was not measured.
    comparisons: the accuracy of each engine compared with baselines and with the first engine.
    cautions: what a reader should know, a sentence each: a busy machine, sizes that differ, engines that were left out.
    """

    machine: Machine
    engines: tuple[EngineFacts, ...] = ()
    latency: LatencyReport | None = None
    calls: CallReport | None = None
    peers: tuple[PeerReport, ...] = ()
    throughput: ThroughputReport | None = None
    streams: Mapping[str, tuple[StreamRate, ...]] = field(default_factory=dict)
    accuracy: tuple[AccuracyReport, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    cautions: tuple[str, ...] = ()


def report_value(results: Results) -> dict[str, Any]:
    """The results as JSON values."""
    return {
        "machine": results.machine.to_json(),
        "cautions": list(results.cautions),
        "engines": [facts.to_json() for facts in results.engines],
        "latency": None if results.latency is None else results.latency.to_json(),
        "calls": None if results.calls is None else results.calls.to_json(),
        "peers": [report.to_json() for report in results.peers],
        "throughput": None if results.throughput is None else results.throughput.to_json(),
        "streams": {name: [rate.to_json() for rate in rates] for name, rates in results.streams.items()},
        "accuracy": [report.to_json() for report in results.accuracy],
        "comparisons": [comparison.to_json() for comparison in results.comparisons],
    }


def report_tables(results: Results) -> list[tuple[Cells, list[str]]]:
    """Tables in reading order, each with its notes."""
    tables: list[tuple[Cells, list[str]]] = []
    if results.engines:
        tables.append((engines_table(results.engines), []))
    if results.latency is not None:
        tables.append((latency_table(results.latency), latency_notes(results.latency)))
    if results.calls is not None and (results.calls.calls or results.calls.skipped):
        tables.append((calls_table(results.calls), calls_notes(results.calls)))
    tables += [(peers_table(report), peers_notes(report)) for report in results.peers]
    if results.throughput is not None:
        tables.append((throughput_table(results.throughput), throughput_notes(results.throughput)))
    if results.streams:
        tables.append((streams_table(results.streams), []))
    if results.accuracy:
        tables.append((accuracy_table(results.accuracy), []))
    tables += [(comparison_table(comparison), list(comparison.notes)) for comparison in results.comparisons]
    return tables


def report_markdown(results: Results) -> str:
    """The results as a Markdown document."""
    parts = ["## matchrt bench", "", f"Measured on: {results.machine.line()}", ""]
    parts += [f"**Caution:** {caution}\n" for caution in results.cautions]
    for table, notes in report_tables(results):
        parts += [table.markdown(), *(f"{note}\n" for note in notes)]
    return "\n".join(parts)
