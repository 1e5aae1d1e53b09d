"""A whole run as one document: JSON with every number, or Markdown with the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matchrt.bench.accuracy import AccuracyReport
from matchrt.bench.compare import Comparison
from matchrt.bench.latency import LatencyReport
from matchrt.bench.machine import Machine
from matchrt.bench.tables import Cells, accuracy_table, comparison_table, latency_notes, latency_table


def report_value(
    machine: Machine,
    latency: LatencyReport | None,
    accuracy: Sequence[AccuracyReport],
    comparisons: Sequence[Comparison],
) -> dict[str, Any]:
    """As JSON values."""
    return {
        "machine": machine.to_json(),
        "latency": None if latency is None else latency.to_json(),
        "accuracy": [report.to_json() for report in accuracy],
        "comparisons": [comparison.to_json() for comparison in comparisons],
    }


def report_tables(
    latency: LatencyReport | None, accuracy: Sequence[AccuracyReport], comparisons: Sequence[Comparison]
) -> list[tuple[Cells, list[str]]]:
    """Tables in reading order, each with its notes."""
    tables: list[tuple[Cells, list[str]]] = []
    if latency is not None:
        tables.append((latency_table(latency), latency_notes(latency)))
    if accuracy:
        tables.append((accuracy_table(accuracy), []))
    tables += [(comparison_table(comparison), list(comparison.notes)) for comparison in comparisons]
    return tables


def report_markdown(
    machine: Machine,
    latency: LatencyReport | None,
    accuracy: Sequence[AccuracyReport],
    comparisons: Sequence[Comparison],
) -> str:
    """As Markdown."""
    parts = ["## matchrt bench", "", f"Measured on: {machine.line()}", ""]
    for table, notes in report_tables(latency, accuracy, comparisons):
        parts += [table.markdown(), *(f"{note}\n" for note in notes)]
    return "\n".join(parts)
