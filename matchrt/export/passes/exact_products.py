"""fp32 products that stay fp32 where the builder computes them in TF32.

TensorRT-RTX computes fp32 matrix products and convolutions with TF32 operands (10 mantissa bits), whatever the builder
is told (measured: relative error 2.9e-4 with the flag set and cleared). Here x = h + l with h = x rounded to half
precision, which TF32 represents exactly, and l the rest, so that

    x w = h_x h_w + h_x l_w + l_x h_w + l_x l_w

where every factor loses at most the 11th bit of l, and the last term is below fp32's own rounding. Three products
instead of one. (Markidis et al., "NVIDIA Tensor Core Programmability, Performance & Precision", 2018.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from matchrt.export.passes.base import PassResult, broken_promise

_PRODUCTS = ("MatMul", "Conv", "ConvTranspose")
_MARK = "/exact"
_LIMITS = ("exact:least", "exact:most")
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class ExactProducts:
    """Splits the operands of every fp32 MatMul and Conv in two. Only for fp32 graphs."""

    name: str = "exact-products"

    def requires(self, model: onnx.ModelProto) -> None:
        """Any fp32 graph will do."""
        del model

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Replaces the products; what is constant is split here, the rest in the graph."""
        splitter = _Splitter(_float_weights(model), [_scalar(_LIMITS[0], -_LARGEST), _scalar(_LIMITS[1], _LARGEST)])
        nodes: list[onnx.NodeProto] = []
        changes = 0
        for node in model.graph.node:
            if node.op_type in _PRODUCTS and not node.name.endswith(_MARK):
                nodes += splitter.products(node)
                changes += 1
            else:
                nodes.append(node)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(splitter.initializers)
        _drop_unused(model)
        return PassResult(model, changes, f"computed {changes} products in three, so that TF32 keeps fp32's accuracy")

    def ensures(self, model: onnx.ModelProto) -> None:
        """No product is left as it was."""
        if any(node.op_type in _PRODUCTS and not node.name.endswith(_MARK) for node in model.graph.node):
            raise broken_promise(self.name, "a product was not split")


@dataclass
class _Splitter:
    """Makes the nodes that replace a product; an operand of several products is split once."""

    weights: dict[str, np.ndarray]
    initializers: list[onnx.TensorProto]
    known: dict[str, tuple[str, str]] = field(default_factory=dict)

    def products(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """h h + (h l + l h), the small terms first; a bias goes with the large one."""
        made: list[onnx.NodeProto] = []
        (high0, low0), (high1, low1) = (self._split(name, node.name, made) for name in node.input[:2])
        output, rest = node.output[0], list(node.input[2:])
        terms: tuple[tuple[str, str, list[str], str], ...] = (
            (high0, high1, rest, "hh"),
            (high0, low1, [], "hl"),
            (low0, high1, [], "lh"),
        )
        for first, second, more, tag in terms:
            term = onnx.NodeProto()
            term.CopyFrom(node)
            del term.input[:], term.output[:]
            term.input.extend([first, second, *more])
            term.output.append(f"{output}:{tag}")
            term.name = f"{node.name}:{tag}{_MARK}"
            made.append(term)
        small = f"{output}:small"
        made.append(helper.make_node("Add", [f"{output}:hl", f"{output}:lh"], [small], f"{node.name}:small{_MARK}"))
        made.append(helper.make_node("Add", [f"{output}:hh", small], [output], f"{node.name}:sum{_MARK}"))
        return made

    def _split(self, name: str, where: str, made: list[onnx.NodeProto]) -> tuple[str, str]:
        if name in self.known:
            return self.known[name]
        high, low = f"{name}:high", f"{name}:low"
        if name in self.weights:
            values = self.weights[name]
            rounded = values.astype(np.float16).astype(np.float32)
            self.initializers += [
                numpy_helper.from_array(rounded, high),
                numpy_helper.from_array(values - rounded, low),
            ]
        else:
            half, inside = f"{name}:half", f"{name}:inside"
            made += [
                # What half precision cannot hold goes into the rest, instead of becoming infinite.
                helper.make_node("Clip", [name, *_LIMITS], [inside], f"{where}:{inside}{_MARK}"),
                helper.make_node("Cast", [inside], [half], f"{where}:{half}{_MARK}", to=TensorProto.FLOAT16),
                helper.make_node("Cast", [half], [high], f"{where}:{high}{_MARK}", to=TensorProto.FLOAT),
                helper.make_node("Sub", [name, high], [low], f"{where}:{low}{_MARK}"),
            ]
        self.known[name] = (high, low)
        return high, low


def _float_weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """fp32 constants by name; those that are stored as halves and cast are among them."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {
        name: numpy_helper.to_array(tensor)
        for name, tensor in stored.items()
        if tensor.data_type == TensorProto.FLOAT
    }  # fmt: skip
    for node in model.graph.node:
        if (
            node.op_type == "Cast"
            and node.input[0] in stored
            and stored[node.input[0]].data_type == TensorProto.FLOAT16
        ):
            found[node.output[0]] = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
    return found


def _scalar(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)


def _drop_unused(model: onnx.ModelProto) -> None:
    """Weights that only unsplit products used."""
    outputs = {value.name for value in model.graph.output}
    while True:
        used = outputs.union(*(node.input for node in model.graph.node))
        dead = [node for node in model.graph.node if not used.intersection(node.output)]
        if not dead:
            break
        for node in dead:
            model.graph.node.remove(node)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
