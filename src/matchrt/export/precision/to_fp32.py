"""Back to a plain fp32 graph: what `half-storage` and an earlier lowering wrote is undone, so that rules see one form.

Undoing first makes lowering idempotent: a lowered graph is raised and lowered to the same bytes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from matchrt.export.passes.base import unmet_requirement
from matchrt.export.precision.graph_types import element_types

# Ends of the names of the casts and weight copies that lowering adds; nothing else in a graph is named like this.
TO_FP16, TO_FP32, COPY = "/to_fp16", "/to_fp32", "/fp16"
STORED = ":half"


def raise_to_fp32(model: onnx.ModelProto) -> None:
    """Changes the model in place. Error: `pass-requirement` for float16 that neither of the two wrote."""
    _require_no_rounding(model)
    del model.graph.value_info[:]  # types that were inferred before are not those after
    _load_stored_weights(model.graph)
    _remove_casts(model.graph)
    _raise_weights(model.graph)
    for node in model.graph.node:
        set_source_type(node, TensorProto.FLOAT16, TensorProto.FLOAT)


def set_source_type(node: onnx.NodeProto, old: int, new: int) -> None:
    """Changes the type of an operator whose result type is an attribute: Cast, ConstantOfShape."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == old:
            attribute.i = new
        if node.op_type == "ConstantOfShape" and attribute.name == "value" and attribute.t.data_type == old:
            values = numpy_helper.to_array(attribute.t).astype(onnx.helper.tensor_dtype_to_np_dtype(new))
            attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


def _require_no_rounding(model: onnx.ModelProto) -> None:
    """A cast to float16 that the network itself makes is part of its arithmetic and must not vanish."""
    casts = [n for n in model.graph.node if n.op_type == "Cast" and not n.name.endswith((TO_FP16, TO_FP32))]
    halves = [n for n in casts if any(a.name == "to" and a.i == TensorProto.FLOAT16 for a in n.attribute)]
    types = element_types(model) if halves else {}
    if own := [n.name for n in halves if types.get(n.input[0]) == TensorProto.FLOAT]:
        raise unmet_requirement("precision", f"{own[0]} rounds to float16 in the network itself")


def _load_stored_weights(graph: onnx.GraphProto) -> None:
    """A float16 weight and its Cast become the float32 weight that they stand for."""
    weights = {i.name: i for i in graph.initializer if i.name.endswith(STORED)}
    casts = [n for n in graph.node if n.op_type == "Cast" and n.input[0] in weights]
    for cast in casts:
        weights[cast.input[0]].CopyFrom(_converted(weights[cast.input[0]], np.float32, cast.output[0]))
    _drop(graph, casts)


def _remove_casts(graph: onnx.GraphProto) -> None:
    outputs = {value.name for value in graph.output}
    added = [n for n in graph.node if n.op_type == "Cast" and n.name.endswith((TO_FP16, TO_FP32))]
    renamed: dict[str, str] = {}
    for cast in added:
        source, result = cast.input[0], cast.output[0]
        renamed[source if result in outputs else result] = result if result in outputs else source
    _drop(graph, added)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]


def _drop(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    names = {node.name for node in nodes}
    kept = [node for node in graph.node if node.name not in names]
    del graph.node[:]
    graph.node.extend(kept)


def _raise_weights(graph: onnx.GraphProto) -> None:
    whole = {i.name for i in graph.initializer}
    copies = {i.name for i in graph.initializer if i.name.endswith(COPY) and i.name.removesuffix(COPY) in whole}
    for node in graph.node:
        node.input[:] = [name.removesuffix(COPY) if name in copies else name for name in node.input]
    for index in reversed(range(len(graph.initializer))):
        weight = graph.initializer[index]
        if weight.name in copies:
            del graph.initializer[index]
        elif weight.data_type == TensorProto.FLOAT16:
            weight.CopyFrom(_converted(weight, np.float32, weight.name))


def _converted(weight: onnx.TensorProto, dtype: type[np.floating], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(weight).astype(dtype), name)
