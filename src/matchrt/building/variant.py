"""Opens a variant of an fp32 engine's graph before it has become an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from matchrt._util.digest import sha256_bytes
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.opening import open_session
from matchrt.runtime.session import Session, SessionOptions

if TYPE_CHECKING:
    import onnx


def open_variant(file: EngineFile, model: onnx.ModelProto) -> Session:
    """Opens a variant of the engine's graph in ONNX Runtime on the CPU.

    A graph with fp16 weights is run in the form that `precision.emulation` gives it, and its Q/DQ pairs are computed in
    floating point as they are written. A graph without fp16 weights runs with the 8-bit kernels that users get.
    Error: engine-rejected.
    """
    from onnx import TensorProto

    from matchrt.export.precision.emulation import emulate

    halves = any(weight.data_type == TensorProto.FLOAT16 for weight in model.graph.initializer)
    data = (emulate(model) if halves else model).SerializeToString()
    manifest = replace(file.manifest, engine_sha256=sha256_bytes(data), engine_bytes=len(data))
    return open_session(EngineFile(file.path, data, manifest), SessionOptions(integer_kernels=not halves))
