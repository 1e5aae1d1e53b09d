"""Any family's graph quantised in a style, and run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from matchrt.building.parity import Arrays, onnx_runner
from matchrt.export.quantization.quantize import plan_quantization, quantize
from matchrt.export.quantization.ranges import measure_ranges
from matchrt.export.quantization.selection import PRODUCTS
from matchrt.export.quantization.styles import QuantStyle
from matchrt.families.rules import Nodes, QuantRules

# Rules and patterns that wait for products which the small test network has not: never quantised ones only.
SPARE = {"roma": ("rest", "decoder.gps.*.**")}


def assert_claimed(rules: QuantRules, models: Sequence[onnx.ModelProto]) -> None:
    """Every rule decides on a product of one of these graphs, and each of its patterns fits one."""
    products = [node for model in models for node in model.graph.node if node.op_type in PRODUCTS]
    claimed = {rules.rule_for(node).name for node in products}
    spare = SPARE.get(rules.family, ())
    assert not [rule.name for rule in rules.rules if rule.name not in (*claimed, *(() if rule.quantized else spare))]
    every = ((rule.name, Nodes((p,), nodes.ops)) for rule in rules.rules for nodes in rule.nodes for p in nodes.modules)
    for name, nodes in every:
        if name in spare or nodes.modules[0] in spare:
            continue
        assert any(nodes.holds(node, lambda _: ()) for node in products), f"{name}: {nodes} fits nothing"


def check_quantised(model: onnx.ModelProto, family: str, inputs: list[Arrays], style: QuantStyle) -> onnx.ModelProto:
    """Each rule finds something, those that quantise find layers with weights, and ONNX Runtime runs what comes out."""
    plan = plan_quantization(model, family, style)
    chosen = set(plan.selection.products.values())
    assert chosen == {rule.name for rule in plan.rules.rules if rule.quantizes(style.activations)}
    assert_claimed(plan.rules, [model])
    ranges = measure_ranges(plan.model, plan.placement.tensors, inputs, "max", lambda: None)
    quantised, records = quantize(plan, ranges)
    assert {f"int8:{rule.name}" for rule in plan.rules.rules} <= {record.name for record in records}
    outputs = onnx_runner(quantised)(inputs[0])
    assert outputs["num_matches"][0] > 0 and np.isfinite(outputs["keypoints1"]).all()
    return quantised
