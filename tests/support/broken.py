"""Variants that every gate has to stop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from matchrt.export.precision.families import model_to_fp16
from matchrt.export.precision.graph_types import element_types
from matchrt.families.loftr import LOFTR_FP16
from matchrt.families.rules import MOVEMENT, PrecisionRules


def scaled_and_back(model: onnx.ModelProto, module: str, factor: float) -> onnx.ModelProto:
    """An fp16 graph with one float16 result times `factor` and divided by it again: nothing in fp32, ruin in fp16.

    module: the result's; the first one of the module is taken. factor: a power of two.
    """
    types = element_types(model)
    spoilt = onnx.ModelProto()
    spoilt.CopyFrom(model)
    nodes = list(spoilt.graph.node)
    at = next(i for i, node in enumerate(nodes) if node.name.startswith(f"{module}/") and node.op_type not in MOVEMENT
              and types.get(node.output[0]) == TensorProto.FLOAT16)  # fmt: skip
    name = nodes[at].output[0]
    nodes[at].output[0] = f"{name}/before"
    # Two steps, because 2^30 is no float16.
    steps = [2.0**15, 2.0**15] if factor > 1 else [2.0**-15, 2.0**-15]
    added, source = [], f"{name}/before"
    for index, step in enumerate([*steps, *(1 / step for step in steps)]):
        spoilt.graph.initializer.append(numpy_helper.from_array(np.float16(step).reshape(()), f"{name}/factor{index}"))
        result = name if index == 3 else f"{name}/step{index}"
        added.append(
            onnx.helper.make_node("Mul", [source, f"{name}/factor{index}"], [result], f"{module}/Spoilt_{index}")
        )
        source = result
    del spoilt.graph.node[:]
    spoilt.graph.node.extend([*nodes[: at + 1], *added, *nodes[at + 1 :]])
    return spoilt


def with_saturated_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """LoFTR with similarity and softmax in fp16, at a temperature (1e-5) that takes scores past 65504."""
    flipped = [replace(r, precision="fp16") if r.name == "coarse-matching" else r for r in LOFTR_FP16.rules]
    assert flipped != list(LOFTR_FP16.rules)
    half, _ = model_to_fp16(model, "loftr", PrecisionRules("loftr", tuple(flipped)))
    named = {node.name: node for node in half.graph.node}
    scale = next(i for i in half.graph.initializer if i.name == named["coarse_matching/Mul_0"].input[1])
    values = numpy_helper.to_array(scale)
    assert values.dtype == np.float16 and values.shape == ()
    scale.CopyFrom(numpy_helper.from_array(np.float16(values * 1e4), scale.name))
    return half
