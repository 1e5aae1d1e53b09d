"""What a reader should know before believing figures: a machine that is busy, sizes that differ, engines left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matchrt.bench.machine import Machine

if TYPE_CHECKING:
    from matchrt.manifest import EngineManifest

# Above this many runnable processes for each core, others take a part of the time.
_BUSY = 0.3
# Above this share of the time, the host of a virtual machine gave it to others.
_STOLEN = 0.02
_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class CpuTime:
    """The kernel's counters of all cores together, in its ticks.

    total: since the machine started.
    stolen: of these, what the host of a virtual machine gave to others.
    """

    total: int
    stolen: int

    def share_stolen_since(self, before: CpuTime) -> float:
        """The share of the time between the two that was stolen, 0..1. Raises nothing."""
        passed = self.total - before.total
        return (self.stolen - before.stolen) / passed if passed > 0 else 0.0


def cpu_time(stat: Path = _STAT) -> CpuTime | None:
    """The counters now; None where the system has none. stat: the file that Linux has them in."""
    try:
        fields = stat.read_text(encoding="ascii").splitlines()[0].split()
        counts = [int(field) for field in fields[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return CpuTime(sum(counts), counts[7]) if fields[0] == "cpu" and len(counts) == 8 else None


def machine_cautions(machine: Machine, stolen: float | None = None) -> list[str]:
    """Sentences about the machine. stolen: the share of the run's time that went to others, 0..1; None if unknown."""
    found = []
    if machine.load is not None and machine.load > _BUSY * machine.cores:
        found.append(
            f"The machine was busy before the run: load {machine.load:.1f} on {machine.cores} cores. Times are too "
            "long; compare only what was measured in turn, or run again when it is idle."
        )
    if stolen is not None and stolen > _STOLEN:
        found.append(f"This machine's host gave {stolen:.0%} of the time to other machines: times are too long.")
    return found


def size_cautions(manifests: Mapping[str, EngineManifest], frame: tuple[int, int] | None) -> list[str]:
    """Sentences about sizes. manifests: of the engines, by their names in the report. frame: (height, width) of the
    generated pair, pixels; None if users gave images.
    """
    fixed = {name: (manifest.input.height, manifest.input.width) for name, manifest in manifests.items()}
    found = []
    if len(set(fixed.values())) > 1:
        sizes = ", ".join(f"{name} {_shown(size)}" for name, size in fixed.items())
        found.append(f"The engines work at different sizes ({sizes}): their times are not for the same work.")
    if frame is not None:
        for name, size in fixed.items():
            if size not in (frame, (None, None)):
                found.append(f"{name} resizes the pair of {_shown(frame)} to fit into {_shown(size)}; see --size.")
    return found


def _shown(size: tuple[int | None, int | None]) -> str:
    return "of any size" if size[0] is None else f"{size[0]}x{size[1]}"
