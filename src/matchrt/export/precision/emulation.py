"""What an fp16 graph computes on hardware that computes in fp16, on a runtime that does not.

ONNX Runtime's CPU provider has no fp16 kernels for most operators: it runs them in fp32 and removes the casts between
them, so that nothing is rounded and nothing overflows. An fp16 graph run there says nothing about fp16. Casts between
fp32 operators it leaves alone, which this uses.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from matchrt.export.precision.graph_types import element_types
from matchrt.export.precision.to_fp32 import set_source_type
from matchrt.families.rules import MOVEMENT


def emulate(lowered: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in fp32, with every fp16 result rounded to fp16 by a pair of Casts; overflow gives infinity.

    Sums inside one operator (MatMul, Conv, LayerNormalization) stay fp32, as in kernels that accumulate in fp32.
    A kernel that fuses several operators may round less often than this.
    """
    halves = {name for name, kind in element_types(lowered).items() if kind == TensorProto.FLOAT16}
    model = onnx.ModelProto()
    model.CopyFrom(lowered)
    del model.graph.value_info[:]
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT16:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name))
    nodes: list[onnx.NodeProto] = []
    for original in lowered.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        nodes.append(node)
        set_source_type(node, TensorProto.FLOAT16, TensorProto.FLOAT)
        if node.op_type not in MOVEMENT:
            for position, name in enumerate(node.output):
                if name in halves:
                    node.output[position] = f"{name}/exact"
                    nodes += _rounded(f"{name}/exact", name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _rounded(source: str, result: str) -> list[onnx.NodeProto]:
    half = f"{result}/half"
    return [
        onnx.helper.make_node("Cast", [source], [half], f"{result}/round", to=TensorProto.FLOAT16),
        onnx.helper.make_node("Cast", [half], [result], f"{result}/widen", to=TensorProto.FLOAT),
    ]
