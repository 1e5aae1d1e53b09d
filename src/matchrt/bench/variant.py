"""Opens engines to judge them: variants of a graph, references with their warp, fp16 as GPUs compute it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt._util.digest import sha256_bytes
from matchrt._util.packages import packages_for
from matchrt.bench.gate import EMULATION
from matchrt.families.registry import is_dense
from matchrt.manifest import DENSE_OUTPUTS, TensorSpec
from matchrt.runtime.backends import DEFAULT_BACKEND
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.opening import open_session
from matchrt.runtime.session import Session, SessionOptions

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Judged:
    """An engine, ready to be judged.

    session: runs it.
    where: `EMULATION`, or the device and the backend that run it.
    emulated: the graph in fp16 that is emulated; None if the engine itself runs.
    """

    session: Session
    where: str
    emulated: onnx.ModelProto | None = None

    @property
    def precision(self) -> str:
        """The precision by whose limits it is judged: the manifest's, or fp16 for an fp16 graph without Q/DQ pairs."""
        plain = self.emulated is not None and all(n.op_type != "QuantizeLinear" for n in self.emulated.graph.node)
        return "fp16" if plain else self.session.manifest.precision


def open_variant(file: EngineFile, model: onnx.ModelProto, options: SessionOptions | None = None) -> Judged:
    """Opens a variant of the engine's graph in ONNX Runtime on the CPU.

    A graph that computes in fp16 is run in the form that `precision.emulation` gives it, and its Q/DQ pairs are
    computed in floating point as they are written. Any other graph runs with the 8-bit kernels that users get.
    Error: engine-rejected.
    """
    from matchrt.export.precision.emulation import emulate

    halves = computes_in_fp16(model)
    data = (emulate(model) if halves else model).SerializeToString()
    manifest = replace(file.manifest, engine_sha256=sha256_bytes(data), engine_bytes=len(data), backend=DEFAULT_BACKEND)
    options = replace(options or SessionOptions(), integer_kernels=not halves, device=None)
    session = open_session(EngineFile(file.path, data, manifest), options)
    return Judged(session, EMULATION, model) if halves else Judged(session, session.device())


def open_judged(file: EngineFile, options: SessionOptions) -> Judged:
    """Opens an engine to judge it, as it is where it can run, and emulated where it would be another engine.

    ONNX Runtime's CPU provider computes fp16 graphs in fp32, so there they are emulated. Its self-test is left out: the
    judgement says more. Errors: package-missing, those of `open_session`.
    """
    options = replace(options, self_test=False)
    manifest = file.manifest
    if manifest.backend == DEFAULT_BACKEND and options.device != "cuda":
        model = _fp16_graph(file)
        if model is not None:
            return open_variant(file, model, options)
    session = open_session(file, options)
    return Judged(session, session.device())


def open_reference(file: EngineFile, options: SessionOptions | None = None) -> Session:
    """Opens an engine that others are judged by. ONNX engines of dense networks give their warp too.

    Errors: package-missing, and those of `open_session`.
    """
    options = replace(options or SessionOptions(), self_test=False)
    manifest = file.manifest
    if not is_dense(manifest.family) or manifest.dense or manifest.backend != DEFAULT_BACKEND:
        return open_session(file, options)
    with packages_for("Judging a dense network by its warp"):
        import onnx
    model = onnx.load_model_from_string(file.data)
    _show_warp(model)
    data = model.SerializeToString()
    shown = tuple(TensorSpec(name, "float32", ("batch", "rows", "columns")) for name in DENSE_OUTPUTS)
    manifest = replace(
        file.manifest,
        outputs=(*file.manifest.outputs, *shown),
        engine_sha256=sha256_bytes(data),
        engine_bytes=len(data),
    )
    return open_session(EngineFile(file.path, data, manifest), options)


def computes_in_fp16(model: onnx.ModelProto) -> bool:
    """Whether a node of the graph gives a float16 tensor. Weights that are only stored in float16 do not count."""
    from onnx import TensorProto

    from matchrt.export.precision.graph_types import element_types

    weights = {weight.name for weight in model.graph.initializer}
    return any(kind == TensorProto.FLOAT16 and name not in weights for name, kind in element_types(model).items())


def _fp16_graph(file: EngineFile) -> onnx.ModelProto | None:
    """The graph of an ONNX engine if it computes in fp16, whatever its manifest says; else None.

    Error: package-missing, because without onnx nobody can tell.
    """
    with packages_for("Judging an ONNX engine, which may compute in fp16,"):
        import onnx
    model = onnx.load_model_from_string(file.data)
    return model if computes_in_fp16(model) else None


def _show_warp(model: onnx.ModelProto) -> None:
    """Makes the warp and its certainty, which the selection of matches reads, outputs of the graph."""
    import onnx

    made = {name for node in model.graph.node for name in node.output}
    for name in DENSE_OUTPUTS:
        assert name in made, f"the graph has no tensor {name}"
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
