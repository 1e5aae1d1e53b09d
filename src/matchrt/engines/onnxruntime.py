"""The backend `onnxruntime`. Its engine is the ONNX graph itself, after a check that it loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from matchrt.errors import InternalError, MatchRTError
from matchrt.manifest import InputContract, Portability
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backend import Backend, BuiltEngine, Tell, TritonPlatform
from matchrt.runtime.backends import DEFAULT_BACKEND

if TYPE_CHECKING:
    from matchrt.runtime.engine_file import EngineFile
    from matchrt.runtime.session import Device, Session, SessionOptions


@dataclass(frozen=True)
class OnnxRuntimeBuilder:
    """The builder of ONNX engines, which only checks the graph.

    ONNX Runtime optimises a graph when it loads it. A graph that was optimised here would be valid for this processor
    and version only. The fields are constants that the `Builder` protocol asks for.

    name: the backend's name.
    suffix: of the engine file, with its dot.
    version: None, because the graph does not depend on the version.
    tf32: whether products are computed in TF32; they are not.
    rounds_products: whether the backend rounds the factors of fp32 products; it does not.
    fuses_reductions: whether reductions and the arithmetic that they read become one kernel; they do not.
    """

    name: str = DEFAULT_BACKEND
    suffix: str = ".onnx"
    version: str | None = None
    tf32: bool = False
    rounds_products: bool = False
    fuses_reductions: bool = False

    def runs_here(self) -> bool:
        """False: no GPU is needed, and the graph is judged before it becomes an engine."""
        return False

    def identity(self) -> str:
        """A constant, because only the graph decides what is built."""
        return "onnx"

    def build(self, model: bytes, contract: InputContract | None, tell: Tell) -> BuiltEngine:
        """Loads the graph in ONNX Runtime and reads its inputs and outputs. Error: engine-rejected.

        model: the ONNX graph as bytes. contract and tell are not used.
        """
        del contract, tell
        import onnxruntime

        from matchrt.runtime.onnxruntime import tensor_spec

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime raises a dozen types of its own, and none of them is public.
            raise InternalError(
                "engine-rejected", f"ONNX Runtime rejects the graph: {error}.", "Report this as a bug."
            ) from error
        inputs = tuple(tensor_spec(value) for value in session.get_inputs())
        outputs = tuple(tensor_spec(value) for value in session.get_outputs())
        return BuiltEngine(model, inputs, outputs, onnxruntime.__version__, Portability())


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime, on the CPU or, on request, on CUDA."""

    name = DEFAULT_BACKEND
    title = "ONNX Runtime"
    suffix = OnnxRuntimeBuilder.suffix
    # The first of these packages has the backend's name.
    distributions = (DEFAULT_BACKEND, f"{DEFAULT_BACKEND}-gpu")
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    host_memory = True
    onnx_engines = True
    triton = TritonPlatform(DEFAULT_BACKEND, "model.onnx", batches=True)

    def builder(self, options: BuilderOptions) -> OnnxRuntimeBuilder:
        """The builder, which takes no options. Error: build-option, if any option is set."""
        if options != BuilderOptions():
            raise MatchRTError(
                "build-option",
                "ONNX Runtime optimises a graph when it loads it, so the builder has no options.",
                "Leave the builder's options out, or choose --backend tensorrt or tensorrt_rtx.",
            )
        return OnnxRuntimeBuilder()

    def open(self, engine: EngineFile, options: SessionOptions) -> Session:
        """Opens a session. Errors: device-missing, engine-rejected, engine-graph."""
        from matchrt.runtime.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(engine, options)

    def quantization(self, precision: str, version: str | None = None) -> str:
        """The name of the placement of Q/DQ nodes; ONNX Runtime's CPU kernels need 8-bit results and biases too.

        Error: precision-backend, for fp8.
        """
        del version
        if precision == "fp8":
            raise MatchRTError(
                "precision-backend",
                "ONNX Runtime has no fp8 kernels on CPUs: the engine would compute in fp32 and round on top of it.",
                "Use --precision int8, or --backend tensorrt or tensorrt_rtx.",
            )
        return "onnxruntime-cpu"
