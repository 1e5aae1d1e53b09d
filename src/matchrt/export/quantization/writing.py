"""Writes Q/DQ pairs into a plain fp32 graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from matchrt.export.graph import GraphEditor
from matchrt.export.precision.graph_types import opset
from matchrt.export.quantization.rounding import RoundedWeight
from matchrt.export.quantization.scales import Affine, activation_affine, quantize_bias, quantize_weight
from matchrt.export.quantization.styles import QuantStyle
from matchrt.families.rules import Kind

# Low and high end of a tensor's values, by its name.
Ranges = Mapping[str, tuple[float, float]]
# Q/DQ in float16 and in float8 begin with this opset; the graph's other operators mean the same in 18 and 19.
OPSET = 19
QUANTIZE, DEQUANTIZE = "/quantize", "/dequantize"
# Operators that may be between two quantized convolutions and have 8-bit kernels of their own.
_GLUE = ("Add", "LeakyRelu", "MaxPool", "Resize")


@dataclass(frozen=True)
class Placement:
    """Which activations get a Q/DQ pair.

    everywhere: tensors of which every reader gets the rounded values.
    products: tensors of which only the chosen products get the rounded values.
    """

    everywhere: frozenset[str]
    products: frozenset[str]

    @property
    def tensors(self) -> tuple[str, ...]:
        """All of them, by name."""
        return tuple(sorted(self.everywhere | self.products))


@dataclass(frozen=True)
class Written:
    """What `write` did.

    pairs: the number of activations that have a Q/DQ pair.
    weights: the number of weights and biases that are stored in 8 bits or int32.
    weight_bytes: the bytes that the weights take less than before.
    """

    pairs: int
    weights: int
    weight_bytes: int


def place(model: onnx.ModelProto, products: Mapping[str, str], style: QuantStyle) -> Placement:
    """Decides which activations get Q/DQ pairs, so that their ranges can be measured. Raises nothing.

    products: the name of the rule, by the name of the node.
    """
    chosen = [node for node in model.graph.node if node.name in products]
    everywhere = {node.input[0] for node in chosen if node.op_type == "Conv"}
    if style.results:
        everywhere |= _results(model, chosen)
    linear = {node.input[0] for node in chosen if node.op_type != "Conv"}
    return Placement(frozenset(everywhere), frozenset(linear - everywhere))


def _results(model: onnx.ModelProto, chosen: list[onnx.NodeProto]) -> set[str]:
    """Results of convolutions, and of operators in `_GLUE` whose inputs are all quantized.

    If a Relu follows, its result counts instead.
    """
    editor = GraphEditor(model.graph)
    readers, outputs = editor.readers(), editor.outputs
    found = {_behind_relu(node, readers, outputs) for node in chosen if node.op_type == "Conv"}
    quantised = found | {node.input[0] for node in chosen if node.op_type == "Conv"}
    for node in editor.nodes:  # in topological order
        inputs = [name for name in node.input if name and name not in editor.weights]
        if node.op_type not in _GLUE or not inputs or not quantised.issuperset(inputs):
            continue
        result = _behind_relu(node, readers, outputs)
        found.add(result)
        quantised.add(result)
    return found - outputs


def _behind_relu(node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], outputs: Collection[str]) -> str:
    """The node's result, or that of the Relu that alone reads it."""
    name = node.output[0]
    follows = readers.get(name, [])
    if len(follows) == 1 and follows[0].op_type == "Relu" and name not in outputs:
        return str(follows[0].output[0])
    return str(name)


def write(
    model: onnx.ModelProto,
    products: Mapping[str, str],
    placement: Placement,
    ranges: Ranges,
    style: QuantStyle,
    rounded: Mapping[str, RoundedWeight] | None = None,
) -> Written:
    """Writes the pairs into a plain fp32 graph, in place. Every tensor of `placement` needs a range.

    rounded: weights that are in 8 bits already, by name; each other one is rounded to the nearest step.
    """
    _raise_opset(model)
    editor = GraphEditor(model.graph)
    scales = {name: activation_affine(*ranges[name], style.activations) for name in placement.tensors}
    weights = _QuantizedWeights(editor, scales, style, rounded or {})
    for value in model.graph.input:
        if value.name in scales:
            editor.before(*_pair(editor, value.name, scales[value.name]))
    for node in editor.rewrite():
        source = node.input[0] if node.input else ""
        chosen = node.name in products
        for position, name in enumerate(node.input):
            eighth = name in placement.everywhere or (chosen and position == 0)
            if eighth and name in scales:
                node.input[position] = f"{name}{DEQUANTIZE}"
        if chosen:
            weights.read_by(node, source)
        for name in node.output:
            if name in scales:
                editor.after(*_pair(editor, name, scales[name]))
    editor.before(*weights.nodes)
    editor.finish(prune=True)
    return Written(len(scales), len(weights.nodes), weights.saved_bytes)


def _pair(editor: GraphEditor, name: str, affine: Affine) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """The two nodes that round a tensor to 8 bits."""
    middle, result = f"{name}{QUANTIZE}", f"{name}{DEQUANTIZE}"
    scale, zero = _affine(editor, middle, affine)
    make = onnx.helper.make_node
    return (
        make("QuantizeLinear", [name, scale, zero], [middle], middle),
        make("DequantizeLinear", [middle, scale, zero], [result], result),
    )


class _QuantizedWeights:
    """The 8-bit weights and the int32 biases of the chosen products; each is stored once.

    nodes: the nodes that dequantise them; they stand before all others.
    saved_bytes: the bytes that 8-bit weights take less than float32.
    """

    def __init__(
        self,
        editor: GraphEditor,
        scales: Mapping[str, Affine],
        style: QuantStyle,
        rounded: Mapping[str, RoundedWeight],
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.saved_bytes = 0
        self._editor, self._scales, self._style, self._rounded = editor, scales, style, rounded

    def read_by(self, node: onnx.NodeProto, source: str) -> None:
        """Lets a product read its weight, and where the style asks for it its bias, dequantised. source: its input."""
        weight = node.input[1]
        node.input[1] = self._weight(weight, channel_axis(node))
        if self._style.bias and node.op_type == "Conv" and len(node.input) > 2 and node.input[2]:
            node.input[2] = self._bias(node.input[2], source, weight)

    def _weight(self, weight: str, axis: int) -> str:
        if f"{weight}:q" not in self._editor.constants:
            kind: Kind = "fp8" if self._style.activations == "fp8" else "int8"
            values = numpy_helper.to_array(self._editor.weights[weight]).astype(np.float32)
            done = self._rounded.get(weight)
            eighth, affine = quantize_weight(values, axis, kind) if done is None else (done.whole, done.affine)
            self.saved_bytes += values.nbytes - eighth.nbytes
            self._add(weight, eighth, affine, axis)
        return f"{weight}{DEQUANTIZE}"

    def _bias(self, bias: str, source: str, weight: str) -> str:
        """One bias may serve two layers with different inputs: its units are in its name."""
        name = f"{bias}:{source}"
        if f"{name}:q" not in self._editor.constants:
            units = numpy_helper.to_array(self._editor.constants[f"{weight}:scale"])
            values = numpy_helper.to_array(self._editor.weights[bias]).astype(np.float32)
            whole, unit = quantize_bias(values, self._scales[source].scale, units)
            self._add(name, whole, Affine(unit, np.zeros(unit.shape, np.int32)), axis=0)
        return f"{name}{DEQUANTIZE}"

    def _add(self, name: str, whole: npt.NDArray[np.generic], affine: Affine, axis: int) -> None:
        stored = self._editor.constant(f"{name}:q", stored_tensor(whole, f"{name}:q"))
        scale, zero = _affine(self._editor, name, affine)
        result = f"{name}{DEQUANTIZE}"
        self.nodes.append(onnx.helper.make_node("DequantizeLinear", [stored, scale, zero], [result], result, axis=axis))


def _affine(editor: GraphEditor, name: str, affine: Affine) -> tuple[str, str]:
    """The names of the scale and of the zero point."""
    scale, zero = f"{name}:scale", f"{name}:zero"
    return editor.constant(scale, stored_tensor(affine.scale, scale)), editor.constant(
        zero, stored_tensor(affine.zero, zero)
    )


def stored_tensor(values: np.ndarray, name: str) -> onnx.TensorProto:
    """An array as a constant of a graph, 8-bit floats included. Raises nothing."""
    if values.dtype.name == "float8_e4m3fn":
        return onnx.TensorProto(
            name=name, data_type=TensorProto.FLOAT8E4M3FN, dims=values.shape, raw_data=values.tobytes()
        )
    return numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)


def channel_axis(node: onnx.NodeProto) -> int:
    """The axis of a product's weight that numbers its results' channels."""
    if node.op_type == "Conv":
        return 0
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if transposed else 1


def _raise_opset(model: onnx.ModelProto) -> None:
    if opset(model) < OPSET:
        next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")).version = OPSET
    model.ir_version = max(model.ir_version, 9)
