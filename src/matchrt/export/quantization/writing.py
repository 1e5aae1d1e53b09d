"""Writes Q/DQ pairs into a plain fp32 graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from matchrt.export.precision.graph_types import opset
from matchrt.export.quantization.scales import Affine, activation_affine, quantize_bias, quantize_weight
from matchrt.export.quantization.styles import QuantStyle

# Low and high end of a tensor's values, by its name.
Ranges = Mapping[str, tuple[float, float]]
# Q/DQ in float16 and in float8 begin with this opset; the graph's other operators mean the same in 18 and 19.
OPSET = 19
QUANTIZE, DEQUANTIZE = "/quantize", "/dequantize"
# What may stand between two quantised convolutions and has an 8-bit form of its own.
_GLUE = ("Add", "LeakyRelu", "MaxPool", "Resize")


@dataclass(frozen=True)
class Placement:
    """Which activations get a Q/DQ pair.

    everywhere: tensors that all who read them read rounded; products: those that only the chosen products read so.
    """

    everywhere: frozenset[str]
    products: frozenset[str]

    @property
    def tensors(self) -> tuple[str, ...]:
        """All of them, by name."""
        return tuple(sorted(self.everywhere | self.products))


@dataclass(frozen=True)
class Written:
    """What was done."""

    pairs: int
    weights: int
    weight_bytes: int


def place(model: onnx.ModelProto, products: Mapping[str, str], style: QuantStyle) -> Placement:
    """Where the pairs go, for these products; what must be known of a graph before its ranges are measured."""
    chosen = [node for node in model.graph.node if node.name in products]
    everywhere = {node.input[0] for node in chosen if node.op_type == "Conv"}
    if style.results:
        everywhere |= _results(model, chosen)
    linear = {node.input[0] for node in chosen if node.op_type != "Conv"}
    return Placement(frozenset(everywhere), frozenset(linear - everywhere))


def _results(model: onnx.ModelProto, chosen: list[onnx.NodeProto]) -> set[str]:
    """Results of convolutions, and of the glue whose inputs are all quantised; behind a Relu where one follows."""
    readers = _readers(model)
    outputs = {value.name for value in model.graph.output}
    weights = {i.name for i in model.graph.initializer}
    found = {_behind_relu(node, readers, outputs) for node in chosen if node.op_type == "Conv"}
    quantised = found | {node.input[0] for node in chosen if node.op_type == "Conv"}
    for node in model.graph.node:  # in topological order
        inputs = [name for name in node.input if name and name not in weights]
        if node.op_type not in _GLUE or not inputs or not quantised.issuperset(inputs):
            continue
        result = _behind_relu(node, readers, outputs)
        found.add(result)
        quantised.add(result)
    return found - outputs


def _behind_relu(node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], outputs: set[str]) -> str:
    """The node's result, or that of the Relu that alone reads it."""
    name = node.output[0]
    follows = readers.get(name, [])
    if len(follows) == 1 and follows[0].op_type == "Relu" and name not in outputs:
        return str(follows[0].output[0])
    return str(name)


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers


def write(
    model: onnx.ModelProto, products: Mapping[str, str], placement: Placement, ranges: Ranges, style: QuantStyle
) -> Written:
    """Changes the graph in place."""
    return _Writer(model, products, placement, ranges, style).write()


class _Writer:
    def __init__(
        self,
        model: onnx.ModelProto,
        products: Mapping[str, str],
        placement: Placement,
        ranges: Ranges,
        style: QuantStyle,
    ) -> None:
        self.graph = model.graph
        self.products, self.placement, self.style = products, placement, style
        self.scales = {name: activation_affine(*ranges[name], style.activations) for name in placement.tensors}
        self.weights = {i.name: i for i in model.graph.initializer}
        self.constants: dict[str, onnx.TensorProto] = {}
        self.heads: list[onnx.NodeProto] = []  # what dequantises weights, before all else
        self.saved = 0
        _raise_opset(model)

    def write(self) -> Written:
        body: list[onnx.NodeProto] = []
        for value in self.graph.input:
            body += self._pair(value.name)
        for original in self.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            chosen = node.name in self.products
            for position, name in enumerate(node.input):
                rounded = name in self.placement.everywhere or (chosen and position == 0)
                if rounded and name in self.scales:
                    node.input[position] = f"{name}{DEQUANTIZE}"
            if chosen:
                self._take_weight(node, original.input[0])
            body.append(node)
            for name in original.output:
                body += self._pair(name)
        del self.graph.node[:]
        self.graph.node.extend([*self.heads, *body])
        weights = len(self.heads)
        self._settle_constants()
        return Written(len(self.scales), weights, self.saved)

    def _pair(self, name: str) -> list[onnx.NodeProto]:
        if name not in self.scales:
            return []
        affine = self.scales[name]
        scale, zero = self._affine(f"{name}{QUANTIZE}", affine)
        make, middle = onnx.helper.make_node, f"{name}{QUANTIZE}"
        return [
            make("QuantizeLinear", [name, scale, zero], [middle], middle),
            make("DequantizeLinear", [middle, scale, zero], [f"{name}{DEQUANTIZE}"], f"{name}{DEQUANTIZE}"),
        ]

    def _take_weight(self, node: onnx.NodeProto, source: str) -> None:
        weight, axis = node.input[1], _channel_axis(node)
        result = f"{weight}{DEQUANTIZE}"
        if f"{weight}:q" not in self.constants:
            kind = "fp8" if self.style.activations == "fp8" else "int8"
            values = numpy_helper.to_array(self.weights[weight]).astype(np.float32)
            eighth, affine = quantize_weight(values, axis, kind)  # type: ignore[arg-type]
            self.saved += values.nbytes - eighth.nbytes
            self._constant(f"{weight}:q", eighth)
            scale, zero = self._affine(weight, affine)
            inputs = [f"{weight}:q", scale, zero]
            self.heads.append(onnx.helper.make_node("DequantizeLinear", inputs, [result], result, axis=axis))
        node.input[1] = result
        if self.style.bias and node.op_type == "Conv" and len(node.input) > 2 and node.input[2]:
            node.input[2] = self._bias(node.input[2], source, weight)

    def _bias(self, bias: str, source: str, weight: str) -> str:
        """One bias may serve two layers with different inputs: its units are in its name."""
        name = f"{bias}:{source}"
        if f"{name}:q" not in self.constants:
            units = numpy_helper.to_array(self.constants[f"{weight}:scale"])
            values = numpy_helper.to_array(self.weights[bias]).astype(np.float32)
            whole, unit = quantize_bias(values, self.scales[source].scale, units)
            self._constant(f"{name}:q", whole)
            scale, zero = self._affine(name, Affine(unit, np.zeros(unit.shape, np.int32)))
            inputs, result = [f"{name}:q", scale, zero], f"{name}{DEQUANTIZE}"
            self.heads.append(onnx.helper.make_node("DequantizeLinear", inputs, [result], result, axis=0))
        return f"{name}{DEQUANTIZE}"

    def _affine(self, name: str, affine: Affine) -> tuple[str, str]:
        return self._constant(f"{name}:scale", affine.scale), self._constant(f"{name}:zero", affine.zero)

    def _constant(self, name: str, values: np.ndarray) -> str:
        if name not in self.constants:
            self.constants[name] = _tensor(values, name)
        return name

    def _settle_constants(self) -> None:
        """Weights that nobody reads any more go, the new constants come."""
        used = {name for node in self.graph.node for name in node.input}
        kept = [i for i in self.graph.initializer if i.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*kept, *self.constants.values()])


def _tensor(values: np.ndarray, name: str) -> onnx.TensorProto:
    if values.dtype.name == "float8_e4m3fn":
        return onnx.TensorProto(
            name=name, data_type=TensorProto.FLOAT8E4M3FN, dims=values.shape, raw_data=values.tobytes()
        )
    return numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)


def _channel_axis(node: onnx.NodeProto) -> int:
    """The axis of a product's weight that numbers its results' channels."""
    if node.op_type == "Conv":
        return 0
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if transposed else 1


def _raise_opset(model: onnx.ModelProto) -> None:
    if opset(model) < OPSET:
        next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")).version = OPSET
    model.ir_version = max(model.ir_version, 9)
