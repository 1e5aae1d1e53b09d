"""A deserialised TensorRT engine, shared by the sessions of several threads."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.manifest import TensorSpec
from matchrt.nvidia.device import Gpu, current_gpu, driver_version
from matchrt.nvidia.dialect import Dialect, dtype_name
from matchrt.nvidia.log import make_log
from matchrt.nvidia.modules import open_dialect
from matchrt.runtime.engine_checks import (
    build_command,
    require_gpu,
    require_lean_runtime,
    require_tensors,
    require_version,
)
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.gpu.frames.device_code import FrameKernels
from matchrt.runtime.gpu.kernels import Kernels
from matchrt.runtime.gpu.layout import Shapes
from matchrt.runtime.gpu.stream import Event

LOGGER = logging.getLogger("matchrt.runtime")
LEAN_RUNTIME = "MATCHRT_TENSORRT_LEAN"


class LoadedEngine:
    """The engine on the GPU. Weights and kernels are here once, however many sessions use it.

    keep_kernels: whether kernels that are compiled here are kept for the next start.
    Errors before the bytes are deserialised: package-missing, package-broken, package-version, device-missing,
    engine-version, engine-gpu, engine-refused (the vendor's own check). Errors after that: engine-rejected,
    engine-graph.
    """

    def __init__(self, file: EngineFile, keep_kernels: bool = True) -> None:
        self.manifest = file.manifest
        self.dialect: Dialect = open_dialect(file.manifest.backend)
        require_version(file.manifest, self.dialect.version)
        self.gpu: Gpu = current_gpu()
        require_gpu(file.manifest, self.gpu.compute_capability, self.gpu.name)
        self._log = make_log(self.dialect.trt)
        self._runtime = self._make_runtime()
        self.engine: Any = self._deserialize(file)
        require_tensors(file.manifest, file.path, *_tensors(self.engine))
        self._serial = self.dialect.unlisted(self._runtime, file.data)
        self._turn = threading.Lock()
        self._last: Event | None = None
        if self._serial:
            LOGGER.warning(
                "%s is not a GPU that %s %s supports: runs are kept apart, and results should be checked",
                *(self.gpu.name, file.manifest.backend, self.dialect.version),
            )
        self._kernels = Kernels(self.dialect, self.engine, file.manifest, self.gpu, keep_kernels)
        # TensorRT allows contexts to be made from several threads, but their kernels go through one store.
        self._lock = threading.Lock()
        self._frame_kernels: FrameKernels | MatchRTError | None = None

    def make_context(self, shapes: Shapes) -> tuple[Any, Any]:
        """A context for inputs of these shapes, whose scratch memory the caller provides, and the kernels that it uses.

        shapes: of each input, by name. The kernels must live as long as the context. Error: out-of-memory.
        """
        with self._lock:
            kernels = self._kernels.open(shapes)
            context = self.dialect.make_context(self.engine, kernels)
        if context is None:
            raise MatchRTError(
                "out-of-memory",
                f"The engine cannot be made ready on {self.gpu.name}: {self._log.take_errors()}.",
                "Close other programs on the GPU, or build an engine for smaller images.",
            )
        return context, kernels

    @contextlib.contextmanager
    def in_turn(self, stream: int, done: Event) -> Iterator[None]:
        """Wraps the code that puts a run into `stream`: on GPUs that the vendor does not list, runs follow one another.

        done: the session's own event. Measured with TensorRT-RTX 1.4 on an H100: of runs of two contexts at the same
            time, 1 in 300 was wrong. With runs in turn none was, for 8 % of the throughput. Error: cuda-failed.
        """
        if not self._serial:
            yield
            return
        with self._turn:
            # A session waits for its own last run before it starts another one.
            if self._last is not None and self._last is not done:
                self._last.hold(stream)
            yield
            done.record(stream)
            self._last = done

    def forget(self, done: Event) -> None:
        """Called when a session ends: nothing waits for its event any more. Error: cuda-failed."""
        with self._turn:
            if self._last is done:
                done.wait()
                self._last = None

    def why(self) -> str:
        """What TensorRT logged about its last failure, as one line. Raises nothing."""
        return str(self._log.take_errors())

    def keep_kernels(self, shapes: Shapes, kernels: Any) -> None:
        """Saves the kernels that a context compiled for these shapes, so that the next context need not compile them.

        Raises nothing; see `Kernels.keep`.
        """
        with self._lock:
            self._kernels.keep(shapes, kernels)

    def frame_kernels(self) -> FrameKernels:
        """Our own kernels, which prepare images on this GPU; loaded when they are first asked for.

        Errors: kernels-refused, package-missing.
        """
        with self._lock:
            if self._frame_kernels is None:
                try:
                    self._frame_kernels = FrameKernels()
                except MatchRTError as error:
                    self._frame_kernels = error
            if isinstance(self._frame_kernels, MatchRTError):
                raise self._frame_kernels
            return self._frame_kernels

    def kept_kernels(self, shapes: Shapes) -> str | None:
        """A digest of the kernels that are kept for these shapes; None if there are none. Raises nothing."""
        with self._lock:
            return self._kernels.kept(shapes)

    def drop_kernels(self, shapes: Shapes) -> bool:
        """Deletes the kernels that an earlier start left for these shapes. Returns whether there were some.

        Kernels that this process compiled are not dropped: compiling them again would give the same. Raises nothing.
        """
        with self._lock:
            return self._kernels.drop(shapes)

    def where(self) -> str:
        """The GPU, the driver and the backend's version, as text. Raises nothing."""
        driver = driver_version() or f"for CUDA {self.gpu.driver}"
        return (
            f"{self.gpu.name}, compute capability {self.gpu.compute_capability}, driver {driver}, "
            f"{self.dialect.backend} {self.dialect.version}"
        )

    def _make_runtime(self) -> Any:
        try:
            return self._of_its_version(self.dialect.trt.Runtime(self._log))
        except TypeError as error:  # pybind11 raises it if the library returned no runtime
            raise MatchRTError(
                "engine-rejected",
                f"{self.dialect.backend} {self.dialect.version} does not start on {self.gpu.name}: {self.why()}.",
                "`matchrt doctor` says what is missing.",
            ) from error

    def _of_its_version(self, runtime: Any) -> Any:
        """The runtime itself, or NVIDIA's lean runtime of the engine's version if the engine is of an earlier one."""
        if self.manifest.backend_version == self.dialect.version:
            return runtime
        lean = os.environ.get(LEAN_RUNTIME)
        return runtime.load_runtime(require_lean_runtime(self.manifest, self.dialect.version, lean, LEAN_RUNTIME))

    def _deserialize(self, file: EngineFile) -> Any:
        runtime, manifest = self._runtime, file.manifest
        # Set explicitly, whatever the default is: an engine never brings code that runs on the host.
        runtime.engine_host_code_allowed = False
        refusal = self.dialect.refusal(runtime, file.data)
        what = f"{manifest.backend} {self.dialect.version} refuses '{file.path}' on {self.gpu.name}"
        remedy = (
            f"Build it here, with what is installed: {build_command(manifest)}. Where this version does not know the "
            "GPU at all, install one that does, or use --backend tensorrt or onnxruntime."
        )
        if refusal is not None:
            raise MatchRTError("engine-refused", f"{what} before loading: {refusal}.", remedy)
        engine = runtime.deserialize_cuda_engine(file.data)
        if engine is None:
            if self.dialect.unlisted(runtime, file.data):
                remedy = (
                    f"No engine of this version runs on this GPU: install a {manifest.backend} that supports it, or "
                    "use --backend tensorrt or onnxruntime."
                )
            raise MatchRTError("engine-rejected", f"{what}: {self._log.take_errors()}.", remedy)
        return engine


def _tensors(engine: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """The engine's inputs and outputs. A dimension that is not known before a run is `any`."""
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = tuple("any" if side < 0 else int(side) for side in engine.get_tensor_shape(name))
        spec = TensorSpec(name, dtype_name(engine.get_tensor_dtype(name)), shape)
        # The values of the vendor's enumerations differ between its packages, and the names do not.
        (inputs if engine.get_tensor_mode(name).name == "INPUT" else outputs).append(spec)
    return inputs, outputs
