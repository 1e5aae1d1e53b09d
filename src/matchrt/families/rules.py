"""Which node of a family's graphs computes in which precision, which product is quantised, and why.

Rules are ordered and declarative; `matchrt.export` applies them to graphs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from matchrt.errors import InternalError

if TYPE_CHECKING:
    import onnx

NodeType = Literal["fp16", "fp32"]
# For a node: the names of the nodes that compute its inputs, seen through operators that only move data.
Operands = Callable[["onnx.NodeProto"], Iterable[str]]

# Operators that copy values. Unless a rule claims them they keep the type of what they move: no cast, no rounding.
MOVEMENT = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
        "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
# What a Q/DQ pair does is decided by whoever wrote it; in between it moves values too, and takes their type.
PASSING = MOVEMENT | {"QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True)
class Nodes:
    """A set of nodes.

    modules: patterns of the part of a node's name before its last slash; `*` stands for a dotted part or a piece of
    one, `**` for anything.
    ops: operator types; empty for all that compute, not those that only move data.
    operands: when given, one of the node's inputs must be computed by a node whose whole name fits one of these.
    """

    modules: tuple[str, ...]
    ops: tuple[str, ...] = ()
    operands: tuple[str, ...] = ()

    def holds(self, node: onnx.NodeProto, operands: Operands) -> bool:
        """Whether the node is one of them."""
        if node.op_type not in self.ops if self.ops else node.op_type in PASSING:
            return False
        if not any(fits(pattern, node.name.rpartition("/")[0]) for pattern in self.modules):
            return False
        return not self.operands or any(fits(p, name) for p in self.operands for name in operands(node))


@dataclass(frozen=True)
class Rule:
    """These nodes compute in this precision; the reason is for the manifest and docs/precision.md."""

    name: str
    precision: NodeType
    reason: str
    nodes: tuple[Nodes, ...]


@dataclass(frozen=True)
class PrecisionRules:
    """The rules of one family; the first that claims a node decides. Every node that computes must be claimed."""

    family: str
    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError(f"two rules of {self.family} share a name")

    def rule_for(self, node: onnx.NodeProto, operands: Operands) -> Rule | None:
        """The rule that decides; None for an operator that only moves data and follows its input."""
        for rule in self.rules:
            if any(nodes.holds(node, operands) for nodes in rule.nodes):
                return rule
        if node.op_type in PASSING:
            return None
        raise InternalError(
            "precision-unruled",
            f"No precision rule of the family {self.family} says whether {node.name} ({node.op_type}) may be fp16.",
            "Build with fp32, and report this as a bug with the model and its options.",
        )


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


def fits(pattern: str, name: str) -> bool:
    """Whether a module path or node name fits a pattern of `Nodes`."""
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = (re.escape(part).replace(r"\*", r"[^./]*") for part in pattern.split("**"))
    return re.compile(".*".join(parts))
