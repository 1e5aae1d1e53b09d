"""Plots of recall curves and latencies. Only this module and `per_block` need matplotlib.

Error: `package-missing`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from matchrt._util import atomic
from matchrt.bench.accuracy import HOMOGRAPHY_PX, AccuracyReport
from matchrt.bench.engines import EngineFacts
from matchrt.bench.latency import LatencyReport
from matchrt.bench.metrics import recall_curve
from matchrt.errors import MatchRTError, missing_package

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
_LARGEST_DEGREES = 20.0


def check_plot(path: Path) -> None:
    """Checks before any work that a plot can be drawn into this file. Errors: output-format, package-missing."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise MatchRTError(
            "output-format", f"A plot cannot be written as '{path}'.", f"Use {', '.join(PLOT_SUFFIXES)}."
        )
    figure_class()


def pose_curves(reports: Sequence[AccuracyReport]) -> dict[str, tuple[list[float], list[float]]]:
    """The recall curves of poses by run and set: degrees and shares of pairs, as steps from (0, 0) to 20 degrees.

    The error of a pose is the larger one of its rotation and its translation.
    """
    curves = {}
    for report in reports:
        for name, pairs in report.sets().items():
            errors = [max(p.figures["err_R"], p.figures["err_t"]) for p in pairs if "err_R" in p.figures]
            if not errors:
                continue
            degrees, recall = recall_curve(errors)
            shown = degrees < _LARGEST_DEGREES
            last = float(recall[shown][-1]) if shown.any() else 0.0
            x = [0.0, *degrees[shown].tolist(), _LARGEST_DEGREES]
            curves[f"{report.name}, {name}"] = x, [0.0, *recall[shown].tolist(), last]
    return curves


def pixel_curves(reports: Sequence[AccuracyReport]) -> dict[str, tuple[list[float], list[float]]]:
    """The curves of homographies by run and set: pixels at a long side of 640, and mean shares of matches within."""
    curves = {}
    for report in reports:
        for name, figures in report.summary().items():
            shares = [figures.get(f"p{pixels}", math.nan) for pixels in HOMOGRAPHY_PX]
            if not np.isnan(shares).any():
                curves[f"{report.name}, {name}"] = [float(pixels) for pixels in HOMOGRAPHY_PX], shares
    return curves


def save_plot(reports: Sequence[AccuracyReport], path: Path) -> None:
    """Draws the curves of homographies (left) and poses (right) into a .png, .svg or .pdf file.

    Errors: output-format, output-unwritable, package-missing.
    """
    check_plot(path)
    figure = figure_class()(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, curves, style in ((left, pixel_curves(reports), "default"), (right, pose_curves(reports), "steps-post")):
        for name, (x, y) in curves.items():
            axes.plot(x, y, label=name, drawstyle=style, marker="o" if style == "default" else None)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        if curves:
            axes.legend(fontsize="small")
    left.set(title="Matches within a distance of the true homography", xlabel="px at 640", ylabel="share of matches")
    left.set_xscale("log", base=2)
    left.set_xticks(HOMOGRAPHY_PX, labels=[str(pixels) for pixels in HOMOGRAPHY_PX])
    right.set(title="Relative poses", xlabel="error of R or t, degrees", ylabel="share of pairs")
    with atomic.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def latency_curves(report: LatencyReport) -> dict[str, tuple[list[float], list[float]]]:
    """The latency curves by engine: milliseconds, and the shares of runs that took no longer. Each run is one step."""
    curves = {}
    for subject in report.subjects:
        ordered = sorted(subject.samples)
        shares = [index / len(ordered) for index in range(len(ordered) + 1)]
        curves[subject.name] = [ordered[0], *ordered], shares
    return curves


def save_latency_plot(report: LatencyReport, facts: Sequence[EngineFacts], path: Path) -> None:
    """Draws the distribution of every engine's totals, with lines at p50 and p99, into a .png, .svg or .pdf file.

    facts: backend and precision of the engines, for the legend.
    Errors: output-format, output-unwritable, package-missing.
    """
    check_plot(path)
    kinds = {entry.name: f" ({entry.backend}, {entry.precision})" for entry in facts}
    figure = figure_class()(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in latency_curves(report).items():
        axes.plot(x, y, label=name + kinds.get(name, ""), drawstyle="steps-post")
    for share in (0.5, 0.99):
        axes.axhline(share, color="grey", linewidth=0.8, linestyle="dotted")
    axes.set(title=f"Latency of {report.options.runs} runs each, in turn", xlabel="ms, images in to matches out")
    axes.set(ylabel="share of runs", ylim=(0, 1.01))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    with atomic.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def figure_class() -> Any:
    """matplotlib's class Figure. It is used without pyplot, which would open windows and keep global state.

    Error: package-missing.
    """
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise missing_package("matplotlib", "plots", "Plotting") from error
