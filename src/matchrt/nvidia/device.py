"""The GPU that this thread uses: name, compute capability, memory, driver."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from matchrt.errors import MatchRTError
from matchrt.nvidia.cuda import call, cuda_runtime

_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """One GPU, as CUDA sees it.

    index: CUDA's number of it.
    name: such as `NVIDIA H100 80GB HBM3`.
    compute_capability: such as `8.9`.
    memory: bytes in total.
    driver: the CUDA version of the driver, such as `13.0`.
    runtime: the CUDA version of the runtime, likewise.
    """

    index: int
    name: str
    compute_capability: str
    memory: int
    driver: str
    runtime: str


def current_gpu() -> Gpu:
    """The GPU that this thread uses. Errors: package-missing, device-missing."""
    runtime = cuda_runtime()
    return _describe(call(runtime.cudaGetDevice))


def find_gpus() -> tuple[Gpu, ...]:
    """Every GPU that CUDA shows; empty if there is none. Error: package-missing."""
    runtime = cuda_runtime()
    try:
        count = call(runtime.cudaGetDeviceCount)
    except MatchRTError as error:
        if error.code != "device-missing":
            raise
        return ()
    return tuple(_describe(index) for index in range(count))


def free_memory() -> int:
    """Free bytes on the GPU that this thread uses. Errors: package-missing, device-missing."""
    free, _ = call(cuda_runtime().cudaMemGetInfo)
    return int(free)


def driver_version() -> str | None:
    """The version of the NVIDIA driver, such as `580.159.04`; None where the kernel does not tell it (Windows)."""
    try:
        text = _DRIVER_FILE.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b\d{3,}(?:\.\d+)+\b", text)
    return None if found is None else found.group()


def _describe(index: int) -> Gpu:
    runtime = cuda_runtime()
    properties = call(runtime.cudaGetDeviceProperties, index)
    name = properties.name
    return Gpu(
        index=int(index),
        name=(name.decode() if isinstance(name, bytes) else str(name)).rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        memory=int(properties.totalGlobalMem),
        driver=_version(call(runtime.cudaDriverGetVersion)),
        runtime=_version(call(runtime.cudaRuntimeGetVersion)),
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
