"""Images from host memory to the GPU as they are: through page-locked memory by several threads, or straight."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._util.cores import usable_cores
from matchrt.nvidia.cuda import call, cuda_runtime
from matchrt.runtime.gpu.layout import ALIGNMENT
from matchrt.runtime.gpu.memory import Staging
from matchrt.runtime.gpu.stream import copy_to_device

# A thread copies this much, then tells the GPU to fetch it while it copies on. Smaller chunks and more threads wait for
# one another in Python and in the driver (measured: docs/gpu-figures.md).
CHUNK = 8 << 20
# Below this, other threads take longer to wake up than to copy.
PARALLEL_FROM = 4 << 20
MAX_THREADS = 3


@dataclass(frozen=True, eq=False)
class HostFrame:
    """An image in host memory.

    array: the bytes to transfer: rows first, uint8.
    pinned: whether the memory is page-locked, so that the GPU reads it itself. The array is then transferred from its
        first byte to its last one, with what is between its rows; otherwise without.
    """

    array: npt.NDArray[np.uint8]
    pinned: bool

    @property
    def size(self) -> int:
        """Bytes to transfer."""
        if not self.pinned:
            return int(self.array.nbytes)
        pairs = zip(self.array.shape, self.array.strides, strict=True)
        return 1 + int(sum((side - 1) * stride for side, stride in pairs))


def is_pinned(array: npt.NDArray[Any]) -> bool:
    """Whether the GPU can read an array's memory itself, from its first byte to its last. Error: package-missing.

    Arrays that are stored backwards count as not page-locked.
    """
    if array.size == 0 or min(array.strides) < 0:
        return False
    runtime = cuda_runtime()
    first = array.__array_interface__["data"][0]
    last = first + array.itemsize - 1 + sum((s - 1) * t for s, t in zip(array.shape, array.strides, strict=True))
    for address in (first, last):
        code, attributes = runtime.cudaPointerGetAttributes(address)
        if int(code) != 0 or int(attributes.type) != int(runtime.cudaMemoryType.cudaMemoryTypeHost):
            return False
    return True


class FrameUpload:
    """Memory for the images of a run on both sides, and the threads that fill it.

    device: CUDA's number of the GPU.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._block: Staging | None = None
        self._threads = min(MAX_THREADS, max(1, usable_cores() // 2))
        self._pool: ThreadPoolExecutor | None = None

    @property
    def size(self) -> int:
        """Bytes on each side."""
        return 0 if self._block is None else self._block.size

    def send(self, frames: Sequence[HostFrame], stream: int) -> list[int]:
        """Copies images into a stream, and returns their addresses on the GPU.

        Memory that is not page-locked has been read when this returns. Errors: out-of-memory, cuda-failed.
        """
        offsets, end = [], 0
        for frame in frames:
            offsets.append(end)
            end += -(-frame.size // ALIGNMENT) * ALIGNMENT
        block = self._held(end)
        copies: list[tuple[HostFrame, int]] = []
        for frame, offset in zip(frames, offsets, strict=True):
            if frame.pinned:
                source = frame.array.__array_interface__["data"][0]
                copy_to_device(block.device.pointer + offset, source, frame.size, stream)
            else:
                copies.append((frame, offset))
        if copies:
            self._copy(copies, stream)
        return [block.device.pointer + offset for offset in offsets]

    def close(self) -> None:
        """Frees the memory and ends the threads. Raises nothing."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        if self._block is not None:
            self._block.close()
            self._block = None

    def _held(self, size: int) -> Staging:
        if self._block is None or self._block.size < size:
            old, self._block = self._block, None
            if old is not None:
                old.close()
            self._block = Staging(size)
        return self._block

    def _copy(self, copies: list[tuple[HostFrame, int]], stream: int) -> None:
        """Each thread takes its share of the rows of every image, so that the first image is complete first."""
        threads = self._threads if sum(frame.size for frame, _ in copies) >= PARALLEL_FROM else 1
        if threads > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads - 1, "matchrt-copy")
        others = [
            self._pool.submit(self._share, copies, part, threads, stream)
            for part in range(1, threads)
            if self._pool is not None
        ]
        try:
            self._share(copies, 0, threads, stream)
        finally:
            wait(others)
        for other in others:
            other.result()

    def _share(self, copies: list[tuple[HostFrame, int]], part: int, parts: int, stream: int) -> None:
        assert self._block is not None
        if part:
            call(cuda_runtime().cudaSetDevice, self._device)  # another thread begins on GPU 0
        host, device = self._block.host, self._block.device
        for frame, offset in copies:
            array = frame.array
            rows, line = array.shape[0], array.nbytes // array.shape[0]
            begin, end = rows * part // parts, rows * (part + 1) // parts
            staged = host.bytes[offset : offset + array.nbytes].reshape(array.shape)
            step = max(1, CHUNK // line)
            for row in range(begin, end, step):
                stop = min(row + step, end)
                np.copyto(staged[row:stop], array[row:stop])
                start = offset + row * line
                copy_to_device(device.pointer + start, host.pointer + start, (stop - row) * line, stream)
