"""A description of the machine on which figures were measured. It contains no host or user names."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from matchrt._util.cores import usable_cores
from matchrt._version import __version__
from matchrt.errors import MatchRTError
from matchrt.nvidia.boards import Board, board_in_use, read_boards
from matchrt.nvidia.device import current_gpu
from matchrt.runtime.backend import get_backend
from matchrt.runtime.backends import DEFAULT_BACKEND, backend_names

# Packages whose versions are reported, besides those of the backends.
_PACKAGES = ("opencv-python-headless", "opencv-python", "numpy", "pillow", "cuda-python")


@dataclass(frozen=True)
class Machine:
    """The machine on which figures were measured.

    cpu: the CPU's name.
    cores: number of logical cores that this process may use.
    system: operating system and architecture.
    python: Python's version.
    versions: versions of the installed packages, by name.
    load: average number of runnable processes over the last minute, before the run; None where it is not known.
    gpu: the GPU that CUDA uses, before the run; None without a GPU.
    gpu_after: the same GPU right after the run, when its clocks are still those under load; None if not read then.
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
        """The description in one line."""
        runtime = next((f", ONNX Runtime {v}" for n, v in self.versions.items() if n.startswith(DEFAULT_BACKEND)), "")
        busy = "" if self.load is None else f", load {self.load:.1f} before the run"
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        gpu = "" if self.gpu is None else f"; {gpu_line(self.gpu, self.gpu_after)}"
        return f"{self.cpu}, {cores}, {self.system}{runtime}{busy}{gpu}"

    def after(self) -> Machine:
        """The description with the GPU's present state as `gpu_after`. Call it right after the work."""
        return self if self.gpu is None else replace(self, gpu_after=this_gpu())

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def this_machine() -> Machine:
    """The description of this machine at this moment."""
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
    """The present state of the GPU that CUDA uses; None without a GPU. Clocks are None if they cannot be read."""
    if boards := read_boards():
        return board_in_use(boards)
    try:
        gpu = current_gpu()
    except MatchRTError:  # no cuda-python, or no GPU
        return None
    return Board(gpu.index, gpu.name, "", "unknown", gpu.compute_capability, gpu.memory)


def gpu_line(before: Board, after: Board | None) -> str:
    """The GPU's name, driver and clocks in one line; clocks after the run if they are known, else before it."""
    at, when = (before, "before the run") if after is None else (after, "right after the run")
    clocks = f"SM clock {_clock(at.sm_clock, at.sm_clock_max)}, memory clock "
    return f"{at.name}, driver {at.driver}, {clocks}{_clock(at.memory_clock, at.memory_clock_max)} {when}"


def _clock(now: int | None, most: int | None) -> str:
    if now is None:
        return "unknown"
    return f"{now} MHz (at most {'unknown' if most is None else most})"


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name as the operating system gives it. cpuinfo: the file that Linux has it in."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware") and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown CPU"


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None
