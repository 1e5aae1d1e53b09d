"""Batch normalisation at inference is a scale and a shift per channel: part of the convolution before it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from matchrt.export.passes.base import PassResult, broken_promise, replace_nodes

Weights = dict[str, onnx.TensorProto]


@dataclass(frozen=True)
class FoldBatchNorm:
    """Conv and BatchNormalization become one Conv with a bias, computed in float64.

    w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta. A layer that runs on both images keeps one weight,
    named after its first normalisation. Needed before fp16, where a variance can be too small and every further
    operator rounds once more.
    """

    name: str = "fold-batch-norm"

    def requires(self, model: onnx.ModelProto) -> None:
        """Any graph."""

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Folds each normalisation of a convolution that nothing else reads and whose weights are constants."""
        graph = model.graph
        weights = {i.name: i for i in graph.initializer}
        producers = {output: node for node in graph.node for output in node.output}
        uses = Counter(name for node in graph.node for name in node.input) + Counter(v.name for v in graph.output)
        folded: dict[str, onnx.NodeProto] = {}
        layers: dict[tuple[str, ...], tuple[str, str]] = {}
        for norm in graph.node:
            conv = producers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
            if conv is not None and _foldable(conv, norm, weights, uses):
                key = (*conv.input[1:], *norm.input[1:])
                layers[key] = layers.get(key) or _add_weights(graph, conv, norm, weights)
                folded[conv.output[0]] = _with(conv, layers[key], norm.output[0])
        gone = {node.output[0] for node in folded.values()}
        nodes = [folded.get(node.output[0], _copied(node)) for node in graph.node if node.output[0] not in gone]
        replace_nodes(graph, nodes)
        return PassResult(model, len(folded), f"folded {len(folded)} normalisations into convolutions")

    def ensures(self, model: onnx.ModelProto) -> None:
        """No normalisation of a convolution with constant weights is left."""
        weights = {i.name: i for i in model.graph.initializer}
        producers = {output: node for node in model.graph.node for output in node.output}
        uses = Counter(name for node in model.graph.node for name in node.input)
        for norm in (n for n in model.graph.node if n.op_type == "BatchNormalization"):
            conv = producers.get(norm.input[0])
            if conv is not None and _foldable(conv, norm, weights, uses):
                raise broken_promise(self.name, f"{norm.name} is not folded")


def _foldable(conv: onnx.NodeProto, norm: onnx.NodeProto, weights: Weights, uses: Counter[str]) -> bool:
    constant = all(name in weights for name in (*conv.input[1:], *norm.input[1:]))
    return conv.op_type == "Conv" and constant and uses[conv.output[0]] == 1


def _add_weights(
    graph: onnx.GraphProto, conv: onnx.NodeProto, norm: onnx.NodeProto, weights: Weights
) -> tuple[str, str]:
    scale, shift, mean, variance = (_values(weights[name]) for name in norm.input[1:5])
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    kernel = _values(weights[conv.input[1]])
    bias = _values(weights[conv.input[2]]) if len(conv.input) > 2 else np.zeros_like(mean)
    names = (f"{norm.name}/weight", f"{norm.name}/bias")
    kernel *= factor.reshape(-1, *[1] * (kernel.ndim - 1))
    for name, values in zip(names, (kernel, (bias - mean) * factor + shift), strict=True):
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return names


def _with(conv: onnx.NodeProto, weights: tuple[str, str], output: str) -> onnx.NodeProto:
    result = _copied(conv)
    result.input[:] = [conv.input[0], *weights]
    result.output[:] = [output]
    return result


def _values(weight: onnx.TensorProto) -> npt.NDArray[np.float64]:
    return numpy_helper.to_array(weight).astype(np.float64)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
