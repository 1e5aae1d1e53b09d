"""The machine that figures were measured on, named by what it is and not by whose it is: no host or user names."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from matchrt._version import __version__
from matchrt.errors import MatchRTError
from matchrt.nvidia.boards import Board, board_in_use, read_boards
from matchrt.nvidia.device import current_gpu
from matchrt.runtime.backend import get_backend
from matchrt.runtime.backends import DEFAULT_BACKEND, backend_names

# Besides those of the backends.
_PACKAGES = ("opencv-python-headless", "opencv-python", "numpy", "pillow", "cuda-python")


@dataclass(frozen=True)
class Machine:
    """cores: logical cores that this process may use. load: average of runnable processes over the last minute.

    gpu: the one that CUDA uses, before the run; gpu_after: right after it, when its clocks are still those of work.
    """

    cpu: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    load: float | None
    gpu: Board | None = None
    gpu_after: Board | None = None

    def line(self) -> str:
        """The machine in one line."""
        runtime = next((f", ONNX Runtime {v}" for n, v in self.versions.items() if n.startswith(DEFAULT_BACKEND)), "")
        busy = "" if self.load is None else f", load {self.load:.1f} before the run"
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        gpu = "" if self.gpu is None else f"; {gpu_line(self.gpu, self.gpu_after)}"
        return f"{self.cpu}, {cores}, {self.system}{runtime}{busy}{gpu}"

    def after(self) -> Machine:
        """With the GPU as it is now. Call it right after the work."""
        return self if self.gpu is None else replace(self, gpu_after=this_gpu())

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def this_machine() -> Machine:
    """What can be found out here and now."""
    versions = {"matchrt": __version__}
    backends = [get_backend(name) for name in backend_names()]
    runtimes = [package for backend in backends if not backend.takes_weights for package in backend.distributions]
    for package in (*runtimes, *_PACKAGES):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Machine(
        cpu_model(), usable_cores(), f"{platform.system()} {platform.machine()}", platform.python_version(), versions,
        _load(), this_gpu(),
    )  # fmt: skip


def this_gpu() -> Board | None:
    """The GPU that CUDA uses, as it is now; without clocks where the driver cannot be asked; None without a GPU."""
    if boards := read_boards():
        return board_in_use(boards)
    try:
        gpu = current_gpu()
    except MatchRTError:  # no cuda-python, or no GPU
        return None
    return Board(gpu.index, gpu.name, "", "unknown", gpu.compute_capability, gpu.memory)


def gpu_line(before: Board, after: Board | None) -> str:
    """Name, driver and clocks: of the work where they were read then, else of the time before."""
    at, when = (before, "before the run") if after is None else (after, "right after the run")
    clocks = f"SM clock {_clock(at.sm_clock, at.sm_clock_max)}, memory clock "
    return f"{at.name}, driver {at.driver}, {clocks}{_clock(at.memory_clock, at.memory_clock_max)} {when}"


def _clock(now: int | None, most: int | None) -> str:
    if now is None:
        return "unknown"
    return f"{now} MHz (at most {'unknown' if most is None else most})"


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name as the system gives it."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware") and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown CPU"


def usable_cores() -> int:
    """Logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None
