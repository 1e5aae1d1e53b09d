"""The GPUs, as the driver and CUDA describe them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from matchrt.doctor.ask import Answer
from matchrt.nvidia.boards import bus_number

Description = Mapping[str, Any]


@dataclass(frozen=True)
class GpuState:
    """One GPU. None stands for a value that is not known.

    name: the GPU's name.
    compute_capability: such as `8.9`.
    memory_total, memory_free: in bytes.
    cuda: whether CUDA programs can use the GPU.
    """

    name: str
    compute_capability: str | None
    memory_total: int | None
    memory_free: int | None
    cuda: bool


@dataclass(frozen=True)
class Gpus:
    """All GPUs of this machine. None stands for a value that is not known.

    found: the GPUs that the driver or CUDA shows.
    driver: the driver's version, such as `580.159`.
    cuda_driver: the CUDA version that the driver supports.
    cuda_runtime: the CUDA version of cuda-python.
    why_none: why CUDA sees no GPU, as code, message and remedy; None if it sees one.
    """

    found: tuple[GpuState, ...] = ()
    driver: str | None = None
    cuda_driver: str | None = None
    cuda_runtime: str | None = None
    why_none: Mapping[str, str] | None = None

    @property
    def usable(self) -> tuple[GpuState, ...]:
        """The GPUs that CUDA sees."""
        return tuple(gpu for gpu in self.found if gpu.cuda)


def read_gpus(answer: Answer) -> Gpus:
    """The GPUs from the answer of the probe `gpus`."""
    if answer.value is None:
        return Gpus(why_none=answer.error)
    seen = answer.value["cuda"]
    boards, left = _matched(seen, answer.value["boards"])
    found = [_usable(gpu, board) for gpu, board in zip(seen, boards, strict=True)]
    found += [_unusable(board) for board in left]
    return Gpus(
        found=tuple(found),
        driver=next((board["driver"] for board in answer.value["boards"]), None),
        cuda_driver=next((gpu["driver"] for gpu in seen), None),
        cuda_runtime=next((gpu["runtime"] for gpu in seen), None),
        why_none=None if seen else (answer.value["error"] or _hidden()),
    )


def _matched(seen: list[Description], boards: list[Description]) -> tuple[list[Description], list[Description]]:
    """The board of each GPU that CUDA sees (empty if it is not known), and the boards that CUDA does not see.

    Boards are found by their bus number. In virtual machines the driver and CUDA may number the bus differently; boards
    are then found by name.
    """
    left = list(boards)

    def take(value: object, of: Callable[[Description], object]) -> Description | None:
        board = next((board for board in left if of(board) == value), None)
        if board is not None:
            left.remove(board)
        return board

    by_bus = [take(bus_number(gpu["bus"]), lambda board: bus_number(board["bus"])) for gpu in seen]
    found = [board or take(gpu["name"], lambda board: board["name"]) for gpu, board in zip(seen, by_bus, strict=True)]
    return [board or {} for board in found], left


def _usable(gpu: Mapping[str, Any], board: Mapping[str, Any]) -> GpuState:
    free = board.get("memory_free") if gpu["free"] is None else gpu["free"]
    return GpuState(gpu["name"], gpu["compute_capability"], gpu["memory"], free, True)


def _unusable(board: Mapping[str, Any]) -> GpuState:
    return GpuState(board["name"], board["compute_capability"], board["memory_total"], board["memory_free"], False)


def _hidden() -> dict[str, str]:
    return {
        "code": "device-missing",
        "message": "CUDA shows no GPU.",
        "remedy": "Check CUDA_VISIBLE_DEVICES, and in a container also --gpus.",
    }
