"""The place of a row's largest value as two reductions, for compilers that fuse reductions with what they read.

TensorRT runs an ArgMax as a kernel of its own, so that a kernel before it has to write all the values. The dual softmax
of 4800 x 4800 cells is such a case: it wrote 184 MB only to find the largest value of each row. As a maximum, a
comparison and a minimum, the compiler makes one kernel of the arithmetic, the largest value and its place, and nothing
is written but the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from matchrt.export.graph import GraphEditor
from matchrt.export.passes.base import PassResult, run_passes, unmet_requirement
from matchrt.export.passes.conditions import require_flat
from matchrt.export.precision.graph_types import inferred_types, opset
from matchrt.manifest import PassRecord

# What compilers fuse with a reduction. The result of a product is in memory anyway, and its ArgMax reads it once.
_FUSED = ("Sub", "Add", "Mul", "Div", "Cast", "Exp")
# Shorter rows are not worth it. float32 holds every place up to the largest exactly.
_SHORTEST, _LONGEST = 1024, 1 << 24
# The first opset whose reductions take their axes as an input.
_OPSET = 18

Types = Mapping[str, onnx.TypeProto.Tensor]


@dataclass(frozen=True)
class FuseArgMax:
    """Writes each ArgMax over the last axis of computed values as reductions; of equal values, the first one is found.

    A row that holds NaN, where ArgMax finds the NaN or not, gives its last place.

    name: the name of the pass in the manifest.
    """

    name: str = "fuse-argmax"

    def requires(self, model: onnx.ModelProto) -> None:
        """One flat graph, and an opset whose reductions take their axes as an input. Error: `pass-requirement`."""
        require_flat(self.name, model)
        if opset(model) < _OPSET:
            raise unmet_requirement(self.name, f"opset {opset(model)} is older than {_OPSET}")

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Rewrites; rows of unknown length stay as they are."""
        lengths, editor = _lengths(model), GraphEditor(model.graph)
        for node in editor.rewrite():
            if node.output and node.output[0] in lengths:
                _rewrite(editor, node, lengths[node.output[0]])
        editor.finish()
        count = len(lengths)
        return PassResult(model, count, f"{count} places of largest values are found by two reductions each")

    def ensures(self, model: onnx.ModelProto) -> None:
        """Promises nothing beyond a valid graph."""


def fuse_argmax(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[PassRecord, ...]]:
    """The graph after the pass, and its record; the given graph and nothing where there is nothing to rewrite.

    A graph that ONNX's checker refuses is then left to the backend, which says what it does not take. Errors: those of
    `run_passes`.
    """
    return run_passes(model, [FuseArgMax()]) if _lengths(model) else (model, ())


def _lengths(model: onnx.ModelProto) -> dict[str, int]:
    """The length of the rows of each ArgMax to rewrite, by what it computes: a node may lack a name."""
    editor = GraphEditor(model.graph)
    producers = editor.producers()
    candidates = [node for node in editor.nodes if _reads_arithmetic(node, producers)]
    types = _types(model) if candidates else {}
    lengths = {node.output[0]: _row_length(node, types) for node in candidates}
    return {name: length for name, length in lengths.items() if length is not None}


def _types(model: onnx.ModelProto) -> Types:
    """Types and shapes; nothing for a graph with an operator that ONNX does not know, which the backend will name."""
    try:
        return inferred_types(model)
    except onnx.shape_inference.InferenceError:
        return {}


def _reads_arithmetic(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]) -> bool:
    if node.op_type != "ArgMax" or _attribute(node, "select_last_index", 0):
        return False
    source = producers.get(node.input[0])
    return source is not None and source.op_type in _FUSED


def _row_length(node: onnx.NodeProto, types: Types) -> int | None:
    """The length of the rows of an ArgMax over the last axis, if it is known and worth the change."""
    kind = types.get(node.input[0])
    if kind is None or kind.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        return None
    dims = kind.shape.dim
    if not dims:  # not even their number is known
        return None
    if _attribute(node, "axis", 0) not in (-1, len(dims) - 1) or not dims[-1].HasField("dim_value"):
        return None
    length = int(dims[-1].dim_value)
    return length if _SHORTEST <= length <= _LONGEST else None


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _rewrite(editor: GraphEditor, node: onnx.NodeProto, length: int) -> None:
    """Puts the reductions before the node, and makes the node a Cast of the place that they find."""
    source, path = node.input[0], (node.name or node.output[0]).replace("/", ".")
    keep = _attribute(node, "keepdims", 1)
    axes = editor.constant("fused-argmax/last-axis", np.array([-1], np.int64))
    places = editor.constant(f"fused-argmax/places-{length}", np.arange(length, dtype=np.float32))
    last = editor.constant(f"fused-argmax/last-{length}", np.float32(length - 1))

    def add(op_type: str, inputs: Sequence[str], what: str, **attributes: Any) -> str:
        editor.before(helper.make_node(op_type, list(inputs), [f"{path}/{what}"], f"{path}/{what}", **attributes))
        return f"{path}/{what}"

    largest = add("ReduceMax", [source, axes], "largest", keepdims=1)
    found = add("Where", [add("Equal", [source, largest], "equal"), places, last], "places")
    first = add("ReduceMin", [found, axes], "first", keepdims=keep)
    node.op_type = "Cast"
    del node.input[:], node.attribute[:]
    node.input.append(first)
    node.attribute.append(helper.make_attribute("to", TensorProto.INT64))
