"""Batch normalisation at inference is a scale and a shift per channel: part of the convolution before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from matchrt.export.graph import GraphEditor
from matchrt.export.passes.base import PassResult, broken_promise, unmet_requirement
from matchrt.export.passes.conditions import require_flat, require_unique_names, require_weights_inside


@dataclass(frozen=True)
class FoldBatchNorm:
    """Conv and BatchNormalization become one Conv with a bias, computed in float64.

    w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta. A layer that runs on both images keeps one weight,
    named after its first normalisation. Needed before fp16, where a variance can be too small and every further
    operator rounds once more.

    name: the name of the pass in the manifest.
    """

    name: str = "fold-batch-norm"

    def requires(self, model: onnx.ModelProto) -> None:
        """One flat graph, weights inside the file, unique names of nodes, no normalisation in training mode.

        Error: `pass-requirement`.
        """
        require_flat(self.name, model)
        require_weights_inside(self.name, model)
        require_unique_names(self.name, model)  # the new weights are named after the nodes
        norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
        if training := [n.name for n in norms if any(a.name == "training_mode" and a.i for a in n.attribute)]:
            raise unmet_requirement(self.name, f"{training[0]} is in training mode and normalises by its input")

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Folds each normalisation of a convolution that nothing else reads and whose weights are constants."""
        editor = GraphEditor(model.graph)
        norms = {conv.output[0]: norm for conv, norm in _foldable(editor)}
        editor.drop(norms.values())
        layers: dict[tuple[str, ...], tuple[str, str]] = {}
        for node in editor.rewrite():
            norm = norms.get(node.output[0])
            if norm is not None:
                key = (*node.input[1:], *norm.input[1:])
                layers[key] = layers.get(key) or _add_weights(editor, node, norm)
                node.input[:] = [node.input[0], *layers[key]]
                node.output[:] = [norm.output[0]]
        editor.finish(prune=True)
        return PassResult(model, len(norms), f"folded {len(norms)} normalisations into convolutions")

    def ensures(self, model: onnx.ModelProto) -> None:
        """No normalisation of a convolution with constant weights is left. Error: `pass-promise`."""
        for _, norm in _foldable(GraphEditor(model.graph)):
            raise broken_promise(self.name, f"{norm.name} is not folded")


def _foldable(editor: GraphEditor) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Convolutions with their normalisations, where nothing else reads the convolution and all weights are constant."""
    producers, uses = editor.producers(), editor.uses()
    for norm in (node for node in editor.nodes if node.op_type == "BatchNormalization"):
        conv = producers.get(norm.input[0])
        if conv is None or conv.op_type != "Conv" or uses[conv.output[0]] != 1:
            continue
        if all(name in editor.weights for name in (*conv.input[1:], *norm.input[1:])):
            yield conv, norm


def _add_weights(editor: GraphEditor, conv: onnx.NodeProto, norm: onnx.NodeProto) -> tuple[str, str]:
    """The names of the new kernel and of the new bias."""
    scale, shift, mean, variance = (_values(editor.weights[name]) for name in norm.input[1:5])
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    kernel = _values(editor.weights[conv.input[1]])
    bias = _values(editor.weights[conv.input[2]]) if len(conv.input) > 2 else np.zeros_like(mean)
    kernel *= factor.reshape(-1, *[1] * (kernel.ndim - 1))
    return (
        editor.constant(f"{norm.name}/weight", kernel.astype(np.float32)),
        editor.constant(f"{norm.name}/bias", ((bias - mean) * factor + shift).astype(np.float32)),
    )


def _values(weight: onnx.TensorProto) -> npt.NDArray[np.float64]:
    return numpy_helper.to_array(weight).astype(np.float64)
