"""Makes a graph that computes on a CPU what an fp16 graph computes on hardware with fp16 kernels.

ONNX Runtime's CPU provider has no fp16 kernels for most operators. It runs these operators in fp32 and removes the
Casts between them, so that nothing is rounded and nothing overflows: an fp16 graph that runs there says nothing about
fp16. It does not remove Casts between fp32 operators, so the graph made here rounds with such Casts.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from matchrt.export.graph import GraphEditor
from matchrt.export.precision.graph_types import element_types
from matchrt.export.precision.rules import MOVEMENT
from matchrt.export.precision.to_fp32 import set_source_type


def emulate(model: onnx.ModelProto) -> onnx.ModelProto:
    """The fp16 graph in fp32, with every fp16 result rounded to fp16 by a pair of Casts; overflow gives infinity.

    The given model is not changed. Sums inside one operator (MatMul, Conv, LayerNormalization) stay fp32, as in kernels
    that accumulate in fp32. A kernel that fuses several operators may round less often than this.
    """
    halves = {name for name, kind in element_types(model).items() if kind == TensorProto.FLOAT16}
    emulated = onnx.ModelProto()
    emulated.CopyFrom(model)
    del emulated.graph.value_info[:]
    editor = GraphEditor(emulated.graph)
    for name, weight in tuple(editor.weights.items()):
        if weight.data_type == TensorProto.FLOAT16:
            editor.replace_weight(name, numpy_helper.to_array(weight).astype(np.float32))
    for node in editor.rewrite():
        set_source_type(node, TensorProto.FLOAT16, TensorProto.FLOAT)
        if node.op_type not in MOVEMENT:
            for position, name in enumerate(node.output):
                if name in halves:
                    node.output[position] = f"{name}/exact"
                    editor.after(*_rounded(f"{name}/exact", name))
    editor.finish()
    return emulated


def _rounded(source: str, result: str) -> list[onnx.NodeProto]:
    half = f"{result}/half"
    return [
        onnx.helper.make_node("Cast", [source], [half], f"{result}/round", to=TensorProto.FLOAT16),
        onnx.helper.make_node("Cast", [half], [result], f"{result}/widen", to=TensorProto.FLOAT),
    ]
