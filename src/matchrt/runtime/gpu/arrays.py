"""Arrays on the GPU: the caller's arrays are read in place, and results are lent to the caller."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError, missing_package
from matchrt.nvidia.cuda import EXTRA, call, cuda_runtime
from matchrt.runtime.gpu.frames.layouts import packed_strides
from matchrt.runtime.gpu.stream import LEGACY_STREAM
from matchrt.runtime.nv12 import Nv12

_DLPACK_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged


@dataclass(frozen=True)
class GpuView:
    """The caller's array.

    pointer: its address on the GPU.
    shape: of the array, in elements.
    strides: of its axes, in bytes.
    dtype: NumPy's type of its elements.
    owner: the caller's object, which keeps the memory while the view lives.
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
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

    An `Nv12` is where its array is. Raises nothing of its own.
    """
    if isinstance(value, np.ndarray):  # the usual case, which every call goes through
        return False
    if isinstance(value, Nv12):
        value = value.array
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


def wait_for_all() -> None:
    """Waits until the GPU has done all work so far, of any stream. Error: cuda-failed."""
    call(cuda_runtime().cudaDeviceSynchronize)


def view_gpu_array(value: Any, name: str, stream: int | None) -> GpuView:
    """Reads where an array `[...]` of any shape is, without a copy. Errors: image-array, package-missing, cuda-failed.

    name: what messages call the array.
    stream: in which the array will be read; with DLPack its producer is told to be done by then, otherwise it is waited
        for. None: it has been waited for (`wait_for_all`).
    """
    if type(value).__module__ == "torch":
        return _from_torch(value, name)
    try:
        interface = getattr(value, "__cuda_array_interface__", None)
    except Exception as error:  # of a tensor that requires gradients, for example
        raise _unread(name, error) from error
    view = _from_dlpack(value, name, stream) if interface is None else _from_interface(value, interface, stream)
    size = view.dtype.itemsize
    if size > 1 and any(step % size for step in (view.pointer, *view.strides)):
        raise MatchRTError(
            "image-array",
            f"'{name}' on the GPU has {view.dtype} at odd addresses.",
            "Copy it into an array of its own.",
        )
    return view


def _from_torch(value: Any, name: str) -> GpuView:
    """What the tensor's `__cuda_array_interface__` says, without the dict that torch makes in Python.

    It names no stream: with a stream of the caller's, the tensor counts as made in that one.
    """
    dtype, size = _torch_dtype(value.dtype, name), value.element_size()
    return GpuView(value.data_ptr(), tuple(value.shape), tuple(size * step for step in value.stride()), dtype, value)


@lru_cache(maxsize=32)
def _torch_dtype(dtype: Any, name: str) -> np.dtype[Any]:
    try:
        return np.dtype(str(dtype).removeprefix("torch."))
    except TypeError as error:  # bfloat16, for example
        raise _unread(name, error) from error


def _from_interface(value: Any, found: dict[str, Any], stream: int | None) -> GpuView:
    shape, dtype = tuple(found["shape"]), _dtype(found["typestr"])
    strides = found.get("strides")
    producer = found.get("stream")
    if stream is not None and producer not in (None, stream):
        call(cuda_runtime().cudaStreamSynchronize, producer)  # without a common stream the host waits
    strides = packed_strides(shape, dtype.itemsize) if strides is None else tuple(strides)
    return GpuView(int(found["data"][0]), shape, strides, dtype, value)


def _from_dlpack(value: Any, name: str, stream: int | None) -> GpuView:
    try:
        from cuda.core.utils import StridedMemoryView
    except ImportError as error:
        raise missing_package("cuda-core", EXTRA, "Reading GPU arrays through DLPack") from error
    try:
        view = StridedMemoryView(value, stream_ptr=LEGACY_STREAM if stream is None else stream)
        shape, dtype = tuple(view.shape), np.dtype(view.dtype)
    except Exception as error:  # of types that NumPy does not have, for example
        raise _unread(name, error) from error
    strides = packed_strides(shape, dtype.itemsize)
    if view.strides is not None:
        strides = tuple(side * dtype.itemsize for side in view.strides)
    if stream is None:
        call(cuda_runtime().cudaStreamSynchronize, LEGACY_STREAM)
    return GpuView(int(view.ptr), shape, strides, dtype, (value, view))


@lru_cache(maxsize=32)
def _dtype(typestr: str) -> np.dtype[Any]:
    return np.dtype(typestr)


def _unread(name: str, error: Exception) -> MatchRTError:
    return MatchRTError(
        "image-array",
        f"'{name}' on the GPU cannot be read: {error}",
        "Pass a plain array, for example tensor.detach(), in uint8, uint16 or float32.",
    )
