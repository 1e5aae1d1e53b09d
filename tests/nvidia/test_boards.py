"""GPUs as the driver tells of them: what nvidia-smi and nvidia-ml-py say, and what they leave out."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from matchrt.nvidia import boards
from matchrt.nvidia.boards import Board, board_in_use, parse_smi, read_boards
from matchrt.nvidia.device import Gpu

# nvidia-smi --query-gpu=<fields> --format=csv,noheader,nounits
SMI = """\
0, NVIDIA H100 80GB HBM3, 00000000:65:00.0, 580.159.03, 9.0, 81559, 80921, 345, 1980, 2619, 2619
1, NVIDIA A100 MIG 1g, 00000000:B6:00.0, 580.159.03, 8.0, [N/A], [Unknown Error], [N/A], 1410, [Not Supported], N/A
"""


def test_what_nvidia_smi_prints() -> None:
    first, second = parse_smi(SMI)
    assert first == Board(
        0, "NVIDIA H100 80GB HBM3", "00000000:65:00.0", "580.159.03", "9.0", 81559 * 2**20, 80921 * 2**20,
        345, 1980, 2619, 2619,
    )  # fmt: skip
    assert second.sm_clock is None and second.sm_clock_max == 1410
    assert second.memory_clock is second.memory_clock_max is second.memory_total is second.memory_free is None
    assert parse_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n") == ()


def test_nothing_to_ask_means_nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(boards.shutil, "which", lambda name: None)
    assert read_boards() == ()


class NVMLError(Exception):
    pass


def _unsupported(*_: Any) -> Any:
    raise NVMLError("Not Supported")


def _nvml(**other: Any) -> SimpleNamespace:
    functions: dict[str, Any] = {
        "NVMLError": NVMLError, "NVML_CLOCK_SM": 1, "NVML_CLOCK_MEM": 2,
        "nvmlInit": lambda: None, "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: b"580.159.03", "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index, "nvmlDeviceGetName": lambda handle: "NVIDIA L4",
        "nvmlDeviceGetPciInfo": lambda handle: SimpleNamespace(busId=b"00000000:01:00.0"),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (8, 9),
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=24 << 30, free=20 << 30),
        "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 2040, 2: 6251}[kind],
        "nvmlDeviceGetMaxClockInfo": _unsupported,
    }  # fmt: skip
    return SimpleNamespace(**functions | other)


def test_nvidia_ml_py_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _nvml())
    monkeypatch.setattr(boards, "_through_smi", lambda: pytest.fail("nvidia-smi was asked too"))
    (board,) = read_boards()
    assert (board.name, board.driver, board.compute_capability) == ("NVIDIA L4", "580.159.03", "8.9")
    assert (board.sm_clock, board.memory_clock, board.sm_clock_max) == (2040, 6251, None)
    assert board_in_use((board,)) == board  # CUDA cannot be asked here, and there is only one


def test_a_driver_that_does_not_answer_nvml_is_asked_through_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _nvml(nvmlInit=_unsupported))
    ran = SimpleNamespace(returncode=0, stdout=SMI)
    monkeypatch.setattr(boards.shutil, "which", lambda name: name)
    monkeypatch.setattr(boards.subprocess, "run", lambda command, **_: ran)
    assert len(read_boards()) == 2


@pytest.mark.parametrize(("bus", "name", "chosen"), [(b"0000:B6:00.0\0", "", 1), (b"0000:01:00.0\0", "second", 1),
                                                     (b"0000:01:00.0\0", "no such", None)])  # fmt: skip
def test_the_board_that_cuda_uses(monkeypatch: pytest.MonkeyPatch, bus: bytes, name: str, chosen: int | None) -> None:
    """By its bus, and by its name in a virtual machine, where CUDA's numbers are others than the driver's."""
    runtime = SimpleNamespace(cudaDeviceGetPCIBusId=lambda length, index: (0, bus))
    found = tuple(replace(board, name=name) for board, name in zip(parse_smi(SMI), ("first", "second"), strict=True))
    monkeypatch.setattr(boards, "cuda_runtime", lambda: runtime)
    monkeypatch.setattr(boards, "current_gpu", lambda: Gpu(0, name, "8.9", 1, "13.0", "13.0"))
    assert board_in_use(found) == (None if chosen is None else found[chosen])
    alike = tuple(replace(board, name="second") for board in found)
    assert board_in_use(alike) == (alike[1] if bus == b"0000:B6:00.0\0" else None)
