"""Cutting a graph in two: the parts are valid, made of the whole's own nodes, and refuse what has no such parts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from matchrt._util.onnx_parts import put_together, take_apart
from matchrt.runtime.bundled import bundled_path
from matchrt.runtime.split.cut import CutGraph, cut_graph, feature_input

Arrays = dict[str, npt.NDArray[Any]]
WEIGHTS = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)


def _value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(
    nodes: list[onnx.NodeProto], output: str = "scores", inner: tuple[str, ...] = (), weights: tuple[str, ...] = ("w",)
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "toy",
        [_value("image0", ["rows0", 3]), _value("image1", ["rows1", 3])],
        [_value(output, ["rows0", "rows1"])],
        [numpy_helper.from_array(WEIGHTS, name) for name in weights],
        value_info=[_value(name, [3, "?"] if "turned" in name else ["?", 3]) for name in inner],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def _two_sides(second_weight: str = "w") -> list[onnx.NodeProto]:
    """`relu(image @ w)` of both images, and the products of their rows."""
    return [
        helper.make_node("MatMul", ["image0", "w"], ["product0"]),
        helper.make_node("MatMul", ["image1", second_weight], ["product1"]),
        helper.make_node("Relu", ["product0"], ["features0"]),
        helper.make_node("Relu", ["product1"], ["features1"]),
        helper.make_node("Transpose", ["features1"], ["turned1"]),
        helper.make_node("MatMul", ["features0", "turned1"], ["scores"]),
    ]


INNER = ("product0", "product1", "features0", "features1", "turned1")


def _run(data: bytes, inputs: Arrays) -> Arrays:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _matched(cut: CutGraph, images: Arrays) -> Arrays:
    wanted = {value.name for value in onnx.load_model_from_string(cut.match).graph.input}
    given = dict(images)
    for side in (0, 1):
        maps = _run(cut.features, {"image0": images[f"image{side}"]})
        given |= {feature_input(side, name): array for name, array in maps.items()}
    return _run(cut.match, {name: array for name, array in given.items() if name in wanted})


def _images(rows0: int = 4, rows1: int = 5) -> Arrays:
    random = np.random.default_rng(0)
    return {f"image{side}": random.random((rows, 3), np.float32) for side, rows in enumerate((rows0, rows1))}


@pytest.mark.parametrize("second", ["w", "same_values"])
def test_parts_give_the_whole(second: str) -> None:
    """Both images go through the same nodes, also if the graph has the weights under two names."""
    weights = ("w",) if second == "w" else ("w", second)
    whole = _model(_two_sides(second), inner=INNER, weights=weights)
    cut, images = cut_graph(whole), _images()
    features, match = (onnx.load_model_from_string(part).graph for part in (cut.features, cut.match))
    # The second image is turned in the first part, which alone depends on it; the first image's map is not.
    assert Counter(node.op_type for node in features.node) == {"MatMul": 1, "Relu": 1, "Transpose": 1}
    assert [node.op_type for node in match.node] == ["MatMul"]
    assert [value.name for value in features.input] == ["image0"]
    np.testing.assert_array_equal(_matched(cut, images)["scores"], _run(whole, images)["scores"])


def test_operands_that_may_change_places_are_no_difference() -> None:
    nodes = [
        helper.make_node("Add", ["image0", "w"], ["sum0"]),
        helper.make_node("Add", ["w", "image1"], ["sum1"]),
        helper.make_node("Mul", ["sum0", "sum1"], ["scores"]),
    ]
    cut = cut_graph(_model(nodes, inner=("sum0", "sum1")))
    assert len(onnx.load_model_from_string(cut.features).graph.node) == 1


def test_what_depends_on_an_images_shape_only_is_not_kept() -> None:
    nodes = [
        helper.make_node("Relu", ["image0"], ["features0"]),
        helper.make_node("Relu", ["image1"], ["features1"]),
        helper.make_node("Shape", ["image0"], ["shape0"]),
        helper.make_node("Expand", ["one", "shape0"], ["ones0"]),
        helper.make_node("Mul", ["features0", "ones0"], ["more0"]),
        helper.make_node("Mul", ["features1", "ones0"], ["mixed"]),
        helper.make_node("Add", ["more0", "mixed"], ["scores"]),
    ]
    model = onnx.load_model_from_string(_model(nodes, inner=("features0", "features1", "ones0", "more0")))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1), np.float32), "one"))
    whole = model.SerializeToString()
    cut, images = cut_graph(whole), _images(3, 3)
    names = [value.name for value in onnx.load_model_from_string(cut.match).graph.input]
    assert "image0" in names and "image1" not in names and not any("shape" in name for name in names)
    np.testing.assert_array_equal(_matched(cut, images)["scores"], _run(whole, images)["scores"])


def test_the_bundled_engine_falls_into_valid_parts() -> None:
    data = bundled_path("loftr-lite").read_bytes()
    cut = cut_graph(data)
    whole = onnx.load_model_from_string(data)
    for part in (cut.features, cut.match):
        model = onnx.load_model_from_string(part)
        onnx.checker.check_model(model)
        assert model.opset_import == whole.opset_import
    convolutions = [
        sum(node.op_type == "Conv" for node in onnx.load_model_from_string(part).graph.node)
        for part in (data, cut.features, cut.match)
    ]
    assert convolutions == [2 * convolutions[1], convolutions[1], 0]
    # The weights are in one part or the other; only small constants are in both.
    assert len(cut.features) + len(cut.match) < 1.1 * len(data)
    assert cut_graph(data) == cut


def test_a_graph_put_together_again_is_the_same_graph() -> None:
    data = bundled_path("loftr-lite").read_bytes()
    before = onnx.load_model_from_string(data)
    again = onnx.load_model_from_string(put_together(take_apart(data), before.graph.name))
    for model in (before, again):
        assert len(model.graph.node) > 100
    assert list(again.graph.node) == list(before.graph.node)
    assert list(again.graph.initializer) == list(before.graph.initializer)
    assert list(again.graph.input) == list(before.graph.input)
    assert list(again.graph.output) == list(before.graph.output)
    assert list(again.graph.value_info) == list(before.graph.value_info)


@pytest.mark.parametrize(
    ("nodes", "inner", "reason"),
    [
        (
            [
                helper.make_node("Concat", ["image0", "image1"], ["both"], axis=0),
                helper.make_node("MatMul", ["both", "w"], ["scores"]),
            ],
            ("both",),
            "both images go through its first nodes together",
        ),
        ([helper.make_node("MatMul", ["image0", "w"], ["scores"])], (), "one of its outputs depends on one image"),
        (_two_sides(), (), "does not say the type of"),
        (
            [
                helper.make_node("MatMul", ["image0", "w"], ["map0"]),
                helper.make_node("MatMul", ["image1", "w"], ["map1"]),
                helper.make_node("Add", ["map0", "map1"], ["scores"]),
            ],
            ("map0", "map1"),
            "tensors of the names map0",
        ),
    ],
)
def test_graphs_without_parts_are_refused_by_a_reason(
    nodes: list[onnx.NodeProto], inner: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        cut_graph(_model(nodes, inner=inner))


def test_graphs_inside_of_nodes_are_refused() -> None:
    body = helper.make_graph([helper.make_node("Relu", ["image0"], ["out"])], "body", [], [_value("out", [1, 3])])
    nodes = [helper.make_node("If", ["image1"], ["scores"], then_branch=body, else_branch=body)]
    with pytest.raises(ValueError, match="graphs inside of nodes"):
        cut_graph(_model(nodes))


@pytest.mark.parametrize("data", [b"", b"\x00", b"no graph at all", bytes(range(256))])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        cut_graph(data)


def test_damaged_graphs_are_refused_or_cut() -> None:
    """Whatever byte is changed, there is a ValueError or a result, and nothing else."""
    data = _model(_two_sides(), inner=INNER)
    for at in range(len(data)):
        for value in (0x00, 0x7F, 0xFF):
            try:
                cut_graph(data[:at] + bytes([value]) + data[at + 1 :])
            except ValueError:
                continue
