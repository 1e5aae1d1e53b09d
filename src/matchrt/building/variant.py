"""A graph that was made from an fp32 engine's, opened before it is an engine."""

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
    """A session in ONNX Runtime, on the CPU, on a variant of the engine's graph.

    A graph with fp16 in it is run as `precision.emulation` has it, its Q/DQ pairs in floating point, as they are
    written; one without runs with the 8-bit kernels that users get. Error: engine-rejected.
    """
    from onnx import TensorProto

    from matchrt.export.precision.emulation import emulate

    halves = any(weight.data_type == TensorProto.FLOAT16 for weight in model.graph.initializer)
    data = (emulate(model) if halves else model).SerializeToString()
    manifest = replace(file.manifest, engine_sha256=sha256_bytes(data), engine_bytes=len(data))
    return open_session(EngineFile(file.path, data, manifest), SessionOptions(integer_kernels=not halves))
