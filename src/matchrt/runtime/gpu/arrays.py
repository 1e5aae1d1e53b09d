"""Arrays on the GPU: the caller's arrays are read in place, and results are lent to the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError, missing_package
from matchrt.nvidia.cuda import EXTRA, call, cuda_runtime
from matchrt.runtime.gpu.stream import LEGACY_STREAM

_DLPACK_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged


@dataclass(frozen=True)
class GpuView:
    """The caller's array.

    pointer: its address on the GPU.
    shape: of the array, in elements.
    dtype: NumPy's type of its elements.
    owner: the caller's object, which keeps the memory while the view lives.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any


class GpuArray:
    """A result on the GPU; torch.as_tensor, cupy.asarray and others take it (`__cuda_array_interface__`).

    It is valid until the next run of the matcher that returned it; copy what you need for longer.
    """

    def __init__(self, pointer: int, shape: tuple[int, ...], dtype: np.dtype[Any], owner: Any, stream: int | None):
        self.pointer, self.shape, self.dtype = pointer, shape, dtype
        self._owner = owner
        self._stream = stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        # Version 3; a stream of None means that the data is there already.
        return {
            "version": 3,
            "data": (self.pointer, False),
            "shape": self.shape,
            "typestr": self.dtype.str,
            "strides": None,
            "stream": self._stream or None,
        }

    def to_host(self) -> npt.NDArray[Any]:
        """Waits for the work that makes the array, and copies it into host memory: the same shape `[...]` and type.

        Errors: cuda-failed, package-missing.
        """
        runtime = cuda_runtime()
        host = np.empty(self.shape, self.dtype)
        if self._stream is not None:
            call(runtime.cudaStreamSynchronize, self._stream)
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(runtime.cudaMemcpy, host.ctypes.data, self.pointer, host.nbytes, kind)
        return host


def on_gpu(value: Any) -> bool:
    """Whether `value` is an array in GPU memory: one with `__cuda_array_interface__`, or with DLPack on a CUDA device.

    Raises nothing of its own.
    """
    if isinstance(value, np.ndarray):  # the usual case, which every call goes through
        return False
    if hasattr(type(value), "__cuda_array_interface__"):
        # torch has the attribute on every tensor, and raises for those in host memory.
        return getattr(value, "is_cuda", True) is not False
    device = getattr(value, "__dlpack_device__", None)
    return device is not None and int(device()[0]) in _DLPACK_CUDA


def stream_handle(stream: Any) -> int:
    """The address of a stream: an int, a torch or CuPy stream, or an object with `__cuda_stream__`.

    Error: stream-invalid.
    """
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        protocol = stream.__cuda_stream__
        return int((protocol() if callable(protocol) else protocol)[1])
    for name in ("cuda_stream", "ptr", "handle"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise MatchRTError(
        "stream-invalid",
        f"A {type(stream).__name__} is not a CUDA stream.",
        "Pass torch.cuda.current_stream(), a CuPy stream, or a stream's address as an int.",
    )


def view_gpu_array(value: Any, name: str, stream: int | None) -> GpuView:
    """Reads where an array `[...]` of any shape is, without a copy. Errors: image-array, package-missing, cuda-failed.

    name: what messages call the array.
    stream: in which the array will be read; with DLPack its producer is told to be done by then, otherwise it is waited
        for. None: the host waits.
    """
    if hasattr(type(value), "__cuda_array_interface__"):
        return _from_interface(value, name, stream)
    return _from_dlpack(value, name, stream)


def _from_interface(value: Any, name: str, stream: int | None) -> GpuView:
    found = value.__cuda_array_interface__
    shape, dtype = tuple(found["shape"]), np.dtype(found["typestr"])
    _require_packed(found.get("strides"), shape, dtype, name)
    producer = found.get("stream")
    if stream is None or producer not in (None, stream):
        # Without a common stream the host waits; an array that names no stream may come from any.
        runtime = cuda_runtime()
        call(runtime.cudaStreamSynchronize, producer) if producer else call(runtime.cudaDeviceSynchronize)
    return GpuView(int(found["data"][0]), shape, dtype, value)


def _from_dlpack(value: Any, name: str, stream: int | None) -> GpuView:
    try:
        from cuda.core.utils import StridedMemoryView
    except ImportError as error:
        raise missing_package("cuda-core", EXTRA, "Reading GPU arrays through DLPack") from error
    view = StridedMemoryView(value, stream_ptr=LEGACY_STREAM if stream is None else stream)
    shape, dtype = tuple(view.shape), np.dtype(view.dtype)
    strides = None if view.strides is None else tuple(side * dtype.itemsize for side in view.strides)
    _require_packed(strides, shape, dtype, name)
    if stream is None:
        call(cuda_runtime().cudaStreamSynchronize, LEGACY_STREAM)
    return GpuView(int(view.ptr), shape, dtype, (value, view))


def _require_packed(strides: tuple[int, ...] | None, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    if strides is None:
        return
    packed, step = [], dtype.itemsize
    for side in reversed(shape):
        packed.append(step)
        step *= side
    wanted = tuple(reversed(packed))
    if any(side > 1 and have != want for side, have, want in zip(shape, strides, wanted, strict=True)):
        raise MatchRTError(
            "image-array", f"{name} on the GPU is not contiguous (strides {strides}).", "Pass image.contiguous()."
        )
