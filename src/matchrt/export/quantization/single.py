"""One product of a graph as a graph of its own, in fp16 and in 8 bits, so that a GPU can say which is faster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from matchrt.export.quantization.scales import quantize_weight
from matchrt.export.quantization.writing import OPSET, channel_axis, stored_tensor
from matchrt.families.rules import Kind

# A small product alone is over before it can be timed well.
COPIES = 4


@dataclass(frozen=True)
class ProductKind:
    """Products that take the same time: same operator, same attributes, same shapes.

    op_type: Conv, MatMul or Gemm.
    attributes: of the node, serialised.
    values: shape of the activation.
    weight: shape of the weight.
    """

    op_type: str
    attributes: tuple[bytes, ...]
    values: tuple[int, ...]
    weight: tuple[int, ...]

    @classmethod
    def of(cls, node: onnx.NodeProto, values: tuple[int, ...], weight: tuple[int, ...]) -> ProductKind:
        """The kind of a node whose first two inputs have these shapes."""
        return cls(node.op_type, tuple(sorted(a.SerializeToString() for a in node.attribute)), values, weight)

    @classmethod
    def plain(cls, op_type: str, values: tuple[int, ...], weight: tuple[int, ...]) -> ProductKind:
        """A kind without attributes. Raises nothing."""
        return cls(op_type, (), values, weight)

    def __str__(self) -> str:
        return f"{self.op_type} {'x'.join(map(str, self.values))} by {'x'.join(map(str, self.weight))}"


def kinds_of(model: onnx.ModelProto, names: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]) -> dict[
    ProductKind, tuple[str, ...]
]:  # fmt: skip
    """The chosen products of a graph by their kinds. names: of the nodes. shapes: of the activations, by tensor."""
    weights = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    found: dict[ProductKind, list[str]] = {}
    for node in model.graph.node:
        if node.name in names:
            kind = ProductKind.of(node, shapes[node.input[0]], weights[node.input[1]])
            found.setdefault(kind, []).append(node.name)
    return {kind: tuple(nodes) for kind, nodes in found.items()}


def single_product(kind: ProductKind, activations: Kind | None) -> onnx.ModelProto:
    """A graph of `COPIES` products of that kind, with float16 inputs `x0`… and outputs `y0`….

    activations: their 8-bit type; None for products in fp16. Raises nothing.
    """
    graph = onnx.GraphProto(name="product")
    rng = np.random.default_rng(0)
    for index in range(COPIES):
        graph.input.append(onnx.helper.make_tensor_value_info(f"x{index}", TensorProto.FLOAT16, list(kind.values)))
        graph.output.append(onnx.helper.make_empty_tensor_value_info(f"y{index}"))
        weight = rng.normal(size=kind.weight, scale=0.05).astype(np.float32)
        (_half if activations is None else _eighth(activations))(graph, kind, index, weight)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=9)
    for value in model.graph.output:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return onnx.shape_inference.infer_shapes(model)


def _product(kind: ProductKind, values: str, weight: str, result: str) -> onnx.NodeProto:
    node = onnx.helper.make_node(kind.op_type, [values, weight], [result], f"{result}/product")
    node.attribute.extend(onnx.AttributeProto.FromString(attribute) for attribute in kind.attributes)
    return node


def _half(graph: onnx.GraphProto, kind: ProductKind, index: int, weight: np.ndarray) -> None:
    graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), f"w{index}"))
    graph.node.append(_product(kind, f"x{index}", f"w{index}", f"y{index}"))


def _eighth(activations: Kind) -> Any:
    """Writes what `quantize` writes: everything between the Casts in float32, with float32 scales."""

    def write(graph: onnx.GraphProto, kind: ProductKind, index: int, weight: np.ndarray) -> None:
        make, x, w = onnx.helper.make_node, f"x{index}", f"w{index}"
        axis = channel_axis(_product(kind, "x", "w", "y"))
        whole, affine = quantize_weight(weight, axis, "fp8" if activations == "fp8" else "int8")
        constants = {
            f"{w}:q": whole,
            f"{w}:s": affine.scale,
            f"{w}:z": affine.zero,
            f"{x}:s": np.float32(0.05).reshape(()),
            f"{x}:z": np.zeros((), affine.zero.dtype),
        }
        graph.initializer.extend(stored_tensor(value, name) for name, value in constants.items())
        weights = make("DequantizeLinear", [f"{w}:q", f"{w}:s", f"{w}:z"], [w], f"{w}:dequantize", axis=axis)
        graph.node.extend(
            [
                weights,
                make("Cast", [x], [f"{x}:f"], f"{x}:up", to=TensorProto.FLOAT),
                make("QuantizeLinear", [f"{x}:f", f"{x}:s", f"{x}:z"], [f"{x}:q"], f"{x}:quantize"),
                make("DequantizeLinear", [f"{x}:q", f"{x}:s", f"{x}:z"], [f"{x}:d"], f"{x}:dequantize"),
                _product(kind, f"{x}:d", w, f"y{index}:f"),
                make("Cast", [f"y{index}:f"], [f"y{index}"], f"y{index}:down", to=TensorProto.FLOAT16),
            ]
        )

    return write
