"""The backend `onnxruntime`: the engine is the ONNX graph itself, proven to load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matchrt.engines.backend import BuiltEngine, Tell
from matchrt.errors import InternalError
from matchrt.manifest import Portability, Profile, TensorSpec

_TYPES = {"tensor(uint8)": "uint8", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(float)": "float32"}


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """ONNX Runtime optimises when it loads; a graph optimised here would hold only for this processor and version."""

    name: str = "onnxruntime"
    suffix: str = ".onnx"
    rounds_products: bool = False

    def identity(self) -> str:
        """The graph decides everything."""
        return "onnx"

    def build(self, model: bytes, profile: Profile | None, tell: Tell) -> BuiltEngine:
        """Loads the graph in ONNX Runtime and reads back its inputs and outputs."""
        del profile, tell
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime raises a dozen types of its own, none of them public.
            raise InternalError(
                "engine-rejected", f"ONNX Runtime rejects the graph: {error}.", "Report this as a bug."
            ) from error
        inputs = tuple(_spec(value) for value in session.get_inputs())
        outputs = tuple(_spec(value) for value in session.get_outputs())
        return BuiltEngine(model, inputs, outputs, onnxruntime.__version__, Portability())


def _spec(value: Any) -> TensorSpec:
    return TensorSpec(value.name, _TYPES.get(value.type, value.type), tuple(value.shape))
