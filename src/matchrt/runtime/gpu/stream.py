"""Streams, events and graphs of CUDA, as far as sessions need them."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable

from matchrt.errors import MatchRTError
from matchrt.nvidia.cuda import call, cuda_runtime, quietly

# CUDA's name for the default stream that blocking work goes through.
LEGACY_STREAM = 1


class Stream:
    """A CUDA stream that does not wait for the default stream. Errors: package-missing, cuda-failed."""

    def __init__(self) -> None:
        self._runtime = runtime = cuda_runtime()
        self._stream = call(runtime.cudaStreamCreateWithFlags, runtime.cudaStreamNonBlocking)
        self.handle = int(self._stream)
        self._free = weakref.finalize(self, quietly, runtime.cudaStreamDestroy, self._stream)

    def wait(self) -> None:
        """Waits until the GPU has done the stream's work. Error: cuda-failed, also for failures of earlier work."""
        call(self._runtime.cudaStreamSynchronize, self._stream)

    def close(self) -> None:
        """Frees the stream; more than one call does no harm. Raises nothing."""
        self._free()


class Event:
    """A point in a stream, with the time at which the GPU passed it. Errors: package-missing, cuda-failed.

    timed: False makes an event without a time, which is cheaper.
    """

    def __init__(self, timed: bool = True) -> None:
        self._runtime = runtime = cuda_runtime()
        flags = 0 if timed else runtime.cudaEventDisableTiming
        self._event = call(runtime.cudaEventCreateWithFlags, flags)
        self._free = weakref.finalize(self, quietly, runtime.cudaEventDestroy, self._event)

    def record(self, stream: int) -> None:
        """Puts the event into a stream. Error: cuda-failed.

        stream: its address.
        """
        call(self._runtime.cudaEventRecord, self._event, stream)

    def capture(self, stream: int) -> None:
        """Puts the event into the graph that is being captured from a stream; every launch records it.

        Error: cuda-failed.
        """
        runtime = self._runtime
        call(runtime.cudaEventRecordWithFlags, self._event, stream, runtime.cudaEventRecordExternal)

    def hold(self, stream: int) -> None:
        """Makes all work that is put into `stream` from now on wait for this event. Error: cuda-failed."""
        call(self._runtime.cudaStreamWaitEvent, stream, self._event, 0)

    def wait(self) -> None:
        """Waits on the host until the GPU has passed the event. Error: cuda-failed."""
        call(self._runtime.cudaEventSynchronize, self._event)

    def since(self, earlier: Event) -> float:
        """Milliseconds on the GPU's clock since the other event.

        Error: cuda-failed if the GPU has not passed both yet.
        """
        return float(call(self._runtime.cudaEventElapsedTime, earlier._event, self._event))

    def close(self) -> None:
        """Frees the event; more than one call does no harm. Raises nothing."""
        self._free()


class Graph:
    """Work captured once and launched as a whole: one call instead of one for every kernel."""

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        """Captures what `work` puts into `stream`. Errors: cuda-failed, and those of `work`; nothing stays behind."""
        self._runtime = runtime = cuda_runtime()
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(runtime.cudaStreamBeginCapture, stream.handle, mode)
        try:
            work()
        except BaseException:
            with contextlib.suppress(MatchRTError):
                call(runtime.cudaGraphDestroy, call(runtime.cudaStreamEndCapture, stream.handle))
            raise
        graph = call(runtime.cudaStreamEndCapture, stream.handle)
        try:
            self._graph = call(runtime.cudaGraphInstantiate, graph, 0)
        finally:
            call(runtime.cudaGraphDestroy, graph)
        self._free = weakref.finalize(self, quietly, runtime.cudaGraphExecDestroy, self._graph)

    def launch(self, stream: int) -> None:
        """Puts the work into a stream, which need not be the one that it was captured from. Error: cuda-failed."""
        call(self._runtime.cudaGraphLaunch, self._graph, stream)

    def close(self) -> None:
        """Frees the graph; more than one call does no harm. Raises nothing."""
        self._free()


def copy_to_device(device: int, host: int, size: int, stream: int) -> None:
    """Copies `size` bytes between two addresses, after the work that is in the stream already. Error: cuda-failed."""
    runtime = cuda_runtime()
    call(runtime.cudaMemcpyAsync, device, host, size, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, stream)


def copy_on_device(target: int, source: int, pitch: int, line: int, rows: int, stream: int) -> None:
    """Copies `rows` rows of `line` bytes, `pitch` bytes apart, to where they follow one another, all on the GPU.

    It is done after the work that is in the stream already. Error: cuda-failed.
    """
    runtime = cuda_runtime()
    kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    if rows == 1:
        call(runtime.cudaMemcpyAsync, target, source, line, kind, stream)
    else:
        call(runtime.cudaMemcpy2DAsync, target, line, source, pitch, line, rows, kind, stream)


def copy_to_host(host: int, device: int, size: int, stream: int) -> None:
    """Copies `size` bytes between two addresses, after the work that is in the stream already. Error: cuda-failed."""
    runtime = cuda_runtime()
    call(runtime.cudaMemcpyAsync, host, device, size, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)
