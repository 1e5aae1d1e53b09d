"""An engine's graph of exactly N rows, made to take any number of rows up to N.

Around the graph, not in it: its inputs are filled up to N rows with copies of the last one, its outputs are cut to the
rows that came. What it computes for a row stays what it was.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROWS = "rows"
_INSIDE = "inside/"


def any_rows(data: bytes, batch: int) -> bytes:
    """The graph `data` of `batch` rows, with a first dimension `rows` of 1 to `batch` in all inputs and outputs."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    outer = {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [_INSIDE + name if name in outer else name for name in names]
    before = _take_rows(graph, batch)
    after = [
        helper.make_node("Slice", [_INSIDE + value.name, "rows/zero", "rows/count", "rows/zero"], [value.name])
        for value in graph.output
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = ROWS
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _take_rows(graph: onnx.GraphProto, batch: int) -> list[onnx.NodeProto]:
    """Nodes that fill every input up to `batch` rows; they also name the number of rows `rows/count`, `[1]`."""
    constants = {"rows/zero": np.zeros(1, np.int64), "rows/one": np.ones(1, np.int64), "rows/all": np.arange(batch)}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    first = graph.input[0].name
    nodes = [
        helper.make_node("Shape", [first], ["rows/count"], start=0, end=1),
        helper.make_node("Sub", ["rows/count", "rows/one"], ["rows/last"]),
        helper.make_node("Min", ["rows/all", "rows/last"], ["rows/which"]),
    ]
    nodes += [helper.make_node("Gather", [v.name, "rows/which"], [_INSIDE + v.name], axis=0) for v in graph.input]
    assert all(value.type.tensor_type.elem_type != TensorProto.UNDEFINED for value in graph.input)
    return nodes
