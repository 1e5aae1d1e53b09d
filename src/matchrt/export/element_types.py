"""In which element types a graph computes, part by part: whether an fp16 graph is fp16 where it should be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import onnx

from matchrt._util.module_path import part_of

UNKNOWN = "unknown"


@dataclass(frozen=True)
class PartTypes:
    """The types in one part of the network.

    nodes: the number of nodes by the type of their first output.
    weights: the bytes of weights by their type.
    """

    nodes: Counter[str] = field(default_factory=Counter)
    weights: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ElementTypes:
    """The types in a whole graph.

    operators: the number of nodes by operator and by type.
    parts: the types by part; a part is the first two steps of a module path. Parts are in the order of the graph.
    """

    operators: dict[str, Counter[str]]
    parts: dict[str, PartTypes]


def element_types(model: onnx.ModelProto) -> ElementTypes:
    """Counts the types. Types that the file does not state are inferred, and are `unknown` where inference fails."""
    types = _value_types(model)
    operators: dict[str, Counter[str]] = {}
    parts: dict[str, PartTypes] = {}
    for node in model.graph.node:
        found = next((types.get(name, UNKNOWN) for name in node.output if name), UNKNOWN)
        operators.setdefault(node.op_type, Counter())[found] += 1
        parts.setdefault(part_of(node.name), PartTypes()).nodes[found] += 1
    for weight in model.graph.initializer:
        size = _bytes(weight)
        parts.setdefault(part_of(weight.name), PartTypes()).weights[_name(weight.data_type)] += size
    return ElementTypes(operators, parts)


def _value_types(model: onnx.ModelProto) -> dict[str, str]:
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:
        # Inference raises types of its own, on graphs above 2 GB and on operators that it does not know.
        graph = model.graph
    known = {value.name: _name(value.type.tensor_type.elem_type) for value in (*graph.value_info, *graph.output)}
    return {name: found for name, found in known.items() if found != "undefined"}


def _name(data_type: int) -> str:
    name = str(onnx.TensorProto.DataType.Name(data_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _bytes(weight: onnx.TensorProto) -> int:
    """The size of a weight, computed from its shape: its values may be in another file, which is not read."""
    count = 1
    for side in weight.dims:
        count *= side
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize)
