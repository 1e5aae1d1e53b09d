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
    "false",
)


class Clock:
    """How much of the schedule has passed, the same on every rank.

    This part of the run leads from `start` (0, or where a resumed run stood) to `--until` in `--minutes`, which begin
    after the first step: loading and compilation do not count. `OUT/minutes` overrides `--minutes` meanwhile.
    """

    def __init__(self, arguments: argparse.Namespace, start: float, device: torch.device) -> None:
        self.arguments = arguments
        self.start_share = start
        self.first: float | None = None
        self.device = device
        self.share = start

    def start(self) -> None:
        """Called after the first step."""
        if self.first is None:
            self.first = time.monotonic()

    def progress(self, step: int) -> float:
        """0..1; asks rank 0 every tenth step."""
        if self.arguments.steps:
            return step / float(self.arguments.steps)
        if step % 10 == 0 and self.first is not None:
            override = self.arguments.out / "minutes"
            minutes = float(override.read_text()) if override.exists() else self.arguments.minutes
            passed = torch.tensor((time.monotonic() - self.first) / (60 * minutes), device=self.device)
            if dist.is_initialized():
                dist.broadcast(passed, 0)
            self.share = self.start_share + (self.arguments.until - self.start_share) * float(passed)
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
