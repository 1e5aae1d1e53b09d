"""The kernels of `frames.cu` on a GPU: PTX that the package ships and the driver compiles, which keeps what it made."""

from __future__ import annotations

import ctypes
import weakref
from importlib.resources import files
from typing import Any

import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.nvidia.cuda import call, cuda_driver, quietly

KERNELS = ("first_pass", "second_pass", "to_pixels")


def ptx_text() -> bytes:
    """The kernels in NVIDIA's portable assembly, as the package ships them. Raises nothing."""
    return (files("matchrt.runtime.gpu.frames") / "frames.ptx").read_bytes()


class Arguments:
    """What a kernel is called with: one structure by value.

    block: the structure, an array with one element. It may be changed between launches, which copy it.
    """

    def __init__(self, block: npt.NDArray[Any]) -> None:
        self.block = block
        self._pointers = (ctypes.c_void_p * 1)(block.ctypes.data)
        self.address = ctypes.addressof(self._pointers)


class FrameKernels:
    """The kernels on this thread's GPU. Error: kernels-refused, with what the driver says."""

    def __init__(self) -> None:
        self._driver = driver = cuda_driver()
        text = ctypes.create_string_buffer(ptx_text())  # ends with a zero byte, as the driver wants it
        try:
            module = call(driver.cuModuleLoadData, ctypes.addressof(text))
            self._functions = {name: call(driver.cuModuleGetFunction, module, name.encode()) for name in KERNELS}
        except MatchRTError as error:
            raise MatchRTError(
                "kernels-refused",
                f"The GPU's driver does not take matchrt's kernels for images: {error.message}",
                "Install an NVIDIA driver of version 550 or later, or pass images as NumPy arrays, with "
                "MatcherOptions(resize_on='host').",
            ) from error
        self._unload = weakref.finalize(self, quietly, driver.cuModuleUnload, module)

    def launch(
        self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int], given: Arguments, stream: int
    ) -> None:
        """Puts a kernel into a stream. Error: cuda-failed."""
        call(self._driver.cuLaunchKernel, self._functions[kernel], *grid, *block, 1, 0, stream, given.address, 0)

    def close(self) -> None:
        """Unloads the kernels; more than one call does no harm. Raises nothing."""
        self._unload()
