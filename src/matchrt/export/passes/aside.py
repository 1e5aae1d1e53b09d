"""Takes the large weights out of a graph while passes run.

Every pass copies the graph a few times. For a network of 2 GB these copies do not fit into memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from matchrt.export.graph import GraphEditor

# No pass looks into the weight of these operators where their other input is computed.
_HEAVY = ("MatMul", "Conv", "Gemm")
# Smaller weights stay in the graph: they cost little, and constant folding needs some of them.
MIN_BYTES = 1 << 20
# Graphs whose weights are smaller than this, in bytes, stay as they are.
MIN_TOTAL = 1 << 28

Weights = Mapping[str, onnx.TensorProto]


def set_aside(model: onnx.ModelProto) -> Weights:
    """Turns the large weights of a large graph into inputs of the graph, and returns them by name.

    The result is empty if the graph is not large. Raises nothing.
    """
    graph = model.graph
    if sum(len(i.raw_data) for i in graph.initializer) < MIN_TOTAL:
        return {}
    fixed = {i.name for i in graph.initializer}
    heavy: set[str] = set()
    used_otherwise: set[str] = set()
    for node in graph.node:
        computed = any(name and name not in fixed for name in node.input)
        (heavy if node.op_type in _HEAVY and computed else used_otherwise).update(node.input)
    aside = {i.name: i for i in graph.initializer if len(i.raw_data) >= MIN_BYTES and i.name in heavy - used_otherwise}
    weights = {name: _moved(tensor) for name, tensor in aside.items()}
    GraphEditor(graph).drop_weights(aside.keys())
    graph.input.extend(onnx.helper.make_tensor_value_info(n, t.data_type, list(t.dims)) for n, t in weights.items())
    return weights


def _moved(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A copy of a weight. The original is emptied, so that the bytes are in memory once."""
    copy = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=tensor.raw_data)
    tensor.ClearField("raw_data")
    return copy


def put_back(model: onnx.ModelProto, weights: Weights, prefix: str) -> None:
    """Undoes `set_aside`. Raises nothing.

    prefix: what the passes removed from the beginning of weights' names, but not of inputs' names.
    """
    if not weights:
        return
    graph = model.graph
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    names = {name: name.removeprefix(prefix) for name in weights}
    editor = GraphEditor(graph)
    editor.rewire(names)
    editor.finish()
    for name, tensor in weights.items():
        tensor.name = names[name]
        graph.initializer.append(tensor)
        tensor.ClearField("raw_data")
