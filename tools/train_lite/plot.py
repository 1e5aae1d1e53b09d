"""Draws the log of a run: losses, and precision and recall on held-out tiles."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    with arguments.log.open(newline="") as stream:
        rows = list(csv.DictReader(stream))

    def series(name: str) -> tuple[list[float], list[float]]:
        kept = [row for row in rows if row[name]]
        return [float(row["pairs"]) / 1000 for row in kept], [float(row[name]) for row in kept]

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, label in (("coarse", "coarse (focal)"), ("fine", "fine (l2)")):
        left.plot(*series(name), label=label, linewidth=1.2)
    left.set(xlabel="thousand pairs seen", ylabel="training loss", ylim=(0, 3))
    for name, label in (
        ("precision3", "precision, 3 px"),
        ("precision1", "precision, 1 px"),
        ("recall3", "recall, 3 px"),
    ):
        right.plot(*series(name), label=label, marker="o", markersize=3, linewidth=1.2)
    right.set(xlabel="thousand pairs seen", ylabel="held-out tiles, threshold 0.2", ylim=(0, 1))
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(arguments.output, dpi=100)


if __name__ == "__main__":
    main()
