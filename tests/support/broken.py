"""A variant that every gate has to stop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from matchrt.export.precision.families import RULES, model_to_fp16
from matchrt.export.precision.rules import PrecisionRules


def with_saturated_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """LoFTR with similarity and softmax in fp16, at a temperature (1e-5) that takes scores past 65504."""
    flipped = [replace(r, precision="fp16") if r.name == "coarse-matching" else r for r in RULES["loftr"].rules]
    assert flipped != list(RULES["loftr"].rules)
    half, _ = model_to_fp16(model, "loftr", PrecisionRules("loftr", tuple(flipped)))
    named = {node.name: node for node in half.graph.node}
    scale = next(i for i in half.graph.initializer if i.name == named["coarse_matching/Mul_0"].input[1])
    values = numpy_helper.to_array(scale)
    assert values.dtype == np.float16 and values.shape == ()
    scale.CopyFrom(numpy_helper.from_array(np.float16(values * 1e4), scale.name))
    return half
