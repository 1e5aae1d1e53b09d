"""Which products of a family are quantised, and why the rest stays in floating point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx

from matchrt.errors import InternalError, MatchRTError
from matchrt.export.precision.rules import Nodes, fits

# Operators that have an 8-bit form: what all the rest is, stays in floating point.
PRODUCTS = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class QuantRule:
    """These products are quantised, or not; the reason is for the manifest and docs/quantization.md.

    unsigned_only: quantised only where activations are unsigned, which have one bit more behind a Relu.
    """

    name: str
    quantized: bool
    reason: str
    nodes: tuple[Nodes, ...]
    unsigned_only: bool = False

    def quantizes(self, unsigned: bool) -> bool:
        """Whether its products are quantised, where activations are unsigned or not."""
        return self.quantized and (unsigned or not self.unsigned_only)


@dataclass(frozen=True)
class QuantRules:
    """The rules of one family; the first that claims a product decides. Every product must be claimed.

    float_parts: what is no product, and why it stays in floating point: name and reason.
    """

    family: str
    rules: tuple[QuantRule, ...]
    float_parts: tuple[tuple[str, str], ...] = ()

    def rule_for(self, node: onnx.NodeProto) -> QuantRule:
        """The rule that decides. Error: `precision-unruled`."""
        for rule in self.rules:
            if any(nodes.holds(node, lambda _: ()) for nodes in rule.nodes):
                return rule
        raise InternalError(
            "precision-unruled",
            f"No rule of the family {self.family} says whether {node.name} ({node.op_type}) may be quantised.",
            "Build with fp32 or fp16, and report this as a bug with the model and its options.",
        )


@dataclass(frozen=True)
class Selection:
    """products: the nodes to quantise, by name, with the rule that says so; claimed: products by rule.

    kept: products that a `--keep-fp32` pattern holds back; computed: products of two activations.
    """

    products: dict[str, str]
    claimed: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    computed: int = 0


def select(
    model: onnx.ModelProto, rules: QuantRules, unsigned: bool, keep: Sequence[str] = (), only: Sequence[str] = ()
) -> Selection:
    """The products to quantise. unsigned: whether activations are. keep: patterns of what stays as it is.

    only: of the rest, just these nodes. Errors: `precision-unruled`, `keep-unused` (a pattern that holds nothing).
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
        if not rule.quantizes(unsigned):
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
