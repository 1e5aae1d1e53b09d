"""GPUs as their driver sees them: driver version, clocks, memory. This needs no CUDA context, so it disturbs nothing.

The driver is asked through nvidia-ml-py if it is installed, else through the program nvidia-smi. Without either,
nothing is known, and nothing is guessed.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.nvidia.cuda import call, cuda_runtime
from matchrt.nvidia.device import current_gpu

_TIMEOUT_S = 10
_FIELDS = (
    "index", "name", "pci.bus_id", "driver_version", "compute_cap", "memory.total", "memory.free",
    "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem",
)  # fmt: skip
_MB = 2**20


@dataclass(frozen=True)
class Board:
    """One GPU. A value is None if the driver does not say it.

    index: the driver's number, which CUDA_VISIBLE_DEVICES does not change.
    name: the GPU's name.
    bus: its PCI address, which CUDA knows too.
    driver: version of the driver.
    compute_capability: such as `8.9`.
    memory_total: bytes.
    memory_free: bytes.
    sm_clock: of the multiprocessors at this moment, MHz.
    sm_clock_max: their highest clock, MHz.
    memory_clock: of the memory at this moment, MHz.
    memory_clock_max: its highest clock, MHz.
    """

    index: int
    name: str
    bus: str
    driver: str
    compute_capability: str | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    sm_clock: int | None = None
    sm_clock_max: int | None = None
    memory_clock: int | None = None
    memory_clock_max: int | None = None


def read_boards() -> tuple[Board, ...]:
    """Every GPU that the driver shows, as it is now; empty if the driver cannot be asked. Raises nothing."""
    boards = _through_nvml()
    return _through_smi() if boards is None else boards


def board_in_use(boards: tuple[Board, ...]) -> Board | None:
    """The board that CUDA runs on in this thread; if CUDA cannot be asked, the only board. None if it is not known.

    Boards are compared by PCI address. If a virtual machine gives the driver and CUDA different addresses, a name that
    only one board has decides. Raises nothing.
    """
    with contextlib.suppress(MatchRTError):
        gpu = current_gpu()
        bus = call(cuda_runtime().cudaDeviceGetPCIBusId, 32, gpu.index)
        text = bus.decode() if isinstance(bus, bytes) else str(bus)
        wanted = bus_number(text.rstrip("\0"))
        boards = tuple(board for board in boards if bus_number(board.bus) == wanted) or tuple(
            board for board in boards if board.name == gpu.name
        )
    return boards[0] if len(boards) == 1 else None


def parse_smi(text: str) -> tuple[Board, ...]:
    """The boards in the output of `nvidia-smi --query-gpu=... --format=csv,noheader,nounits`. Raises nothing."""
    boards = []
    for row in csv.reader(io.StringIO(text), skipinitialspace=True):
        if len(row) != len(_FIELDS) or not row[0].strip().isdigit():
            continue
        said: dict[str, str | None] = {name: _said(value) for name, value in zip(_FIELDS, row, strict=True)}
        total, free = _number(said["memory.total"]), _number(said["memory.free"])
        boards.append(
            Board(
                index=int(row[0]),
                name=said["name"] or "unknown GPU",
                bus=said["pci.bus_id"] or "",
                driver=said["driver_version"] or "unknown",
                compute_capability=said["compute_cap"],
                memory_total=None if total is None else total * _MB,
                memory_free=None if free is None else free * _MB,
                sm_clock=_number(said["clocks.sm"]),
                sm_clock_max=_number(said["clocks.max.sm"]),
                memory_clock=_number(said["clocks.mem"]),
                memory_clock_max=_number(said["clocks.max.mem"]),
            )
        )
    return tuple(boards)


def _through_smi() -> tuple[Board, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_smi(ran.stdout) if ran.returncode == 0 else ()


def _through_nvml() -> tuple[Board, ...] | None:
    """The boards as nvidia-ml-py lists them; None if it is missing or finds no driver."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:
        # NVMLError is a type of the module that may not be there.
        return None
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        return tuple(_describe(nvml, index, driver) for index in range(nvml.nvmlDeviceGetCount()))
    except Exception:
        return None
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()


def _describe(nvml: Any, index: int, driver: str) -> Board:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def known(ask: Callable[..., Any], *arguments: Any) -> Any:
        # Shares of a GPU (MIG) and some boards do not tell everything.
        try:
            return ask(handle, *arguments)
        except nvml.NVMLError:
            return None

    capability = known(nvml.nvmlDeviceGetCudaComputeCapability)
    memory = known(nvml.nvmlDeviceGetMemoryInfo)
    return Board(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        bus=_text(nvml.nvmlDeviceGetPciInfo(handle).busId),
        driver=driver,
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        memory_total=None if memory is None else int(memory.total),
        memory_free=None if memory is None else int(memory.free),
        sm_clock=known(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
        sm_clock_max=known(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
        memory_clock=known(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
        memory_clock_max=known(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_MEM),
    )


def bus_number(bus: str) -> tuple[int, ...]:
    """A PCI address as numbers: `00000000:65:00.0` and `0000:65:00.0` are equal. Empty if it is no address."""
    parts = bus.replace(".", ":").split(":")
    try:
        return tuple(int(part, 16) for part in parts)
    except ValueError:
        return ()


def _said(value: str) -> str | None:
    """The value, or None: nvidia-smi writes [N/A], [Not Supported] and the like for what it does not know."""
    value = value.strip()
    return None if not value or value.startswith("[") or value.upper() == "N/A" else value


def _number(value: str | None) -> int | None:
    try:
        return None if value is None else int(float(value))
    except ValueError:
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
