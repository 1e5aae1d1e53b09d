"""Weights out of the way while passes run: of a network of 2 GB, every pass would make several copies."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

# Operators whose weight no pass looks into: their other input is computed.
_HEAVY = ("MatMul", "Conv", "Gemm")
# Smaller weights stay: they cost nothing, and some of them fold.
MIN_BYTES = 1 << 20
# Graphs below this run through the passes as they are.
MIN_TOTAL = 1 << 28

Weights = Mapping[str, onnx.TensorProto]


def set_aside(model: onnx.ModelProto) -> Weights:
    """Turns the large weights of a large graph into inputs of the graph, and returns them by name; else nothing."""
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
    kept = [i for i in graph.initializer if i.name not in aside]
    weights = {name: _moved(tensor) for name, tensor in aside.items()}
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.input.extend(onnx.helper.make_tensor_value_info(n, t.data_type, list(t.dims)) for n, t in weights.items())
    return weights


def _moved(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A copy whose original gives up its bytes, so that they are in memory once."""
    copy = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=tensor.raw_data)
    tensor.ClearField("raw_data")
    return copy


def put_back(model: onnx.ModelProto, weights: Weights, prefix: str) -> None:
    """Undoes `set_aside`. prefix: what a pass took off the names of weights, which inputs kept."""
    if not weights:
        return
    graph = model.graph
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    names = {name: name.removeprefix(prefix) for name in weights}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    for name, tensor in weights.items():
        tensor.name = names[name]
        graph.initializer.append(tensor)
        tensor.ClearField("raw_data")
