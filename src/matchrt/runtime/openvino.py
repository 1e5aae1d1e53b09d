"""Sessions on OpenVINO's CPU device."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from openvino.properties import hint, inference_num_threads

from matchrt.errors import InternalError, MatchRTError
from matchrt.manifest import EngineManifest, TensorSpec
from matchrt.runtime.calling import CallingSession
from matchrt.runtime.engine_checks import require_tensors
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.session import Arrays, SessionOptions, check_inputs


class OpenVinoSession(CallingSession):
    """An ONNX engine, compiled by OpenVINO for this processor.

    fp32 stays fp32: left to itself, OpenVINO computes in bfloat16 where the processor can. A session takes one run at a
    time, and its forks share the compiled engine and its threads.

    Errors: engine-rejected, engine-graph.
    """

    def __init__(self, engine: EngineFile, options: SessionOptions) -> None:
        settings: dict[Any, Any] = {
            hint.inference_precision: openvino.Type.f32,
            hint.performance_mode: hint.PerformanceMode.LATENCY,
        }
        if options.threads is not None:
            settings[inference_num_threads] = options.threads
        try:
            core = openvino.Core()
            self._engine: Any = core.compile_model(core.read_model(engine.data), "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError, and TypeError for bytes that it cannot place
            raise MatchRTError(
                "engine-rejected",
                f"OpenVINO {openvino.__version__} cannot load '{engine.path}': {_first_line(error)}",
                "Update openvino, or use --backend onnxruntime.",
            ) from error
        inputs = _specs(self._engine.inputs, engine.manifest.inputs)
        require_tensors(engine.manifest, engine.path, inputs, _specs(self._engine.outputs, engine.manifest.outputs))
        self._manifest = engine.manifest
        self._request: Any = self._engine.create_infer_request()

    @property
    def manifest(self) -> EngineManifest:
        """The loaded engine's manifest."""
        return self._manifest

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs the engine on host arrays.

        inputs: arrays `[B, ...]` by name, types and shapes as the manifest lists them.

        Returns the outputs `[B, ...]` by name, which the caller owns. Errors: session-closed, session-input,
        session-failed.
        """
        if self._request is None:
            raise MatchRTError("session-closed", "The session is closed.", "Open a new one.")
        check_inputs(inputs, self._manifest)
        try:
            self._request.infer({name: np.ascontiguousarray(array) for name, array in inputs.items()})
            # Copies, since the next run writes into the same memory.
            return {spec.name: self._request.get_tensor(spec.name).data.copy() for spec in self._manifest.outputs}
        except Exception as error:
            raise InternalError(
                "session-failed", f"OpenVINO failed: {_first_line(error)}", "Report this, with the image sizes."
            ) from error

    def fork(self) -> OpenVinoSession:
        """Another handle on the same compiled engine, for another thread. Error: session-closed."""
        if self._engine is None:
            raise MatchRTError("session-closed", "The session is closed.", "Open a new one.")
        other = copy.copy(self)
        other._request = self._engine.create_infer_request()
        return other

    def device(self) -> str:
        """The device and the version. See `Session`."""
        return f"CPU, openvino {openvino.__version__}"

    def close(self) -> None:
        """Frees the engine; later runs raise session-closed. More than one call does no harm."""
        self._request = self._engine = None


def _specs(ports: Sequence[Any], wanted: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The tensors as OpenVINO lists them. One may have several names, of which the manifest's counts."""
    known = {spec.name for spec in wanted}
    found = []
    for port in ports:
        shape = (side.get_length() if side.is_static else "?" for side in port.partial_shape)
        name = min(port.names & known, default=port.any_name)
        found.append(TensorSpec(name, port.element_type.to_dtype().name, tuple(shape)))
    return found


def _first_line(error: Exception) -> str:
    """What the error says, without the places in OpenVINO's own source that it lists."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (said or lines or [type(error).__name__])[0].rstrip(".") + "."
