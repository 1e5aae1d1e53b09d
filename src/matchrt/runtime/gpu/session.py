"""Sessions on TensorRT and TensorRT-RTX: a stream of their own, memory that is allocated once, and CUDA graphs.

A run is one copy to the GPU, the engine's kernels, and one copy back, all asynchronous in the session's stream. From
the second run of a shape on, it is a single graph launch if the engine allows that.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.nvidia.cuda import call, cuda_runtime
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.gpu.arrays import GpuArray, GpuView
from matchrt.runtime.gpu.layout import Layout, Shapes
from matchrt.runtime.gpu.loaded import LoadedEngine
from matchrt.runtime.gpu.memory import DeviceMemory, Staging
from matchrt.runtime.gpu.shape_runner import ShapeRunner
from matchrt.runtime.gpu.stream import LEGACY_STREAM, Event, Graph, Stream, copy_to_device, copy_to_host
from matchrt.runtime.self_test.pair import self_test_shapes
from matchrt.runtime.session import Arrays, Pending, SessionMemory, SessionOptions, check_inputs

# A dynamic engine keeps this many shapes ready; the least recently used one makes room.
MAX_SHAPES = 8
# A new graph is checked with this many launches, once for every shape.
GRAPH_CHECKS = 6
LOGGER = logging.getLogger("matchrt.runtime")


@dataclass
class _Ready:
    """A shape's runner, with what is known of its graph.

    staged: its input tensors in pinned memory, by name.
    fetched: its output tensors in pinned memory, by name.
    """

    runner: ShapeRunner
    staged: list[tuple[str, npt.NDArray[Any]]]
    fetched: list[tuple[str, npt.NDArray[Any]]]
    runs: int = 0
    graph: Graph | None = None
    no_graph: str | None = None

    def close(self) -> None:
        if self.graph is not None:
            self.graph.close()


@dataclass(frozen=True)
class _Memory:
    """The memory that all shapes of a session share."""

    scratch: DeviceMemory
    inputs: Staging
    outputs: Staging

    def holds(self, runner: ShapeRunner) -> bool:
        return (
            runner.scratch_bytes <= self.scratch.size
            and runner.inputs.size <= self.inputs.size
            and runner.outputs.size <= self.outputs.size
        )

    def close(self) -> None:
        for block in (self.scratch, self.inputs, self.outputs):
            block.close()


class TensorRTSession:
    """A TensorRT engine on this thread's GPU. It does one run at a time; `fork` makes a session for another thread.

    Errors: those of `LoadedEngine`; cuda-failed.
    """

    def __init__(self, engine: EngineFile | LoadedEngine, options: SessionOptions) -> None:
        self._options = options
        self._engine = engine if isinstance(engine, LoadedEngine) else LoadedEngine(engine, options.keep_kernels)
        self._closers = contextlib.ExitStack()
        self._shapes: OrderedDict[Any, _Ready] = OrderedDict()
        self._pending: _PendingRun | None = None
        # Names, shapes and types of the last host inputs, which have been checked, and their runner.
        self._latest: tuple[Any, _Ready] | None = None
        self._lent_out = False  # whether the last run went into the caller's stream
        self._closed = False
        # Needed after closing too.
        self._manifest, self._device = self._engine.manifest, self._engine.where()
        self._take_device()
        try:
            self._stream = self._own(Stream())
            self._events = tuple(self._own(Event()) for _ in range(4))
            self._handed_over = self._own(Event(timed=False))
            self._done = self._own(Event(timed=False))
        except MatchRTError:
            self._closers.close()
            raise
        self._memory: _Memory | None = None

    @property
    def manifest(self) -> EngineManifest:
        """The loaded engine's manifest; also after `close`."""
        return self._manifest

    @property
    def asynchronous(self) -> bool:
        """True: `start` returns before the run is done."""
        return True

    def start(self, inputs: Arrays) -> Pending:
        """Starts a run on host arrays.

        inputs: arrays `[B, ...]` by name, types and shapes as the manifest lists them. They are copied before this
            returns.
        Errors: session-input, session-busy, session-closed, session-failed, out-of-memory, engine-graph, cuda-failed.
        """
        self._require_idle()
        with self._engine.in_turn(self._stream.handle, self._done):
            ready = self._checked(inputs)
            for place, view in ready.staged:
                if not _same_memory(view, inputs[place]):  # what was written into `staging` lies there already
                    view[...] = inputs[place]
            self._launch(ready)
        self._pending = _PendingRun(self, ready)
        return self._pending

    def staging(self, shapes: Shapes) -> Arrays | None:
        """The pinned arrays from which the next run on such shapes is sent to the GPU; see `Session`.

        None before the first run on these shapes.
        """
        self._require_idle()
        found = self._latest[1] if self._latest is not None else None
        if found is None or any(found.runner.shapes.get(name) != shape for name, shape in shapes.items()):
            return None
        return dict(found.staged)

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs the engine on host arrays `[B, ...]` and returns its outputs `[B, ...]` by name.

        The outputs belong to the caller. Errors: those of `start`.
        """
        return self.start(inputs).result()

    def run_on_gpu(self, inputs: Mapping[str, GpuView | npt.NDArray[Any]], stream: int | None) -> GpuOutputs:
        """Runs on images that are on the GPU already, without a copy. The results stay there.

        inputs: arrays `[B, ...]` by name, as the manifest lists them; small host arrays among them are copied.
        stream: the address of the caller's stream: the run is put into it, and this returns at once. None uses the
            session's own stream, and the run is done when this returns.

        The results are valid until the session's next run. Errors: those of `start`.
        """
        self._require_idle()
        check_inputs(inputs, self.manifest)  # type: ignore[arg-type]
        where = self._stream.handle if stream is None else stream
        with self._engine.in_turn(where, self._done):
            ready = self._ready({name: tuple(array.shape) for name, array in inputs.items()}, lent=True)
            memory = self._held()
            for place in ready.runner.inputs.places:
                given = inputs[place.name]
                if isinstance(given, GpuView):
                    ready.runner.move(place.name, given.pointer)
                    continue
                place.view(memory.inputs.host.bytes)[...] = given
                device, host = memory.inputs.device.pointer, memory.inputs.host.pointer
                copy_to_device(device + place.offset, host + place.offset, place.size, where)
            ready.runner.enqueue(where)
        self._handed_over.record(where)
        self._lent_out = True
        if stream is None:
            self._stream.wait()
        return GpuOutputs(memory.outputs, ready.runner.outputs, where, self._stream if stream is None else None)

    def fork(self) -> TensorRTSession:
        """A session for another thread, on the same weights. Errors: session-closed, cuda-failed."""
        self._require_open()
        return TensorRTSession(self._engine, self._options)

    def memory(self) -> SessionMemory:
        """What this session holds, without the weights. Raises nothing."""
        if self._memory is None:
            return SessionMemory(scratch=0, tensors=0, pinned=0)
        tensors = self._memory.inputs.size + self._memory.outputs.size
        return SessionMemory(scratch=self._memory.scratch.size, tensors=tensors, pinned=tensors)

    def launch_mode(self) -> str:
        """How runs reach the GPU: `graph`, or `enqueue` and why. Raises nothing."""
        if not self._shapes:
            return "not run yet"
        newest = next(reversed(self._shapes.values()))
        if newest.graph is not None:
            return "graph"
        return f"enqueue ({newest.no_graph or 'a graph is captured in the second run of a shape'})"

    def device(self) -> str:
        """GPU, driver and the backend's version; see `Session`."""
        return self._device

    def circumstances(self) -> str:
        """GPU, driver, the backend's version, and the kernels kept for the self-test's shapes; see `Session`."""
        kernels = self._engine.kept_kernels(self_test_shapes(self._manifest))
        return f"{self._device}, kernels {kernels or 'not compiled yet'}"

    def drop_kept_kernels(self) -> bool:
        """Deletes the kernels kept for the self-test's shapes, in memory and on disk; see `Session`."""
        if not self._engine.drop_kernels(self_test_shapes(self._manifest)):
            return False
        self._forget_shapes()
        return True

    def close(self) -> None:
        """Frees graphs, contexts and memory now; the engine is freed with its last session.

        More than one call does no harm. Raises nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._pending = None
        with contextlib.suppress(MatchRTError):
            self._stream.wait()
            self._handed_over.wait()
            self._engine.forget(self._done)
        self._forget_shapes()
        if self._memory is not None:
            self._memory.close()
        self._closers.close()
        del self._engine

    def _own(self, resource: Any) -> Any:
        self._closers.callback(resource.close)
        return resource

    def _checked(self, inputs: Arrays) -> _Ready:
        """Checks the inputs and returns their runner.

        Both are done only if names, shapes or types differ from those of the last inputs.
        """
        kind = [(name, array.shape, array.dtype) for name, array in inputs.items()]
        if self._latest is None or self._latest[0] != kind:
            check_inputs(inputs, self.manifest)
            self._latest = kind, self._ready({name: array.shape for name, array in inputs.items()})
        return self._latest[1]

    def _require_open(self) -> None:
        if self._closed:
            raise MatchRTError("session-closed", "The session is closed.", "Open a new one.")

    def _require_idle(self) -> None:
        self._require_open()
        if self._pending is not None:
            raise MatchRTError(
                "session-busy", "The session's last run has not been collected.", "Take its result first, or fork()."
            )
        self._take_device()
        if self._lent_out:
            # A run in the caller's stream still uses staging, scratch memory and its context.
            self._handed_over.wait()
            self._lent_out = False

    def _take_device(self) -> None:
        """Makes this session's GPU current: other threads may be on another one, and this one may have left it."""
        call(cuda_runtime().cudaSetDevice, self._engine.gpu.index)

    def _ready(self, shapes: Shapes, lent: bool = False) -> _Ready:
        """The runner for these shapes, with memory large enough. lent: some inputs are the caller's memory."""
        key = (lent, *(shapes[spec.name] for spec in self.manifest.inputs))
        ready = self._shapes.get(key)
        if ready is None:
            ready = self._make_ready(shapes)
            while len(self._shapes) >= MAX_SHAPES:
                self._shapes.popitem(last=False)[1].close()
                self._latest = None
            self._shapes[key] = ready
        self._shapes.move_to_end(key)
        return ready

    def _make_ready(self, shapes: Shapes) -> _Ready:
        runner = self._make_runner(shapes)
        memory = self._held()
        staged, fetched = (
            [(place.name, place.view(block.host.bytes)) for place in layout.places]
            for layout, block in ((runner.inputs, memory.inputs), (runner.outputs, memory.outputs))
        )
        return _Ready(runner, staged, fetched, no_graph=None if self._options.cuda_graph else "switched off")

    def _make_runner(self, shapes: Shapes) -> ShapeRunner:
        runner = ShapeRunner(self._engine, shapes)
        if self._memory is None or not self._memory.holds(runner):
            self._forget_shapes()  # their graphs and addresses belong to the memory that is freed
            # The old memory is forgotten before it is freed: if the new one cannot be allocated, there is none.
            old, self._memory = self._memory, None
            self._memory = _grown(old, runner)
        memory = self._memory
        runner.place(memory.scratch, memory.inputs.device.pointer, memory.outputs.device.pointer)
        # TensorRT may make a context ready outside of this session's stream. This does not wait for the whole device,
        # because that would break a capture in another thread.
        call(cuda_runtime().cudaStreamSynchronize, LEGACY_STREAM)
        return runner

    def _held(self) -> _Memory:
        assert self._memory is not None
        return self._memory

    def _forget_shapes(self) -> None:
        for ready in self._shapes.values():
            ready.close()
        self._shapes.clear()
        self._latest = None

    def _launch(self, ready: _Ready) -> None:
        """The first run compiles; the second captures a graph and checks it."""
        ready.runs += 1
        if ready.runs > 1 and ready.graph is None and ready.no_graph is None:
            self._capture(ready)
        if ready.graph is not None:
            ready.graph.launch()
        else:
            self._enqueue(ready)

    def _capture(self, ready: _Ready) -> None:
        ready.no_graph = self._engine.dialect.capture_refusal(ready.runner.context, self._stream.handle)
        if ready.no_graph is not None:
            return
        try:
            graph = Graph(self._stream, lambda: self._enqueue(ready, captured=True))
        except MatchRTError as error:
            ready.no_graph = f"capturing failed: {error.message}"
            return
        if self._agrees(ready, graph):
            ready.graph = graph
            return
        graph.close()
        # A context that was captured once goes on giving such results outside graphs too (measured), so it is replaced.
        ready.runner = self._make_runner(ready.runner.shapes)
        ready.no_graph = "in a graph, the engine's results differ from those outside it"
        LOGGER.warning("no CUDA graph for %s: %s", self.manifest.model, ready.no_graph)

    def _agrees(self, ready: _Ready, graph: Graph) -> bool:
        """Whether the graph gives the same bits as plain runs, every time.

        This is checked because TensorRT-RTX 1.4 has fp32 kernels that race on an H100, which its vendor does not list,
        when they are launched close together. A third of the runs are then wrong by a fraction of a pixel.
        """
        outputs, size = self._held().outputs.host.bytes, ready.runner.outputs.size
        self._enqueue(ready)
        self._stream.wait()
        expected = outputs[:size].copy()
        for _ in range(GRAPH_CHECKS):
            graph.launch()
            self._stream.wait()
            if not np.array_equal(outputs[:size], expected):
                return False
        return True

    def _enqueue(self, ready: _Ready, captured: bool = False) -> None:
        """Copies the inputs, runs, and copies the outputs; the events between these give the stages' times."""
        stream, runner = self._stream.handle, ready.runner
        inputs, outputs = self._held().inputs, self._held().outputs
        begin, up, done, down = self._events
        begin.record(stream, captured)
        copy_to_device(inputs.device.pointer, inputs.host.pointer, runner.inputs.size, stream)
        up.record(stream, captured)
        runner.enqueue(stream)
        done.record(stream, captured)
        copy_to_host(outputs.host.pointer, outputs.device.pointer, runner.outputs.size, stream)
        down.record(stream, captured)

    def _collect(self, ready: _Ready) -> tuple[dict[str, npt.NDArray[Any]], dict[str, float]]:
        self._require_open()
        self._pending = None
        self._stream.wait()
        arrays = {name: view.copy() for name, view in ready.fetched}
        begin, up, done, down = self._events
        return arrays, {"upload": up.since(begin), "gpu": done.since(up), "download": down.since(done)}


def _grown(memory: _Memory | None, runner: ShapeRunner) -> _Memory:
    """Memory that holds what the old one did and what the runner needs; the old one is freed first."""
    sizes = [runner.scratch_bytes, runner.inputs.size, runner.outputs.size]
    if memory is not None:
        old = (memory.scratch.size, memory.inputs.size, memory.outputs.size)
        sizes = [max(pair) for pair in zip(sizes, old, strict=True)]
        memory.close()
    with contextlib.ExitStack() as undo:
        scratch = DeviceMemory(sizes[0])
        undo.callback(scratch.close)
        inputs = Staging(sizes[1])
        undo.callback(inputs.close)
        outputs = Staging(sizes[2])
        undo.pop_all()
        return _Memory(scratch, inputs, outputs)


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

    def to_host(self) -> dict[str, npt.NDArray[Any]]:
        """Copies all outputs `[B, ...]` in one transfer, after waiting for the run. Error: cuda-failed."""
        copy_to_host(self._block.host.pointer, self._block.device.pointer, self._layout.size, self._stream)
        call(cuda_runtime().cudaStreamSynchronize, self._stream)
        return {place.name: place.view(self._block.host.bytes).copy() for place in self._layout.places}


class _PendingRun:
    """A run under way in a session's stream."""

    def __init__(self, session: TensorRTSession, ready: _Ready) -> None:
        self._session = session
        self._ready = ready
        self._outcome: tuple[dict[str, npt.NDArray[Any]], dict[str, float]] | None = None

    def result(self) -> dict[str, npt.NDArray[Any]]:
        """Waits for the run and gives its outputs, which are the caller's own."""
        if self._outcome is None:
            self._outcome = self._session._collect(self._ready)
        return self._outcome[0]

    def timings(self) -> dict[str, float]:
        """Milliseconds on the GPU's clock: upload, gpu, download."""
        self.result()
        assert self._outcome is not None
        return self._outcome[1]


def _same_memory(view: npt.NDArray[Any], given: npt.NDArray[Any]) -> bool:
    """Whether an input was written into the session's own memory already. Both are of the same shape and type."""
    address: int = view.__array_interface__["data"][0]
    return bool(given.__array_interface__["data"][0] == address) and given.strides == view.strides
