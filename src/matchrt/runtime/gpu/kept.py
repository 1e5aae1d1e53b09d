"""Outputs of a run that stay on the GPU, in memory of their own, as inputs of later runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from matchrt.runtime.gpu.memory import DeviceMemory, PinnedMemory
from matchrt.runtime.gpu.stream import copy_on_device, copy_to_device

if TYPE_CHECKING:
    from matchrt.runtime.gpu.layout import Layout
    from matchrt.runtime.gpu.shape_runner import ShapeRunner


@dataclass(frozen=True)
class KeptTensor:
    """A tensor on the GPU that a session copies into its own inputs.

    pointer: its address.
    shape: in elements.
    dtype: NumPy's type of its elements.
    size: bytes.
    owner: keeps the memory while the tensor lives.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int
    owner: Any


class KeptMaps:
    """All outputs of one run, in one block of GPU memory that nothing writes to.

    memory: the block.
    layout: where each output is in it.
    """

    def __init__(self, memory: DeviceMemory, layout: Layout) -> None:
        self._memory, self._layout = memory, layout

    @property
    def nbytes(self) -> int:
        """Bytes of the block."""
        return self._memory.size

    def tensors(self) -> dict[str, KeptTensor]:
        """The outputs by name. Raises nothing."""
        base, owner = self._memory.pointer, self._memory
        return {
            place.name: KeptTensor(base + place.offset, place.shape, place.dtype, place.size, owner)
            for place in self._layout.places
        }


def keep(runner: ShapeRunner, outputs: DeviceMemory, stream: int) -> KeptMaps:
    """Copies the outputs of a run, after the work that is in the stream already.

    outputs: the block in which the run leaves them. Errors: out-of-memory, cuda-failed.
    """
    size = runner.outputs.size
    memory = DeviceMemory(size)
    copy_on_device(memory.pointer, outputs.pointer, size, size, 1, stream)
    return KeptMaps(memory, runner.outputs)


def send_each(
    inputs: dict[str, npt.NDArray[Any] | KeptTensor],
    layout: Layout,
    host: PinnedMemory,
    device: DeviceMemory,
    stream: int,
) -> None:
    """Brings the inputs of a run to their places on the GPU, each by a copy of its own.

    inputs: arrays in host memory, which lie in `host` already, or tensors on the GPU. Error: cuda-failed.
    """
    for place in layout.places:
        given, target = inputs[place.name], device.pointer + place.offset
        if isinstance(given, KeptTensor):
            copy_on_device(target, given.pointer, place.size, place.size, 1, stream)
        else:
            copy_to_device(target, host.pointer + place.offset, place.size, stream)
