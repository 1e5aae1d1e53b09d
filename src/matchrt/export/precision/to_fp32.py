"""Back to a plain fp32 graph, so that rules always see the same form.

It undoes what the pass `half-storage` and an earlier conversion to fp16 wrote. An fp16 graph that goes back to fp32 and
to fp16 again has the same bytes as before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from matchrt.export.graph import GraphEditor
from matchrt.export.passes.base import unmet_requirement
from matchrt.export.passes.half_storage import STORED
from matchrt.export.precision.graph_types import element_types

# Ends of the names of the Casts and weight copies that `to_fp16` adds; nothing else in a graph is named like this.
TO_FP16, TO_FP32, COPY = "/to_fp16", "/to_fp32", "/fp16"


def to_fp32(model: onnx.ModelProto) -> None:
    """Changes the model in place. Error: `pass-requirement` for float16 arithmetic of the network itself."""
    _require_no_rounding(model)
    del model.graph.value_info[:]  # types that were inferred before are not those after
    editor = GraphEditor(model.graph)
    _load_stored_weights(editor)
    _remove_casts(editor)
    _restore_weights(editor)
    for node in editor.nodes:
        set_source_type(node, TensorProto.FLOAT16, TensorProto.FLOAT)
    editor.finish()


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


def _load_stored_weights(editor: GraphEditor) -> None:
    """A float16 weight and its Cast become the float32 weight that they stand for."""
    casts = [node for node in editor.nodes if node.op_type == "Cast" and _is_stored(node.input[0], editor)]
    for cast in casts:
        editor.replace_weight(cast.input[0], _float32(editor.weights[cast.input[0]]), cast.output[0])
    editor.drop(casts)


def _is_stored(name: str, editor: GraphEditor) -> bool:
    return name.endswith(STORED) and name in editor.weights


def _remove_casts(editor: GraphEditor) -> None:
    """Removes the Casts of an earlier fp16 graph. A Cast that gives an output of the graph leaves it its name."""
    added = [node for node in editor.nodes if node.op_type == "Cast" and node.name.endswith((TO_FP16, TO_FP32))]
    names: dict[str, str] = {}
    for cast in added:
        source, result = cast.input[0], cast.output[0]
        names[source if result in editor.outputs else result] = result if result in editor.outputs else source
    editor.drop(added)
    editor.rename(names)


def _restore_weights(editor: GraphEditor) -> None:
    """Nodes read the float32 weight again where it stands beside its float16 copy; other weights become float32."""
    copies = {name for name in editor.weights if name.endswith(COPY) and name.removesuffix(COPY) in editor.weights}
    editor.rewire({name: name.removesuffix(COPY) for name in copies})
    editor.drop_weights(copies)
    for name, weight in tuple(editor.weights.items()):
        if weight.data_type == TensorProto.FLOAT16:
            editor.replace_weight(name, _float32(weight))


def _float32(weight: onnx.TensorProto) -> npt.NDArray[np.float32]:
    return numpy_helper.to_array(weight).astype(np.float32)
