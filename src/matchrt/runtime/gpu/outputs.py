"""What a run leaves on the GPU."""

from __future__ import annotations

from matchrt.runtime.gpu.arrays import GpuArray
from matchrt.runtime.gpu.layout import Layout
from matchrt.runtime.gpu.memory import Staging
from matchrt.runtime.gpu.stream import Stream


class GpuOutputs:
    """The outputs of a run, on the GPU until the session's next run.

    block: the memory that holds them.
    layout: where each is in the block.
    stream: the address of the stream in which they are made.
    own: that stream, if it is the session's; None if it is the caller's.
    """

    def __init__(self, block: Staging, layout: Layout, stream: int, own: Stream | None) -> None:
        self._block, self._layout, self._stream = block, layout, stream
        self._own = own  # kept, so that the stream lives as long as what refers to it

    def arrays(self) -> dict[str, GpuArray]:
        """The outputs `[B, ...]` by name, as arrays on the GPU, without a copy. Raises nothing."""
        stream = None if self._own is not None else self._stream
        device = self._block.device
        return {
            place.name: GpuArray(device.pointer + place.offset, place.shape, place.dtype, device, stream)
            for place in self._layout.places
        }
