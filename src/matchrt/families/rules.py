"""Rules that say in which precision each node of a family's graphs computes, which products are quantized, and why.

Rules are ordered and declarative. `matchrt.export` applies them to graphs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

from matchrt.errors import InternalError

if TYPE_CHECKING:
    import onnx

NodeType = Literal["fp16", "fp32"]
# The 8-bit types of activations; int8 and fp8 are symmetric, uint8 has a zero point.
Kind = Literal["int8", "uint8", "fp8"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Gives the names of the nodes that compute a node's inputs. Operators that only move data are skipped.
Operands = Callable[["onnx.NodeProto"], Iterable[str]]

# Operators that copy values. Unless a rule claims them, they keep the type of their input, without cast and rounding.
MOVEMENT = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
        "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
# A Q/DQ pair is placed by quantization, not by these rules. For them it moves values too and takes their type.
PASSING = MOVEMENT | {"QuantizeLinear", "DequantizeLinear"}
# Nodes of these modules are before and behind the network: they resize frames. No family's rules are about them.
FRAMES_PREFIX = "frames."


@dataclass(frozen=True)
class Nodes:
    """A set of nodes.

    modules: patterns of the module path, which is the part of a node's name before its last slash; `*` stands for a
        dotted part or a piece of one, `**` for anything.
    ops: operator types; empty for all operators that compute, not those that only move data.
    operands: patterns of whole node names, one of which must fit a node that computes an input; empty for any input.
    """

    modules: tuple[str, ...]
    ops: tuple[str, ...] = ()
    operands: tuple[str, ...] = ()

    def holds(self, node: onnx.NodeProto, operands: Operands) -> bool:
        """Whether the node is in the set. operands: finds the nodes that compute its inputs."""
        if node.op_type not in self.ops if self.ops else node.op_type in PASSING:
            return False
        if not any(fits(pattern, node.name.rpartition("/")[0]) for pattern in self.modules):
            return False
        return not self.operands or any(fits(p, name) for p in self.operands for name in operands(node))


@dataclass(frozen=True)
class Rule:
    """A rule of precision: these nodes compute in this precision.

    name: the rule's name, unique in its family.
    precision: `fp16` or `fp32`.
    reason: why, for the manifest and docs/precision.md.
    nodes: the nodes that the rule claims, as the union of these sets.
    """

    name: str
    precision: NodeType
    reason: str
    nodes: tuple[Nodes, ...]


# Before the rules of every family.
FRAMES_RULE = Rule(
    "frames",
    "fp32",
    "frames are resized to the integers that the host's resize gives, and coordinates of frames need 12 bits and more",
    (Nodes((f"{FRAMES_PREFIX}**",)),),
)


@dataclass(frozen=True)
class PrecisionRules:
    """The rules of precision of one family. The first rule that claims a node decides; every computing node needs one.

    family: the family's name.
    rules: in the order in which they are tried.
    """

    family: str
    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError(f"two rules of {self.family} share a name")

    def rule_for(self, node: onnx.NodeProto, operands: Operands) -> Rule | None:
        """The rule that decides on a node; None for an operator that only moves data and has the type of its input.

        operands: finds the nodes that compute its inputs. Error: precision-unruled.
        """
        for rule in (FRAMES_RULE, *self.rules):
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
    """A rule of quantization: these products are quantized, or they are not.

    name: the rule's name, unique in its family.
    quantized: whether they are quantized.
    reason: why, for the manifest and docs/quantization.md.
    nodes: the products that the rule claims, as the union of these sets.
    kinds: the types of activations with which they are quantized, because what a type costs differs: uint8 has one bit
        more than int8 after a Relu, and fp8 has three bits behind the point.
    """

    name: str
    quantized: bool
    reason: str
    nodes: tuple[Nodes, ...]
    kinds: tuple[Kind, ...] = KINDS

    def quantizes(self, kind: Kind) -> bool:
        """Whether its products are quantized. kind: the type of the backend's activations."""
        return self.quantized and kind in self.kinds


# Before the rules of every family.
FRAMES_QUANT_RULE = QuantRule(
    "frames",
    False,
    "the weights of a resize have 11 to 22 bits, and its products take less than a hundredth of the network's time",
    (Nodes((f"{FRAMES_PREFIX}**",), ops=("MatMul",)),),
)


@dataclass(frozen=True)
class QuantRules:
    """The rules of quantization of one family. The first rule that claims a product decides; every product needs one.

    family: the family's name.
    rules: in the order in which they are tried.
    float_parts: operators that are not products, and why they stay in floating point: (name, reason).
    compensated: whether channels get one range (`export.quantization.equalising`), and weights of convolutions are
        rounded so that their errors cancel on what they read in calibration (`export.quantization.rounding`); else
        channels stay as they are, and each weight becomes the nearest step.
    """

    family: str
    rules: tuple[QuantRule, ...]
    float_parts: tuple[tuple[str, str], ...] = ()
    compensated: bool = False

    def rule_for(self, node: onnx.NodeProto) -> QuantRule:
        """The rule that decides on a product. Error: precision-unruled."""
        for rule in (FRAMES_QUANT_RULE, *self.rules):
            if any(nodes.holds(node, lambda _: ()) for nodes in rule.nodes):
                return rule
        raise InternalError(
            "precision-unruled",
            f"No rule of the family {self.family} says whether {node.name} ({node.op_type}) may be quantized.",
            "Build with fp32 or fp16, and report this as a bug with the model and its options.",
        )


def fits(pattern: str, name: str) -> bool:
    """Whether a module path or node name fits a pattern of `Nodes`."""
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = (re.escape(part).replace(r"\*", r"[^./]*") for part in pattern.split("**"))
    return re.compile(".*".join(parts))
