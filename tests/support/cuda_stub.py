"""CUDA's runtime and driver on a machine without GPU: device memory is host memory, work is done when somebody waits.

What is put into a stream waits there until the host synchronises: a session that reads its results too early sees the
old ones. Every call is written down, and every function can be told to fail.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy.typing as npt

from support.kernels_on_cpu import given_size, run_kernel

_ALIGNMENT = 256

# As in the CUDA runtime's headers.
cudaError_t = IntEnum(  # noqa: N816
    "cudaError_t",
    {
        "cudaSuccess": 0,
        "cudaErrorInvalidValue": 1,
        "cudaErrorMemoryAllocation": 2,
        "cudaErrorInsufficientDriver": 35,
        "cudaErrorNoDevice": 100,
        "cudaErrorInvalidResourceHandle": 400,
        "cudaErrorNotReady": 600,
        "cudaErrorLaunchFailure": 719,
        "cudaErrorStreamCaptureUnsupported": 900,
        "cudaErrorStreamCaptureInvalidated": 901,
        "cudaErrorIllegalState": 401,
    },
)
Work = Callable[[], None]


class StubError(Exception):
    """Carries a CUDA error code out of a function of the stub."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.code = cudaError_t[name]


@dataclass
class _Stream:
    handle: int
    device: int
    queue: list[Work] = field(default_factory=list)
    captured: list[Work] | None = None
    invalidated: bool = False


@dataclass
class _Event:
    handle: int
    timed: bool
    stream: _Stream | None = None
    time: float | None = None


class CudaStub:
    """Holds what the fake driver knows.

    `module` is what `from cuda.bindings import runtime` gives, `driver` what `from cuda.bindings import driver` does.
    """

    def __init__(self, capability: tuple[int, int] = (8, 9), gpus: int = 1) -> None:
        self.capability, self.gpus = capability, gpus
        self.calls: list[str] = []  # names of the functions called, in order
        self.failing: dict[str, str] = {}  # function -> name of the error that it returns from now on
        self.memory_left: int | None = None  # bytes that cudaMalloc may still give; None for plenty
        self.device_memory: dict[int, Any] = {}
        self.host_memory: dict[int, Any] = {}
        self.streams: dict[int, _Stream] = {}
        self.events: dict[int, _Event] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.execs: dict[int, list[Work]] = {}
        self.modules: dict[int, bytes] = {}  # PTX
        self.functions: dict[int, str] = {}
        self.pinned: list[tuple[int, int]] = []  # memory, (address, size), that a caller has page-locked
        self.lock = threading.RLock()
        self._handles = itertools.count(0x1000)
        self._ticks = itertools.count(1)
        self._here = threading.local()
        self.module = self._module()
        self.driver = SimpleNamespace(
            **{name: self._answering(name) for name in dir(self) if re.match("cu[A-Z]", name)}
        )

    def count(self, *names: str) -> int:
        """How often these functions were called."""
        return sum(name in names for name in self.calls)

    def held(self) -> int:
        """How many resources nobody has given back."""
        kinds = (self.device_memory, self.host_memory, self.streams, self.events, self.graphs, self.execs,
                 self.modules)  # fmt: skip
        return sum(len(kind) for kind in kinds)

    def put(self, handle: int, work: Work) -> None:
        """Puts work into a stream, or into the graph that is being captured from it."""
        stream = self._stream(handle)
        if stream.captured is not None:
            stream.captured.append(work)
        else:
            stream.queue.append(work)

    def capturing(self, handle: int) -> bool:
        """Whether a graph is being captured from the stream."""
        return self._stream(handle).captured is not None

    def require_memory(self, pointer: int, size: int) -> None:
        """Raises where these bytes are not within one living allocation."""
        for memory in (self.device_memory, self.host_memory):
            for start, block in memory.items():
                if start <= pointer and pointer + size <= start + block.usable:
                    return
        raise AssertionError(f"{size} bytes at {pointer:#x} are no memory that is held")

    def page_locked(self, pointer: int) -> bool:
        """Whether the GPU can read host memory itself."""
        held = [*self.pinned, *((start, block.usable) for start, block in self.host_memory.items())]
        return any(start <= pointer < start + size for start, size in held)

    def _module(self) -> SimpleNamespace:
        functions = [name for name in dir(self) if name.startswith("cuda")]
        module = SimpleNamespace(**{name: self._answering(name) for name in functions})
        module.cudaError_t = cudaError_t
        module.cudaMemcpyKind = IntEnum(
            "cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2, "cudaMemcpyDeviceToDevice": 3}
        )
        module.cudaMemoryType = IntEnum("cudaMemoryType", {"cudaMemoryTypeUnregistered": 0, "cudaMemoryTypeHost": 1})
        module.cudaStreamCaptureMode = IntEnum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})
        module.cudaStreamNonBlocking, module.cudaEventDisableTiming, module.cudaEventRecordExternal = 1, 2, 1
        return module

    def _answering(self, name: str) -> Callable[..., Any]:
        """The function as cuda-python has it: a tuple with the error code first, no exceptions."""
        function = getattr(self, name)

        def answer(*arguments: Any) -> tuple[Any, ...]:
            with self.lock:
                self.calls.append(name)
                if name in self.failing:
                    return (cudaError_t[self.failing[name]], None)
                try:
                    value = function(*arguments)
                except StubError as error:
                    return (error.code, None)
            if value is None:
                return (cudaError_t.cudaSuccess,)
            return (cudaError_t.cudaSuccess, *(value if isinstance(value, tuple) else (value,)))

        answer.__name__ = name
        answer.stub = function  # type: ignore[attr-defined]  # for the check of signatures
        return answer

    def _stream(self, handle: int) -> _Stream:
        if handle not in self.streams:
            raise StubError("cudaErrorInvalidResourceHandle")
        return self.streams[handle]

    def _drain(self, stream: _Stream) -> None:
        if stream.captured is not None:
            stream.invalidated = True
            raise StubError("cudaErrorStreamCaptureUnsupported")
        while stream.queue:
            stream.queue.pop(0)()

    # What follows has the names and the arguments of the CUDA runtime.

    def cudaGetDeviceCount(self) -> int:
        if not self.gpus:
            raise StubError("cudaErrorNoDevice")
        return self.gpus

    def cudaGetDevice(self) -> int:
        self.cudaGetDeviceCount()
        return getattr(self._here, "device", 0)

    def cudaSetDevice(self, device: int) -> None:
        if not 0 <= device < self.gpus:
            raise StubError("cudaErrorInvalidValue")
        self._here.device = device

    def cudaGetDeviceProperties(self, device: int) -> SimpleNamespace:
        major, minor = self.capability
        return SimpleNamespace(name=f"Stub {device}".encode(), major=major, minor=minor, totalGlobalMem=2**33)

    def cudaDeviceGetPCIBusId(self, length: int, device: int) -> bytes:
        return f"0000:{device + 1:02X}:00.0".encode()[: length - 1]

    def cudaMemGetInfo(self) -> tuple[int, int]:
        return 2**32, 2**33

    def cudaDriverGetVersion(self) -> int:
        return 13000

    def cudaRuntimeGetVersion(self) -> int:
        return 12090

    def cudaDeviceSynchronize(self) -> None:
        for stream in self.streams.values():
            self._drain(stream)

    def cudaMalloc(self, size: int) -> int:
        if self.memory_left is not None:
            if size > self.memory_left:
                raise StubError("cudaErrorMemoryAllocation")
            self.memory_left -= size
        return self._allocate(self.device_memory, size)

    def cudaFree(self, devPtr: int) -> None:
        self._finish_all()
        self._give_back(self.device_memory, devPtr)

    def cudaHostAlloc(self, size: int, flags: int) -> int:
        del flags
        return self._allocate(self.host_memory, size)

    def cudaFreeHost(self, ptr: int) -> None:
        self._finish_all()
        self._give_back(self.host_memory, ptr)

    def _finish_all(self) -> None:
        """What freeing waits for; a capture of another thread goes on, as nothing of it is under way."""
        for stream in self.streams.values():
            if stream.captured is None:
                self._drain(stream)

    def _allocate(self, memory: dict[int, Any], size: int) -> int:
        block = ctypes.create_string_buffer(b"\xa5" * (size + _ALIGNMENT), size + _ALIGNMENT)
        pointer = -(-ctypes.addressof(block) // _ALIGNMENT) * _ALIGNMENT
        memory[pointer] = SimpleNamespace(block=block, usable=size)
        return pointer

    def _give_back(self, memory: dict[int, Any], pointer: int) -> None:
        if pointer not in memory:
            raise StubError("cudaErrorInvalidValue")
        block = memory.pop(pointer)
        ctypes.memset(pointer, 0xDD, block.usable)  # whoever reads it now reads nonsense
        if self.memory_left is not None and memory is self.device_memory:
            self.memory_left += block.usable

    def cudaMemcpy(self, dst: int, src: int, count: int, kind: IntEnum) -> None:
        del kind
        self.cudaDeviceSynchronize()
        ctypes.memmove(dst, src, count)

    def cudaMemcpy2DAsync(
        self, dst: int, dpitch: int, src: int, spitch: int, width: int, height: int, kind: IntEnum, stream: int
    ) -> None:
        assert kind.name == "cudaMemcpyDeviceToDevice"
        if width > dpitch or width > spitch:
            raise StubError("cudaErrorInvalidValue")
        for row in range(height):
            self._put_device_copy(dst + row * dpitch, src + row * spitch, width, stream)

    def _put_device_copy(self, dst: int, src: int, count: int, stream: int) -> None:
        def copy() -> None:
            self.require_memory(src, count)
            self.require_memory(dst, count)
            ctypes.memmove(dst, src, count)

        self.put(stream, copy)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: IntEnum, stream: int) -> None:
        if kind.name == "cudaMemcpyDeviceToDevice":
            self._put_device_copy(dst, src, count, stream)
            return
        up = kind.name == "cudaMemcpyHostToDevice"
        device, host = (dst, src) if up else (src, dst)
        locked = self.page_locked(host)
        # Of memory that is not page-locked, the driver has read the bytes when it returns.
        staged = ctypes.string_at(src, count) if up and not locked else None

        def copy() -> None:
            self.require_memory(device, count)
            assert self.page_locked(host) == locked  # nobody has freed it meanwhile
            ctypes.memmove(dst, src if staged is None else staged, count)

        self.put(stream, copy)

    def cudaPointerGetAttributes(self, ptr: int) -> SimpleNamespace:
        return SimpleNamespace(type=self.module.cudaMemoryType(int(self.page_locked(ptr))))

    def cudaStreamCreateWithFlags(self, flags: int) -> int:
        assert flags == 1  # a session's stream never waits for the default one
        handle = next(self._handles)
        self.streams[handle] = _Stream(handle, self.cudaGetDevice())
        return handle

    def cudaStreamDestroy(self, stream: int) -> None:
        self._drain(self._stream(stream))
        del self.streams[stream]

    def cudaStreamSynchronize(self, stream: int) -> None:
        if int(stream) == 1:  # the legacy default stream, which nothing of ours uses
            return
        self._drain(self._stream(stream))

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> None:
        del flags
        self.put(stream, lambda: self.cudaEventSynchronize(event))

    def cudaStreamBeginCapture(self, stream: int, mode: IntEnum) -> None:
        assert mode.name == "cudaStreamCaptureModeThreadLocal"  # others would break the captures of other threads
        found = self._stream(stream)
        if found.captured is not None:
            raise StubError("cudaErrorIllegalState")
        found.captured, found.invalidated = [], False

    def cudaStreamEndCapture(self, stream: int) -> int:
        found = self._stream(stream)
        work, found.captured = found.captured, None
        if work is None:
            raise StubError("cudaErrorIllegalState")
        if found.invalidated:
            raise StubError("cudaErrorStreamCaptureInvalidated")
        handle = next(self._handles)
        self.graphs[handle] = work
        return handle

    def cudaGraphInstantiate(self, graph: int, flags: int) -> int:
        del flags
        handle = next(self._handles)
        self.execs[handle] = list(self.graphs[graph])
        return handle

    def cudaGraphLaunch(self, graphExec: int, stream: int) -> None:
        if graphExec not in self.execs:
            raise StubError("cudaErrorInvalidResourceHandle")
        for work in self.execs[graphExec]:
            self.put(stream, work)

    def cudaGraphDestroy(self, graph: int) -> None:
        del self.graphs[graph]

    def cudaGraphExecDestroy(self, graphExec: int) -> None:
        del self.execs[graphExec]

    def cudaEventCreateWithFlags(self, flags: int) -> int:
        handle = next(self._handles)
        self.events[handle] = _Event(handle, timed=flags != 2)
        return handle

    def cudaEventDestroy(self, event: int) -> None:
        del self.events[event]

    def cudaEventRecord(self, event: int, stream: int) -> None:
        if self.capturing(stream):
            # It would only order work inside the graph, and its time could not be asked for.
            raise StubError("cudaErrorStreamCaptureUnsupported")
        self._record(event, stream)

    def cudaEventRecordWithFlags(self, event: int, stream: int, flags: int) -> None:
        if flags == 1 and not self.capturing(stream):
            raise StubError("cudaErrorInvalidValue")
        self._record(event, stream)

    def _record(self, event: int, stream: int) -> None:
        found = self.events[event]
        found.stream, found.time = self._stream(stream), None

        def reached() -> None:
            found.time = float(next(self._ticks))

        self.put(stream, reached)

    def cudaEventSynchronize(self, event: int) -> None:
        stream = self.events[event].stream
        if stream is not None and stream.handle in self.streams:
            self._drain(stream)

    def cudaEventElapsedTime(self, start: int, end: int) -> float:
        first, last = self.events[start], self.events[end]
        if not (first.timed and last.timed):
            raise StubError("cudaErrorInvalidResourceHandle")
        if first.time is None or last.time is None:
            raise StubError("cudaErrorNotReady")
        return last.time - first.time

    # And of CUDA's driver.

    def cuModuleLoadData(self, image: int) -> int:
        handle = next(self._handles)
        self.modules[handle] = ctypes.string_at(image)
        return handle

    def cuModuleUnload(self, hmod: int) -> None:
        del self.modules[hmod]

    def cuModuleGetFunction(self, hmod: int, name: bytes) -> int:
        if b".visible .entry " + name + b"(" not in self.modules[hmod]:
            raise StubError("cudaErrorInvalidValue")
        handle = next(self._handles)
        self.functions[handle] = name.decode()
        return handle

    def cuLaunchKernel(
        self, f: int, gridDimX: int, gridDimY: int, gridDimZ: int, blockDimX: int, blockDimY: int, blockDimZ: int,
        sharedMemBytes: int, hStream: int, kernelParams: int, extra: int,
    ) -> None:  # fmt: skip
        assert blockDimZ == 1 and sharedMemBytes == extra == 0 and blockDimX * blockDimY <= 1024
        name, grid, block = self.functions[f], (gridDimX, gridDimY, gridDimZ), (blockDimX, blockDimY)
        given = ctypes.string_at(ctypes.c_void_p.from_address(kernelParams).value or 0, given_size(name))
        self.put(hStream, lambda: run_kernel(name, given, grid, block))


class OnGpu:
    """An array in the stub's GPU memory, with any strides, as torch and CuPy show theirs.

    stream: the address of the stream that makes it; None if it says nothing.
    """

    def __init__(self, cuda: CudaStub, array: npt.NDArray[Any], stream: int | None = None) -> None:
        first = array.__array_interface__["data"][0]
        steps = [(side - 1) * step for side, step in zip(array.shape, array.strides, strict=True)]
        low, size = sum(min(step, 0) for step in steps), sum(map(abs, steps)) + array.itemsize
        _, base = cuda.module.cudaMalloc(size)
        ctypes.memmove(base, first + low, size)
        self.pointer = base - low
        self.array, self.stream = array, stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        packed = self.array.flags.c_contiguous
        return {"version": 3, "data": (self.pointer, False), "shape": self.array.shape, "stream": self.stream,
                "typestr": self.array.dtype.str, "strides": None if packed else self.array.strides}  # fmt: skip
