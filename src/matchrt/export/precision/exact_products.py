"""fp32 products for kernels that multiply in TF32: every product becomes one of four times the depth.

TF32 kernels round both factors to 11 significant bits and add up in fp32. A factor x is the sum of its rounding to
bfloat16, h of 8 bits, and the rest x - h, which fp32 holds exactly and of which TF32 keeps 11 bits more. So

    x y = h h' + h (y - h') + (x - h) h' + (x - h)(y - h')

is right to about 2^-20 of each term, and all four are one product: the parts of x side by side along the depth, the
parts of y below one another. The graph splits x with Casts. Dekker's and Veltkamp's subtractions would do it too, but
compilers that simplify arithmetic replace them by zero. One deep product is one kernel; four products with a sum would
be several. An infinite factor gives NaN, where fp32 may give infinity.

Source: Henry, Tang, Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision
Computations", 2019 (arXiv:1904.06376).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from matchrt.export.graph import GraphEditor
from matchrt.export.passes.base import PassResult, broken_promise, run_passes, unmet_requirement
from matchrt.export.passes.batch_norm import FoldBatchNorm
from matchrt.export.passes.conditions import require_flat, require_weights_inside
from matchrt.export.precision.graph_types import inferred_types, opset
from matchrt.export.precision.to_fp32 import to_fp32
from matchrt.families.rules import FRAMES_PREFIX
from matchrt.manifest import PassRecord

Values = npt.NDArray[np.float32]
# Split weights take four times their bytes, and an ONNX file holds 2 GB at most. Where split weights would take more
# bytes than this, the products with weights are not split.
MAX_WEIGHT_BYTES = 400 * 2**20
# The first opset whose Cast knows bfloat16.
BFLOAT16_OPSET = 13


def write_exact_products(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[PassRecord, ...]]:
    """The fp32 graph with its products split; the given model is not changed. Errors: those of `run_passes`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    to_fp32(copy)
    # Normalisations are folded before the split: a part that is scaled later would not fit into 8 bits any more.
    return run_passes(copy, [FoldBatchNorm(), ExactProducts()])


@dataclass(frozen=True)
class ExactProducts:
    """Splits the factors of every fp32 MatMul, and of every Conv without groups whose kernel is a constant.

    max_weight_bytes: if the split weights together have more bytes, only products of two computed tensors are split.
    name: the name of the pass in the manifest.
    """

    max_weight_bytes: int = MAX_WEIGHT_BYTES
    name: str = "exact-products"

    def requires(self, model: onnx.ModelProto) -> None:
        """One flat graph, weights inside the file, and an opset that has Casts to bfloat16.

        Error: `pass-requirement`.
        """
        require_flat(self.name, model)
        require_weights_inside(self.name, model)
        if opset(model) < BFLOAT16_OPSET:
            raise unmet_requirement(self.name, f"opset {opset(model)} has no bfloat16; {BFLOAT16_OPSET} has")

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Splits; products whose factors have fewer than two dimensions stay as they are."""
        ranks = _fp32_ranks(model)
        weights = {w.name: w for w in model.graph.initializer if w.data_type == TensorProto.FLOAT}
        heavy = sum(4 * int(np.prod(w.dims)) for w in weights.values()) > self.max_weight_bytes
        editor = GraphEditor(model.graph)
        factors = _DeepFactors(editor, weights)
        split = left = 0
        for node in editor.rewrite():
            if _fits(node, ranks, weights, heavy):
                factors.deepen(node)
                split += 1
            else:
                left += node.op_type in ("MatMul", "Conv") and not node.name.startswith(FRAMES_PREFIX)
        editor.finish(prune=True)
        return PassResult(model, split, _summary(split, left, heavy))

    def ensures(self, model: onnx.ModelProto) -> None:
        """Every tensor that is read is computed by a node, stored as a weight, or an input.

        Error: `pass-promise`.
        """
        made = {name for node in model.graph.node for name in node.output} | {"", *(i.name for i in model.graph.input)}
        made |= {weight.name for weight in model.graph.initializer}
        if missing := [name for node in model.graph.node for name in node.input if name not in made]:
            raise broken_promise(self.name, f"{missing[0]} is read, and no node computes it")


def _summary(split: int, left: int, heavy: bool) -> str:
    why = " (the weights are too large to be held four times)" if heavy else ""
    stay = f"; {left} stay as they are{why}" if left else ""
    return f"{split} products of four times the depth, right to fp32 where kernels multiply in TF32{stay}"


class _DeepFactors:
    """The deep form of every factor that was asked for: each tensor is split once for each side."""

    def __init__(self, editor: GraphEditor, weights: Mapping[str, onnx.TensorProto]) -> None:
        self._editor = editor
        self._weights = weights
        self._parts: dict[str, tuple[str, str]] = {}
        self._deep: dict[tuple[str, int, bool], str] = {}

    def deepen(self, node: onnx.NodeProto) -> None:
        """Lets a product read the deep form of both factors."""
        # MatMul adds up over the last side of the first factor and the last but one of the second, Conv over channels.
        first, second = (1, 1) if node.op_type == "Conv" else (-1, -2)
        node.input[0] = self._factor(node.input[0], first, second=False)
        node.input[1] = self._factor(node.input[1], second, second=True)

    def _factor(self, name: str, axis: int, second: bool) -> str:
        """The parts along the depth, so that the smallest products are added first."""
        key = (name, axis, second)
        if key not in self._deep:
            order = (0, 0, 1, 1) if second else (0, 1, 0, 1)
            deep = f"{name}/deep{axis}{'second' if second else 'first'}"
            if name in self._weights:
                parts = _parts(numpy_helper.to_array(self._weights[name]))
                self._editor.constant(deep, np.concatenate([parts[index] for index in order], axis=axis))
            else:
                named = self._named_parts(name)
                self._add("Concat", [named[index] for index in order], deep, axis=axis)
            self._deep[key] = deep
        return self._deep[key]

    def _named_parts(self, name: str) -> tuple[str, str]:
        if name not in self._parts:
            high, rest = f"{name}/high", f"{name}/rest"
            self._add("Cast", [name], f"{name}/bf16", to=TensorProto.BFLOAT16)
            self._add("Cast", [f"{name}/bf16"], high, to=TensorProto.FLOAT)
            self._add("Sub", [name, high], rest)
            self._parts[name] = (rest, high)
        return self._parts[name]

    def _add(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._editor.before(helper.make_node(op_type, inputs, [output], f"{output}/{op_type}", **attributes))


def _parts(values: npt.NDArray[np.float32]) -> tuple[Values, Values]:
    """Rest and high part of a constant, as Cast to bfloat16 rounds: to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    high = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).astype(np.uint32).view(np.float32)
    return values - high, high


def _fits(node: onnx.NodeProto, ranks: dict[str, int], weights: dict[str, onnx.TensorProto], heavy: bool) -> bool:
    """Whether it is a product whose factors are both fp32 of two dimensions or more, and which can be deepened."""
    if node.op_type not in ("MatMul", "Conv") or node.name.startswith(FRAMES_PREFIX):
        return False  # frames have a split of their own (`frame_products`)
    first, second = node.input[:2]
    if min(ranks.get(first, 0), ranks.get(second, 0)) < 2 or (heavy and (first in weights or second in weights)):
        return False
    if node.op_type == "MatMul":
        return True
    return second in weights and next((a.i for a in node.attribute if a.name == "group"), 1) == 1


def _fp32_ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Number of dimensions of every fp32 tensor by name."""
    kinds = inferred_types(model)
    ranks = {name: len(kind.shape.dim) for name, kind in kinds.items() if kind.elem_type == TensorProto.FLOAT}
    return ranks | {w.name: len(w.dims) for w in model.graph.initializer if w.data_type == TensorProto.FLOAT}
