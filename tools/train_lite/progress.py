"""How far a run is, and its log."""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import torch
import torch.distributed as dist

FIELDS = (
    "step",
    "seconds",
    "progress",
    "pairs",
    "lr",
    "coarse",
    "fine",
    "precision3",
    "precision1",
    "recall3",
    "matches",
)


class Clock:
    """The share of the run that has passed, the same on every rank. `OUT/minutes` overrides `--minutes` meanwhile."""

    def __init__(self, arguments: argparse.Namespace, earlier: float, device: torch.device) -> None:
        self.arguments = arguments
        self.begin = time.monotonic() - earlier
        self.first = 0.0
        self.device = device
        self.share = 0.0

    def seconds(self) -> float:
        """Since the run began, pauses between resumed parts left out."""
        return time.monotonic() - self.begin

    def start(self) -> None:
        """Called after the first step: compilation does not count."""
        self.first = self.seconds()

    def progress(self, step: int) -> float:
        """0..1; asks rank 0 every tenth step."""
        if self.arguments.steps:
            return step / float(self.arguments.steps)
        if step % 10 == 0:
            override = self.arguments.out / "minutes"
            minutes = float(override.read_text()) if override.exists() else self.arguments.minutes
            share = torch.tensor((self.seconds() - self.first) / (60 * minutes - self.first), device=self.device)
            if dist.is_initialized():
                dist.broadcast(share, 0)
            self.share = float(share) if self.first else 0.0
        return self.share


class Log:
    """The CSV of a run, echoed to the terminal; silent on ranks other than 0."""

    def __init__(self, path: Path, main: bool) -> None:
        self.main = main
        if not main:
            return
        fresh = not path.exists()
        self.stream = path.open("a", newline="")
        self.writer = csv.DictWriter(self.stream, FIELDS)
        if fresh:
            self.writer.writeheader()

    def row(self, values: dict[str, object]) -> None:
        """Writes one row."""
        if self.main:
            self.writer.writerow(values)
            self.stream.flush()
            print(values, flush=True)
