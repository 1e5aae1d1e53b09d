"""A whole run as one document: JSON with all numbers, or Markdown with tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matchrt.bench.accuracy import AccuracyReport
from matchrt.bench.compare import Comparison
from matchrt.bench.engines import EngineFacts
from matchrt.bench.latency import LatencyReport
from matchrt.bench.machine import Machine
from matchrt.bench.tables import (
    Cells,
    accuracy_table,
    comparison_table,
    engines_table,
    latency_notes,
    latency_table,
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
    throughput: None if it was not measured.
    accuracy: one report for each engine; empty if it was not measured.
    comparisons: the accuracy of each engine compared with baselines and with the first engine.
    """

    machine: Machine
    engines: tuple[EngineFacts, ...] = ()
    latency: LatencyReport | None = None
    throughput: ThroughputReport | None = None
    accuracy: tuple[AccuracyReport, ...] = ()
    comparisons: tuple[Comparison, ...] = ()


def report_value(results: Results) -> dict[str, Any]:
    """The results as JSON values."""
    return {
        "machine": results.machine.to_json(),
        "engines": [facts.to_json() for facts in results.engines],
        "latency": None if results.latency is None else results.latency.to_json(),
        "throughput": None if results.throughput is None else results.throughput.to_json(),
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
    if results.throughput is not None:
        tables.append((throughput_table(results.throughput), throughput_notes(results.throughput)))
    if results.accuracy:
        tables.append((accuracy_table(results.accuracy), []))
    tables += [(comparison_table(comparison), list(comparison.notes)) for comparison in results.comparisons]
    return tables


def report_markdown(results: Results) -> str:
    """The results as a Markdown document."""
    parts = ["## matchrt bench", "", f"Measured on: {results.machine.line()}", ""]
    for table, notes in report_tables(results):
        parts += [table.markdown(), *(f"{note}\n" for note in notes)]
    return "\n".join(parts)
