"""The machine that figures were measured on, named by what it is and not by whose it is: no host or user names."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from matchrt._version import __version__

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "opencv-python", "numpy", "pillow")


@dataclass(frozen=True)
class Machine:
    """cores: logical cores that this process may use. load: average of runnable processes over the last minute."""

    cpu: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    load: float | None

    def line(self) -> str:
        """The machine in one line."""
        runtime = next((f", ONNX Runtime {v}" for n, v in self.versions.items() if n.startswith("onnxruntime")), "")
        busy = "" if self.load is None else f", load {self.load:.1f} before the run"
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return f"{self.cpu}, {cores}, {self.system}{runtime}{busy}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def this_machine() -> Machine:
    """What can be found out here and now."""
    versions = {"matchrt": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Machine(
        cpu_model(), usable_cores(), f"{platform.system()} {platform.machine()}", platform.python_version(), versions,
        _load(),
    )  # fmt: skip


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
