"""Scales of Q/DQ pairs are float32, also where the rest of the graph is float16.

TensorRT for RTX takes a product only if the scales of both its factors have one type. With float16 scales it builds,
but on an H100 (1.6.1) the fused product overflowed in its last step, without a word: loftr-lite found 0 matches. With
float32 scales it kept 98.8 % of them. So a quantised product reads float32, computes in float32 as the graph has it
(the kernel multiplies 8-bit numbers), and the result is cast to float16.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from matchrt.errors import InternalError
from matchrt.export.graph import GraphEditor

_PAIRS = ("QuantizeLinear", "DequantizeLinear")


def eight_bit_nodes(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the Q/DQ nodes, of the products between them, and of the Relu that alone reads such a product's result.

    A runtime computes each of these groups in one kernel, so no Cast may separate its nodes. Raises nothing.
    """
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    found: set[str] = set()
    results: set[str] = set()
    uses = GraphEditor(model.graph).uses()
    for node in model.graph.node:  # in topological order
        if node.op_type in _PAIRS:
            found.add(node.name)
        elif len(node.input) > 1 and dequantised.issuperset(node.input[:2]):
            found.add(node.name)
            results.add(node.output[0])
        elif node.op_type == "Relu" and node.input[0] in results and uses[node.input[0]] == 1:
            found.add(node.name)
    return frozenset(found)


def require_float_scales(model: onnx.ModelProto) -> None:
    """Raises `pass-invalid` if a scale of a Q/DQ node is not float32. It names the node."""
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _PAIRS and types.get(node.input[1]) != TensorProto.FLOAT:
            raise InternalError(
                "pass-invalid", f"The scale of {node.name} is not a float32 weight.", "Report this as a bug."
            )
