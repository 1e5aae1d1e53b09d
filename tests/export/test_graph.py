"""The graph editor: what it shows of a graph, and what the graph holds afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import matchrt
from matchrt.export.graph import GraphEditor

LITE = Path(matchrt.__file__).parent / "assets" / "loftr-lite.onnx"


def model_of(
    nodes: list[onnx.NodeProto], weights: dict[str, float], outputs: tuple[str, ...] = ("y",)
) -> onnx.ModelProto:
    """A graph of x, [2]; every weight is one number in [1]."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "test",
        [value("x", TensorProto.FLOAT, [2])],
        [value(name, TensorProto.FLOAT, ["n"]) for name in outputs],
        [numpy_helper.from_array(np.float32([number]), name) for name, number in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def square_plus() -> onnx.ModelProto:
    """y = x x + a."""
    nodes = [helper.make_node("Mul", ["x", "x"], ["xx"], "square"), helper.make_node("Add", ["xx", "a"], ["y"], "add")]
    return model_of(nodes, {"a": 1.0})


def run(model: onnx.ModelProto, x: tuple[float, float] = (2.0, 3.0)) -> list[float]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [float(value) for value in session.run(["y"], {"x": np.float32(x)})[0]]


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_it_says_who_computes_and_who_reads_a_tensor() -> None:
    editor = GraphEditor(square_plus().graph)
    assert {name: node.name for name, node in editor.producers().items()} == {"xx": "square", "y": "add"}
    readers = {name: [node.name for node in nodes] for name, nodes in editor.readers().items()}
    assert readers == {"x": ["square", "square"], "xx": ["add"], "a": ["add"]}
    # An output of the graph is used by whoever runs the graph.
    assert editor.uses() == {"x": 2, "xx": 1, "a": 1, "y": 1}


def test_nodes_stand_where_they_were_put_and_the_order_stays_topological() -> None:
    model = square_plus()
    editor = GraphEditor(model.graph)
    editor.before(helper.make_node("Neg", ["x"], ["start"], "start"))
    editor.after(helper.make_node("Abs", ["y"], ["end"], "end"))
    for node in editor.rewrite():
        editor.before(helper.make_node("Identity", [node.input[0]], [f"{node.name}/read"], f"{node.name}/before"))
        node.input[0] = f"{node.name}/read"
        editor.after(helper.make_node("Relu", [node.output[0]], [f"{node.name}/relu"], f"{node.name}/after"))
    editor.before(helper.make_node("Exp", ["x"], ["head"], "head"))
    editor.after(helper.make_node("Sqrt", ["end"], ["tail"], "tail"))
    editor.finish()
    names = [node.name for node in model.graph.node]
    assert names == [
        *("head", "start", "square/before", "square", "end", "square/after", "add/before", "add", "add/after", "tail")
    ]


def test_a_node_is_rewritten_in_a_copy_and_the_graph_follows_at_the_end() -> None:
    model = square_plus()
    editor = GraphEditor(model.graph)
    for node in editor.rewrite():
        if node.op_type == "Add":
            node.op_type = "Sub"
    assert operators(model) == ["Mul", "Add"]
    editor.finish()
    assert operators(model) == ["Mul", "Sub"] and run(model) == [3.0, 8.0]


def test_a_tensor_that_a_node_reads_twice_is_rewired_at_both_places() -> None:
    model = square_plus()
    editor = GraphEditor(model.graph)
    editor.rewire({"x": "a"})
    editor.finish()
    assert list(model.graph.node[0].input) == ["a", "a"] and list(model.graph.node[0].output) == ["xx"]
    assert run(model) == [2.0]


def test_a_renamed_tensor_has_its_new_name_at_readers_producer_and_weight() -> None:
    model = square_plus()
    editor = GraphEditor(model.graph)
    editor.rename({"xx": "squared", "a": "offset"})
    editor.finish()
    assert [(*node.input, *node.output) for node in model.graph.node] == [
        ("x", "x", "squared"),
        ("squared", "offset", "y"),
    ]
    assert set(editor.weights) == {"offset"} == {weight.name for weight in model.graph.initializer}
    assert run(model) == [5.0, 10.0]


def test_a_constant_is_added_once_and_its_name_means_one_value() -> None:
    model = square_plus()
    editor = GraphEditor(model.graph)
    for node in editor.rewrite():
        if node.op_type == "Mul":
            node.input[1] = editor.constant("three", np.float32([3]))
        else:
            node.input[1] = editor.constant("three", np.float32([3]))
    with pytest.raises(ValueError, match="three"):
        editor.constant("three", np.float32([4]))
    with pytest.raises(ValueError, match="the name a"):
        editor.constant("a", np.float32([1]))
    editor.finish()
    assert [weight.name for weight in model.graph.initializer] == ["a", "three"]
    assert run(model) == [9.0, 12.0]


def test_pruning_removes_what_nothing_reads_and_keeps_outputs_of_the_graph() -> None:
    nodes = [helper.make_node("Add", ["x", "used"], ["y"], "add")]
    for prune, left in ((False, ["unused", "used", "result"]), (True, ["used", "result"])):
        model = model_of(nodes, {"unused": 1.0, "used": 2.0, "result": 3.0}, outputs=("y", "result"))
        editor = GraphEditor(model.graph)
        editor.finish(prune)
        assert [weight.name for weight in model.graph.initializer] == left == list(editor.weights)
        assert run(model) == [4.0, 5.0]


def test_dropped_nodes_go_and_the_others_stay() -> None:
    model = model_of([*square_plus().graph.node, helper.make_node("Abs", ["xx"], ["z"])], {"a": 1.0})
    editor = GraphEditor(model.graph)
    editor.drop([editor.nodes[2]])
    editor.finish()
    assert operators(model) == ["Mul", "Add"] and run(model) == [5.0, 10.0]


def test_a_replaced_weight_keeps_its_place_and_takes_its_new_name() -> None:
    model = model_of([helper.make_node("Mul", ["x", "b2"], ["y"], "mul")], {"a": 1.0, "b": 2.0, "c": 3.0})
    editor = GraphEditor(model.graph)
    editor.replace_weight("b", np.float32([5]), "b2")
    editor.replace_weight("c", np.float32([6]))
    editor.drop_weights({"a"})
    editor.finish()
    stored = {weight.name: float(numpy_helper.to_array(weight)[0]) for weight in model.graph.initializer}
    assert stored == {"b2": 5.0, "c": 6.0} and run(model) == [10.0, 15.0]


def test_an_editor_that_changes_nothing_changes_no_byte_of_an_engine() -> None:
    model = onnx.load(LITE)
    before = model.SerializeToString(deterministic=True)
    editor = GraphEditor(model.graph)
    for _ in editor.rewrite():
        pass
    editor.finish(prune=True)
    assert model.SerializeToString(deterministic=True) == before
