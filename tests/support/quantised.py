"""Any family's graph quantised in a style, and run."""

from __future__ import annotations

import numpy as np
import onnx

from matchrt.export.parity import Arrays, onnx_runner
from matchrt.export.quantizing.quantize import plan_quantization, quantize
from matchrt.export.quantizing.ranges import measure_ranges
from matchrt.export.quantizing.styles import QuantStyle


def check_quantised(model: onnx.ModelProto, family: str, inputs: list[Arrays], style: QuantStyle) -> onnx.ModelProto:
    """Each rule that quantises finds its layers, and ONNX Runtime runs what comes out."""
    plan = plan_quantization(model, family, style)
    chosen = set(plan.selection.products.values())
    assert chosen == {rule.name for rule in plan.rules.rules if rule.quantized}
    ranges = measure_ranges(plan.model, plan.placement.tensors, inputs, "max", lambda: None)
    quantised, records = quantize(plan, ranges)
    assert {f"int8:{rule.name}" for rule in plan.rules.rules} <= {record.name for record in records}
    outputs = onnx_runner(quantised)(inputs[0])
    assert outputs["num_matches"][0] > 0 and np.isfinite(outputs["keypoints1"]).all()
    return quantised
