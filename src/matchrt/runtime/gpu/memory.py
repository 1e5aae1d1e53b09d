"""GPU memory and page-locked host memory, which are freed when closed or garbage-collected."""

from __future__ import annotations

import ctypes
import weakref

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.nvidia.cuda import call, cuda_runtime, quietly


class DeviceMemory:
    """`size` bytes on the GPU. Errors: out-of-memory, cuda-failed, package-missing."""

    def __init__(self, size: int) -> None:
        runtime = cuda_runtime()
        self.size = size
        self.pointer: int = int(call(runtime.cudaMalloc, max(size, 1)))
        self._free = weakref.finalize(self, quietly, runtime.cudaFree, self.pointer)

    def close(self) -> None:
        """Frees the memory; more than one call does no harm. Raises nothing."""
        self._free()


class PinnedMemory:
    """`size` bytes of page-locked host memory, which the GPU copies without the driver's own staging.

    Errors: out-of-memory, cuda-failed, package-missing.
    """

    def __init__(self, size: int) -> None:
        runtime = cuda_runtime()
        self.size = size
        self.pointer: int = int(call(runtime.cudaHostAlloc, max(size, 1), 0))
        block = (ctypes.c_uint8 * max(size, 1)).from_address(self.pointer)
        self.bytes: npt.NDArray[np.uint8] = np.ctypeslib.as_array(block)
        self._free = weakref.finalize(self, quietly, runtime.cudaFreeHost, self.pointer)

    def close(self) -> None:
        """Frees the memory; more than one call does no harm. Raises nothing."""
        self._free()


class Staging:
    """`size` bytes on both sides, so that one copy moves all inputs, or all outputs, of a run.

    Errors: out-of-memory, cuda-failed, package-missing.
    """

    def __init__(self, size: int) -> None:
        self.device = DeviceMemory(size)
        try:
            self.host = PinnedMemory(size)
        except MatchRTError:
            self.device.close()
            raise

    @property
    def size(self) -> int:
        """Bytes on each side. Raises nothing."""
        return self.device.size

    def close(self) -> None:
        """Frees both sides. Raises nothing."""
        self.device.close()
        self.host.close()
