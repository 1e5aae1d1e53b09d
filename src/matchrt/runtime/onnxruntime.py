"""Sessions on ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from matchrt.errors import InternalError, MatchRTError
from matchrt.manifest import EngineManifest, TensorSpec
from matchrt.nvidia.boards import board_in_use, read_boards
from matchrt.runtime.calling import CallingSession
from matchrt.runtime.engine_checks import require_tensors
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.session import Arrays, SessionOptions, check_inputs

_TYPES = {
    "tensor(bool)": "bool",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeSession(CallingSession):
    """An ONNX engine on ONNX Runtime, on the CPU or, if asked for, on CUDA.

    Errors: device-missing (ONNX Runtime has no provider for the device), engine-rejected, engine-graph.
    """

    def __init__(self, engine: EngineFile, options: SessionOptions) -> None:
        import onnxruntime

        provider = _PROVIDERS[options.device or "cpu"]
        _require_provider(provider, onnxruntime.get_available_providers())
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        if options.threads is not None:
            settings.intra_op_num_threads = options.threads
        if not options.spin:
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not options.integer_kernels:
            # Fusions beyond the basic ones give wrong values for float8 pairs in float32 graphs (ONNX Runtime 1.31).
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(engine.data, settings, providers=[provider])
        except Exception as error:
            # ONNX Runtime raises a dozen types of its own, and none of them is public.
            raise MatchRTError(
                "engine-rejected",
                f"ONNX Runtime {onnxruntime.__version__} cannot load '{engine.path}': {error}.",
                f"Update onnxruntime, or build the engine again: matchrt build {engine.manifest.model}.",
            ) from error
        # If a provider's libraries are missing, ONNX Runtime takes the CPU and only logs that.
        _require_provider(provider, self._session.get_providers())
        inputs, outputs = (
            [tensor_spec(value) for value in values]
            for values in (self._session.get_inputs(), self._session.get_outputs())
        )
        require_tensors(engine.manifest, engine.path, inputs, outputs)
        self._manifest = engine.manifest
        self._provider = provider
        self._device: str | None = None

    @property
    def manifest(self) -> EngineManifest:
        """The loaded engine's manifest."""
        return self._manifest

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs the engine on host arrays.

        inputs: arrays `[B, ...]` by name, types and shapes as the manifest lists them.

        Returns the outputs `[B, ...]` by name. Errors: session-closed, session-input, out-of-memory, session-failed.
        """
        if self._session is None:
            raise MatchRTError("session-closed", "The session is closed.", "Open a new one.")
        check_inputs(inputs, self._manifest)
        names = [spec.name for spec in self._manifest.outputs]
        try:
            values = self._session.run(names, dict(inputs))
        except Exception as error:
            if "allocate" in str(error).lower():
                raise MatchRTError(
                    "out-of-memory",
                    "There is not enough memory to run the engine on images of this size.",
                    "Use a smaller --resize, or build an engine of a smaller size.",
                ) from error
            raise InternalError(
                "session-failed", f"ONNX Runtime failed: {error}.", "Report this, with the image sizes."
            ) from error
        return dict(zip(names, values, strict=True))

    def device(self) -> str:
        """The device and the version: on a GPU, its name and the driver's version too. See `Session`."""
        # The driver is asked once: it does not change while a session lives, and asking may start a program.
        if self._device is None:
            import onnxruntime

            where = "CPU" if self._provider == _PROVIDERS["cpu"] else f"{_gpus()}, {self._provider}"
            self._device = f"{where}, onnxruntime {onnxruntime.__version__}"
        return self._device

    def circumstances(self) -> str | None:
        """On a GPU, what `device` says; None on the CPU. See `Session`."""
        return None if self._provider == _PROVIDERS["cpu"] else self.device()

    def close(self) -> None:
        """Frees the engine; later runs raise session-closed. More than one call does no harm."""
        self._session = None


def tensor_spec(value: Any) -> TensorSpec:
    """The description of ONNX Runtime's tensor. A dimension of no known size and no name is `?`. Raises nothing."""
    shape = (side if isinstance(side, int) else str(side or "?") for side in value.shape)
    return TensorSpec(value.name, _TYPES.get(value.type, value.type), tuple(shape))


def _gpus() -> str:
    """The GPU in use and its driver; all GPUs if it is not known which one that is."""
    boards = read_boards()
    board = board_in_use(boards)
    found = boards if board is None else (board,)
    return ", ".join(f"{board.name}, driver {board.driver}" for board in found) or "an unknown GPU"


def _require_provider(provider: str, available: list[str]) -> None:
    if provider not in available:
        raise MatchRTError(
            "device-missing",
            f"ONNX Runtime cannot use {provider} here; it has {', '.join(available)}.",
            "Use --device cpu, or install onnxruntime-gpu in place of onnxruntime, with the CUDA libraries it names.",
        )
