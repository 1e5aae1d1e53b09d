"""What `to_fp16` has to know of a graph: element types, and which inputs and outputs may be float16 or float32."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import onnx
from onnx import TensorProto

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
# Type inference reads the values of shapes and axes. Weights of more bytes than this are neither.
_SMALL = 1024


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its weights as inputs: small enough to be checked and inferred at any size of weights."""
    copy = onnx.ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    graph = copy.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for weight in model.graph.initializer:
        if weight.ByteSize() <= _SMALL:
            graph.initializer.append(weight)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))
    return copy


def inferred_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Element type and shape of every tensor that is no small constant, by ONNX's own inference."""
    inferred = onnx.shape_inference.infer_shapes(skeleton(model), strict_mode=True).graph
    return {v.name: v.type.tensor_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor by name, by ONNX's own inference."""
    types = {name: kind.elem_type for name, kind in inferred_types(model).items()}
    return types | {weight.name: weight.data_type for weight in model.graph.initializer}


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def follows_input(op_type: str, position: int, version: int) -> bool:
    """Whether input `position` of the operator may be float16 as well as float32."""
    return _both(op_type, version, position, "inputs")


def follows_output(op_type: str, position: int, version: int) -> bool:
    """Whether output `position` of the operator may be float16 as well as float32."""
    return _both(op_type, version, position, "outputs")


@lru_cache(maxsize=4096)
def _both(op_type: str, version: int, position: int, side: str) -> bool:
    schema = onnx.defs.get_schema(op_type, version)
    formal: Sequence[onnx.defs.OpSchema.FormalParameter] = getattr(schema, side)
    kind = formal[min(position, len(formal) - 1)].type_str
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}.get(kind, {kind})
    return {"tensor(float)", "tensor(float16)"} <= allowed
