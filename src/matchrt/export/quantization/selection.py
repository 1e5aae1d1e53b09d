"""Selects the products of a graph that the rules of its family quantize."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx

from matchrt.errors import MatchRTError
from matchrt.families.registry import model_specs, require_rules
from matchrt.families.rules import Kind, QuantRules, fits

# The operators with an 8-bit form. All other operators stay in floating point.
PRODUCTS = ("Conv", "MatMul", "Gemm")


def quant_rules(family: str, model: str = "") -> QuantRules:
    """The model's own rules, or those of its family. Error: `precision-family`; nothing is quantized without rules.

    model: name of the model; empty for the family's rules.
    """
    spec = model_specs().get(model)
    if spec is not None and spec.family.name == family and spec.int8 is not None:
        return spec.int8
    return require_rules(family, "int8", lambda found: found.int8)


@dataclass(frozen=True)
class Selection:
    """Which products of a graph are quantized.

    products: the nodes to quantize, by name, with the name of the rule that says so.
    claimed: the number of products by rule, quantized or not.
    kept: the number of products that a `--keep-fp32` pattern keeps in floating point.
    computed: the number of products of two activations, which have no weight.
    """

    products: dict[str, str]
    claimed: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    computed: int = 0


def select(
    model: onnx.ModelProto, rules: QuantRules, kind: Kind, keep: Sequence[str] = (), only: Sequence[str] = ()
) -> Selection:
    """The products to quantize.

    kind: the type of the activations.
    keep: patterns of modules that stay in floating point.
    only: quantize these nodes and no others; empty for no limit.
    Errors: `precision-unruled`, `keep-unused` (a pattern that matches no quantized layer).
    """
    weights = {i.name for i in model.graph.initializer}
    products: dict[str, str] = {}
    claimed: Counter[str] = Counter()
    used: set[str] = set()
    computed = kept = 0
    for node in (n for n in model.graph.node if n.op_type in PRODUCTS):
        rule = rules.rule_for(node)
        claimed[rule.name] += 1
        if not rule.quantized:
            continue
        holding = {pattern for pattern in keep if holds(pattern, node.name)}
        used |= holding
        if not rule.quantizes(kind):
            continue
        if node.input[1] not in weights:
            computed += 1
        elif holding:
            kept += 1
        elif not only or node.name in only:
            products[node.name] = rule.name
    if unused := [pattern for pattern in keep if pattern not in used]:
        raise MatchRTError(
            "keep-unused",
            f"--keep-fp32 '{unused[0]}' holds no quantised layer.",
            "Patterns are of module paths, as `backbone.layer1.**` or `loftr_fine.**`; `matchrt verify --per-block` "
            "lists them.",
        )
    return Selection(products, claimed, kept, computed)


def holds(pattern: str, name: str) -> bool:
    """Whether a pattern of `--keep-fp32` means the node: its whole name, its module, or a module above it."""
    module = name.rpartition("/")[0]
    return fits(pattern, name) or fits(pattern, module) or fits(f"{pattern}.**", module)
