"""Makes a graph of exactly N rows (pairs of images) take any number of rows from 1 to N.

The graph itself stays as it is. New nodes before it fill its inputs up to N rows with copies of the last row. New nodes
after it cut its outputs to the rows that were given. The result of a row does not change.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from matchrt.export.graph import GraphEditor

ROWS = "rows"
_INSIDE = "inside/"


def any_rows(data: bytes, batch: int) -> bytes:
    """The graph `data` of `batch` rows, with a first dimension `rows` of 1 to `batch` in all inputs and outputs."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    assert all(value.type.tensor_type.elem_type != TensorProto.UNDEFINED for value in graph.input)
    editor = GraphEditor(graph)
    editor.rename({value.name: _INSIDE + value.name for value in (*graph.input, *graph.output)})
    _take_rows(editor, batch)
    for value in graph.output:
        editor.after(
            helper.make_node("Slice", [_INSIDE + value.name, "rows/zero", "rows/count", "rows/zero"], [value.name])
        )
    editor.finish()
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = ROWS
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _take_rows(editor: GraphEditor, batch: int) -> None:
    """Adds nodes that fill every input up to `batch` rows; they also name the number of rows `rows/count`, `[1]`."""
    editor.constant("rows/zero", np.zeros(1, np.int64))
    one = editor.constant("rows/one", np.ones(1, np.int64))
    everything = editor.constant("rows/all", np.arange(batch))
    inputs = [value.name for value in editor.graph.input]
    editor.before(
        helper.make_node("Shape", [inputs[0]], ["rows/count"], start=0, end=1),
        helper.make_node("Sub", ["rows/count", one], ["rows/last"]),
        helper.make_node("Min", [everything, "rows/last"], ["rows/which"]),
        *(helper.make_node("Gather", [name, "rows/which"], [_INSIDE + name], axis=0) for name in inputs),
    )
