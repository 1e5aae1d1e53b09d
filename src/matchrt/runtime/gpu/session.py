"""Sessions on TensorRT and TensorRT-RTX: a stream of their own, memory that is allocated once, and CUDA graphs.

A run brings its inputs to the GPU, launches the engine, and copies its outputs back, all asynchronously in the
session's stream or in the caller's. Inputs are arrays that were prepared on the host (`start`), or images of any layout
that kernels on the GPU prepare (`start_frames`, `run_on_gpu`). From the second run of a shape on, the engine is a
single graph launch if it allows that.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.nvidia.cuda import call, cuda_runtime
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.gpu.blocks import Blocks, grown
from matchrt.runtime.gpu.frames.copies import copies_frames
from matchrt.runtime.gpu.frames.stage import FramePair, FrameStage
from matchrt.runtime.gpu.kept import KeptMaps, KeptTensor, keep, send_each
from matchrt.runtime.gpu.layout import Shapes
from matchrt.runtime.gpu.loaded import LoadedEngine
from matchrt.runtime.gpu.outputs import GpuOutputs
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
    addresses: of its input tensors on the GPU, by name.
    results: of its output tensors, likewise.
    """

    runner: ShapeRunner
    staged: list[tuple[str, npt.NDArray[Any]]]
    fetched: list[tuple[str, npt.NDArray[Any]]]
    addresses: dict[str, int]
    results: dict[str, int]
    runs: int = 0
    graph: Graph | None = None
    no_graph: str | None = None

    def close(self) -> None:
        if self.graph is not None:
            self.graph.close()


@dataclass(frozen=True)
class _Events:
    """Points of a run in its stream, between which the GPU's clock measures.

    begin: nothing has been done.
    sent: what comes from the host is on the GPU.
    resized: the kernels have made the engine's inputs of it.
    started: the engine's turn has come.
    done: the engine's outputs are there.
    fetched: they are in host memory.
    """

    begin: Event = field(default_factory=Event)
    sent: Event = field(default_factory=Event)
    resized: Event = field(default_factory=Event)
    started: Event = field(default_factory=Event)
    done: Event = field(default_factory=Event)
    fetched: Event = field(default_factory=Event)

    def close(self) -> None:
        for event in vars(self).values():
            event.close()


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
            self._events: _Events = self._own(_Events())
            self._handed_over = self._own(Event(timed=False))
            self._done = self._own(Event(timed=False))
        except MatchRTError:
            self._closers.close()
            raise
        self._memory: Blocks | None = None
        self._frames: FrameStage | None = None

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
        ready, stream = self._staged(inputs), self._stream.handle
        with self._ending(stream):
            self._send_and_run(ready, stream)
            self._fetch(ready, stream)
        self._pending = _PendingRun(self, ready, stream, {})
        return self._pending

    def run_kept(self, inputs: Arrays) -> KeptMaps:
        """Runs on host arrays as `run` does, and leaves the outputs on the GPU, in memory of their own.

        They stay good as long as they are referred to. Errors: those of `start`.
        """
        ready, stream = self._staged(inputs), self._stream.handle
        with self._ending(stream):
            self._send_and_run(ready, stream)
            kept = keep(ready.runner, self._held().outputs.device, stream)
            self._stream.wait()
        return kept

    def start_on_kept(self, inputs: Mapping[str, npt.NDArray[Any] | KeptTensor]) -> Pending:
        """Starts a run of which some inputs are on the GPU already.

        inputs: arrays `[B, ...]` in host memory or what `run_kept` left on this GPU, by name; see `start`.
        Errors: those of `start`.
        """
        given: Any = dict(inputs)
        ready, stream, memory = self._staged(given), self._stream.handle, self._held()
        with self._ending(stream):
            self._events.begin.record(stream)
            send_each(given, ready.runner.inputs, memory.inputs.host, memory.inputs.device, stream)
            self._events.sent.record(stream)
            self._run_engine(ready, stream)
            self._fetch(ready, stream)
        self._pending = _PendingRun(self, ready, stream, {}, given)
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

    def start_frames(self, frames: FramePair, stream: int | None = None) -> Pending:
        """Starts a run on images of any layout, which kernels make the engine's inputs of.

        frames: both images, in host memory or on the GPU. Host memory that is not page-locked has been read when this
            returns.
        stream: the address of the stream to run in; None for the session's own.
        Errors: kernels-refused, session-busy, session-closed, session-failed, out-of-memory, engine-graph, cuda-failed.
        """
        where = self._stream.handle if stream is None else stream
        spent: dict[str, float] = {}
        with self._ending(where):
            ready = self._run_frames(frames, where, spent)
            self._fetch(ready, where)
            if stream is not None:
                self._hand_over(where)
        self._pending = _PendingRun(self, ready, where, spent, frames)
        return self._pending

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs the engine on host arrays `[B, ...]` and returns its outputs `[B, ...]` by name.

        The outputs belong to the caller. Errors: those of `start`.
        """
        return self.start(inputs).result()

    def run_on_gpu(self, frames: FramePair, stream: int | None) -> GpuOutputs:
        """Runs on images of any layout and leaves the results on the GPU, with keypoints in pixels of the images.

        frames: both images, in host memory or on the GPU.
        stream: the address of the caller's stream: the run is put into it, and this returns at once. None uses the
            session's own stream, and the run is done when this returns.

        The results are valid until the session's next run. Errors: those of `start_frames`.
        """
        where = self._stream.handle if stream is None else stream
        with self._ending(where):
            ready = self._run_frames(frames, where, {})
            memory = self._held()
            self._hand_over(where)
            if stream is None:
                self._stream.wait()
        return GpuOutputs(memory.outputs, ready.runner.outputs, where, self._stream if stream is None else None)

    def frames_refusal(self) -> str | None:
        """Why this session cannot prepare images on the GPU; None if it can. Raises nothing."""
        try:
            self._require_open()
            self._take_device()
            if not copies_frames(self._manifest):
                self._engine.frame_kernels()
        except MatchRTError as error:
            return str(error)
        return None

    def fork(self) -> TensorRTSession:
        """A session for another thread, on the same weights. Errors: session-closed, cuda-failed."""
        self._require_open()
        return TensorRTSession(self._engine, self._options)

    def memory(self) -> SessionMemory:
        """What this session holds, without the weights. Raises nothing."""
        if self._memory is None:
            return SessionMemory(scratch=0, tensors=0, pinned=0)
        tensors = self._memory.inputs.size + self._memory.outputs.size
        frames, pinned = (0, 0) if self._frames is None else (self._frames.device_bytes, self._frames.upload.size)
        return SessionMemory(scratch=self._memory.scratch.size, tensors=tensors + frames, pinned=tensors + pinned)

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
        if self._frames is not None:
            self._frames.close()
            self._frames = None  # it holds the kernels
        self._closers.close()
        del self._engine

    def _own(self, resource: Any) -> Any:
        self._closers.callback(resource.close)
        return resource

    def _staged(self, inputs: Arrays) -> _Ready:
        """Checks the inputs, and puts those of host memory into the pinned memory that they are sent from."""
        self._require_idle()
        ready = self._checked(inputs)
        for name, view in ready.staged:
            given = inputs[name]
            # What was written into `staging` lies there already.
            if not isinstance(given, KeptTensor) and not _same_memory(view, given):
                view[...] = given
        return ready

    def _send_and_run(self, ready: _Ready, stream: int) -> None:
        memory, events = self._held(), self._events
        events.begin.record(stream)
        copy_to_device(memory.inputs.device.pointer, memory.inputs.host.pointer, ready.runner.inputs.size, stream)
        events.sent.record(stream)
        self._run_engine(ready, stream)

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

    def _ready(self, shapes: Shapes) -> _Ready:
        """The runner for these shapes, with memory large enough."""
        key = tuple([shapes[spec.name] for spec in self._manifest.inputs])
        ready = self._shapes.get(key)
        if ready is None:
            with self._engine.in_turn(self._stream.handle, self._done):
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
        addresses, results = (
            {place.name: block.device.pointer + place.offset for place in layout.places}
            for layout, block in ((runner.inputs, memory.inputs), (runner.outputs, memory.outputs))
        )
        no_graph = None if self._options.cuda_graph else "switched off"
        return _Ready(runner, staged, fetched, addresses, results, no_graph=no_graph)

    def _make_runner(self, shapes: Shapes) -> ShapeRunner:
        runner = ShapeRunner(self._engine, shapes)
        if self._memory is None or not self._memory.holds(runner):
            self._forget_shapes()  # their graphs and addresses belong to the memory that is freed
            # The old memory is forgotten before it is freed: if the new one cannot be allocated, there is none.
            old, self._memory = self._memory, None
            self._memory = grown(old, runner)
        memory = self._memory
        runner.place(memory.scratch, memory.inputs.device.pointer, memory.outputs.device.pointer)
        # TensorRT may make a context ready outside of this session's stream. This does not wait for the whole device,
        # because that would break a capture in another thread.
        call(cuda_runtime().cudaStreamSynchronize, LEGACY_STREAM)
        return runner

    def _held(self) -> Blocks:
        assert self._memory is not None
        return self._memory

    def _forget_shapes(self) -> None:
        for ready in self._shapes.values():
            ready.close()
        self._shapes.clear()
        self._latest = None

    def _run_frames(self, frames: FramePair, stream: int, spent: dict[str, float]) -> _Ready:
        """Sends, resizes and runs. spent: gets the milliseconds that the host took to copy."""
        self._require_idle()
        stage = self._stage()
        ready = self._ready(frames.plan.shapes)
        events = self._events
        events.begin.record(stream)
        start = time.perf_counter()
        images = frames.send(stage.upload, stream)
        spent["copy"] = (time.perf_counter() - start) * 1e3
        events.sent.record(stream)
        stage.run(frames.plan, images, ready.addresses, stream)
        events.resized.record(stream)
        self._run_engine(ready, stream)
        # From here on, the host is faster than the GPU.
        at, slots = ready.results, self._manifest.matching.max_matches
        stage.to_pixels(frames.plan, (at["keypoints0"], at["keypoints1"]), at["num_matches"], slots, stream)
        return ready

    def _stage(self) -> FrameStage:
        if self._frames is None:
            kernels = None if copies_frames(self._manifest) else self._engine.frame_kernels()
            self._frames = FrameStage(kernels, self._manifest.input, self._engine.gpu.index)
        return self._frames

    def _run_engine(self, ready: _Ready, stream: int) -> None:
        """Launches the engine on inputs that lie on the GPU. The first run compiles; the second captures a graph."""
        with self._engine.in_turn(stream, self._done):
            ready.runs += 1
            if ready.runs > 1 and ready.graph is None and ready.no_graph is None:
                self._capture(ready, stream)
            if ready.graph is not None:
                ready.graph.launch(stream)  # with the events, so that its launch does not count as the GPU's time
            else:
                self._events.started.record(stream)
                ready.runner.enqueue(stream)
                self._events.done.record(stream)

    def _fetch(self, ready: _Ready, stream: int) -> None:
        """Puts the copy of all outputs to the host into a stream."""
        outputs = self._held().outputs
        copy_to_host(outputs.host.pointer, outputs.device.pointer, ready.runner.outputs.size, stream)
        self._events.fetched.record(stream)

    @contextlib.contextmanager
    def _ending(self, stream: int) -> Iterator[None]:
        """What was put into a stream before an error is over when the error leaves: it uses memory of the session."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(MatchRTError):
                call(cuda_runtime().cudaStreamSynchronize, stream)
            raise

    def _hand_over(self, stream: int) -> None:
        """Notes that the run is in the caller's stream: the next one waits for it."""
        self._handed_over.record(stream)
        self._lent_out = True

    def _capture(self, ready: _Ready, stream: int) -> None:
        """Captures the engine as a graph, and checks it on the inputs that `stream` brings."""
        ready.no_graph = self._engine.dialect.capture_refusal(ready.runner.context, self._stream.handle)
        if ready.no_graph is not None:
            return
        call(cuda_runtime().cudaStreamSynchronize, stream)
        try:
            graph = Graph(self._stream, lambda: self._captured(ready))
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

    def _captured(self, ready: _Ready) -> None:
        stream = self._stream.handle
        self._events.started.capture(stream)
        ready.runner.enqueue(stream)
        self._events.done.capture(stream)

    def _agrees(self, ready: _Ready, graph: Graph) -> bool:
        """Whether the graph gives the same bits as plain runs, every time.

        This is checked because TensorRT-RTX 1.4 has fp32 kernels that race on an H100, which its vendor does not list,
        when they are launched close together. A third of the runs are then wrong by a fraction of a pixel.
        """
        outputs, size, stream = self._held().outputs.host.bytes, ready.runner.outputs.size, self._stream.handle
        ready.runner.enqueue(stream)
        self._fetch(ready, stream)
        self._stream.wait()
        expected = outputs[:size].copy()
        for _ in range(GRAPH_CHECKS):
            graph.launch(stream)
            self._fetch(ready, stream)
            self._stream.wait()
            if not np.array_equal(outputs[:size], expected):
                return False
        return True

    def _collect(self, run: _PendingRun) -> dict[str, float]:
        """Waits for a run; its outputs are in pinned memory then. Returns milliseconds by stage."""
        self._require_open()
        self._pending = None
        call(cuda_runtime().cudaStreamSynchronize, run.stream)
        at = self._events
        times = {"upload": at.sent.since(at.begin), "gpu": at.done.since(at.started)}
        if "copy" in run.spent:
            times["resize"] = at.resized.since(at.sent)
        return {**run.spent, **times, "download": at.fetched.since(at.done)}


class _PendingRun:
    """A run under way.

    stream: the address of the stream that it is in. spent: milliseconds that the host took, by stage.
    inputs: kept until the run is over, because the GPU may read their memory.
    """

    def __init__(
        self, session: TensorRTSession, ready: _Ready, stream: int, spent: dict[str, float], inputs: object = None
    ) -> None:
        self._session, self._inputs = session, inputs
        self.ready, self.stream, self.spent = ready, stream, spent
        self._times: dict[str, float] | None = None
        self._own: dict[str, npt.NDArray[Any]] | None = None

    def result(self) -> dict[str, npt.NDArray[Any]]:
        """Waits for the run and gives its outputs, which are the caller's own."""
        if self._own is None:
            self._own = {name: view.copy() for name, view in self.lent().items()}
        return self._own

    def lent(self) -> dict[str, npt.NDArray[Any]]:
        """Waits for the run and gives its outputs in the session's memory, where the next run overwrites them."""
        if self._times is None:
            self._times = self._session._collect(self)
            self._inputs = None
        return dict(self.ready.fetched) if self._own is None else self._own

    def timings(self) -> dict[str, float]:
        """Milliseconds by stage: upload, resize, gpu and download on the GPU's clock, copy on the host's."""
        if self._times is None:
            self.result()
        assert self._times is not None
        return self._times


def _same_memory(view: npt.NDArray[Any], given: npt.NDArray[Any]) -> bool:
    """Whether an input was written into the session's own memory already. Both are of the same shape and type."""
    address: int = view.__array_interface__["data"][0]
    return bool(given.__array_interface__["data"][0] == address) and given.strides == view.strides
