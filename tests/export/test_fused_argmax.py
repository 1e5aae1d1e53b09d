"""ArgMax as two reductions: the same places, and only where it pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from matchrt.building.parity import run_onnx
from matchrt.errors import MatchRTError
from matchrt.export.passes.base import run_passes
from matchrt.export.precision.fused_argmax import FuseArgMax, fuse_argmax

ROW = 1500


def _graph(source: str = "Sub", length: int | str = ROW, opset: int = 18, **attributes: Any) -> onnx.ModelProto:
    """The largest of `x - y`, or of another operator's result, along an axis."""
    attributes = {"axis": -1, "keepdims": 0} | attributes
    nodes = [helper.make_node(source, ["x", "y"], ["d"], "m/Sub_0"),
             helper.make_node("ArgMax", ["d"], ["place"], "m/ArgMax_0", **attributes)]  # fmt: skip
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, length]) for name in "xy"]
    shape = ["a", "b", "c"][: 3 if attributes["keepdims"] else 2]
    out = helper.make_tensor_value_info("place", TensorProto.INT64, shape)
    graph = helper.make_graph(nodes, "g", values, [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _changed(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    model, records = run_passes(model, [FuseArgMax()])
    return model, records[0].changed


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axis", [-1, 2])
def test_the_first_of_the_largest_values_is_found(axis: int, keepdims: int) -> None:
    x = np.random.default_rng(0).integers(0, 40, (2, 3, ROW)).astype(np.float32)  # many equal values
    x[0, 0], x[0, 1] = 7.0, -np.inf
    before = run_onnx(_graph(axis=axis, keepdims=keepdims), {"x": x, "y": np.zeros_like(x)})
    model, changed = _changed(_graph(axis=axis, keepdims=keepdims))
    after = run_onnx(model, {"x": x, "y": np.zeros_like(x)})
    assert changed and "ArgMax" not in {node.op_type for node in model.graph.node}
    np.testing.assert_array_equal(after["place"], before["place"])
    assert after["place"].dtype == np.int64 and after["place"].shape == before["place"].shape


def test_rows_of_nothing_but_nan_give_a_place_within_the_row() -> None:
    x = np.full((2, 3, ROW), np.nan, np.float32)
    places = run_onnx(_changed(_graph())[0], {"x": x, "y": x})["place"]
    assert (places == ROW - 1).all()


def test_nodes_need_no_names() -> None:
    model = _graph()
    twice = helper.make_node("ArgMax", ["d"], ["other"], axis=-1, keepdims=0)
    model.graph.node.append(twice)
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.INT64, ["a", "b"]))
    for node in model.graph.node:
        node.name = ""
    x = np.random.default_rng(0).normal(size=(2, 3, ROW)).astype(np.float32)
    after = run_onnx(_changed(model)[0], {"x": x, "y": np.zeros_like(x)})
    for name in ("place", "other"):
        np.testing.assert_array_equal(after[name], x.argmax(axis=-1))


def _of_unknown_rank() -> onnx.ModelProto:
    """The largest of values whose shape only the run knows."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["r"], "m/Reshape_0"),
             helper.make_node("Exp", ["r"], ["d"], "m/Exp_0"),
             helper.make_node("ArgMax", ["d"], ["place"], "m/ArgMax_0", axis=-1),
             helper.make_node("Size", ["place"], ["count"], "m/Size_0")]  # fmt: skip
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, ROW]),
              helper.make_tensor_value_info("shape", TensorProto.INT64, ["axes"])]  # fmt: skip
    out = helper.make_tensor_value_info("count", TensorProto.INT64, [])
    graph = helper.make_graph(nodes, "g", values, [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    "model",
    [
        _graph(length=1023),
        _graph(length="any"),
        _graph(axis=1),
        _graph(select_last_index=1),
        _graph(source="MatMul", length=3),
        _of_unknown_rank(),
    ],
    ids=["short", "unknown length", "another axis", "the last of equal values", "a product", "unknown rank"],
)
def test_others_stay_as_they_are(model: onnx.ModelProto) -> None:
    before = model.SerializeToString(deterministic=True)
    after, changed = _changed(model)
    assert not changed and after.SerializeToString(deterministic=True) == before


def test_an_older_opset_is_refused() -> None:
    with pytest.raises(MatchRTError, match="older than 18") as caught:
        _changed(_graph(opset=17))
    assert caught.value.code == "pass-requirement"


def test_a_graph_with_an_unknown_operator_is_left_to_the_backend() -> None:
    model = _graph()
    model.graph.node.insert(0, helper.make_node("Imagined", ["x"], ["z"], "m/Imagined_0", domain="nobody"))
    same, records = fuse_argmax(model)
    assert same is model and records == ()
