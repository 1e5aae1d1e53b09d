"""Two images' batch is taken apart where that is known to change nothing, and joined again elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from matchrt.export.unbatch import unbatch
from matchrt.runtime.split.cut import cut_graph

SHAPE = (1, 4, 6, 8)
RANDOM = np.random.default_rng(7)
Node = tuple[str, list[str], dict[str, Any]]


def _weights() -> dict[str, np.ndarray]:
    ints = {
        "axes0": [0], "axes1": [1], "axes_last": [-1], "shape": [2, 4, 48], "heads": [2, 4, 6, 8],
        "flat": [48, 8],
        "pads": [0, 0, 1, 0, 0, 0, 0, 2], "row_pads": [1, 0, 0, 0, 0, 0, 0, 0], "sizes": [2, 4, 12, 16],
        "start": [1], "end": [3], "row_end": [1], "axis2": [2], "axis0": [0],
    }  # fmt: skip
    floats = {
        "kernel": (5, 4, 3, 3), "bias": (5,), "matrix": (8, 8), "left": (3, 6), "row": (1, 4, 1, 1),
        "scale": (4,), "shift": (4,), "mean": (4,),
    }  # fmt: skip
    found = {name: np.array(value, np.int64) for name, value in ints.items()}
    found |= {name: RANDOM.random(shape, np.float32) for name, shape in floats.items()}
    half = RANDOM.random((1, 4, 6, 8), np.float32)
    return found | {
        "first_axis": np.array(0, np.int64),
        "two": np.float32(2.0),
        "var": np.ones(4, np.float32),
        "factors": np.array([1, 1, 2, 2], np.float32),
        "grow": np.array([2, 1, 1, 1], np.float32),
        "equal_halves": np.concatenate([half, half]),
        "unequal_halves": np.concatenate([half, half + 1]),
        "norm": np.ones(8, np.float32),
    }


WEIGHTS = _weights()


def _model(chain: list[Node]) -> onnx.ModelProto:
    """A batch of both images through a chain of nodes (`x` is the one before), and the difference of its halves."""
    nodes = [
        helper.make_node("Mul", ["image0", "two"], ["a0"]),
        helper.make_node("Mul", ["image1", "two"], ["a1"]),
        helper.make_node("Concat", ["a0", "a1"], ["t0"], axis=0),
    ]
    for index, (op, inputs, attributes) in enumerate(chain):
        names = [f"t{index}" if name == "x" else name for name in inputs]
        nodes.append(helper.make_node(op, names, [f"t{index + 1}"], **attributes))
    nodes.append(helper.make_node("Split", [f"t{len(chain)}"], ["first", "second"], axis=0, num_outputs=2))
    nodes.append(helper.make_node("Sub", ["first", "second"], ["scores"]))
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(f"image{side}", TensorProto.FLOAT, SHAPE) for side in (0, 1)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in WEIGHTS.items() if name in read],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)  # the shape of the output is told


def _run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(3)
    found = session.run(None, {f"image{side}": random.random(SHAPE, np.float32) for side in (0, 1)})
    return np.asarray(found[0])


APART: dict[str, list[Node]] = {
    "elementwise": [("Relu", ["x"], {}), ("Add", ["x", "row"], {}), ("Mul", ["two", "x"], {}), ("Sub", ["x", "x"], {})],
    "constant of equal halves": [("Mul", ["x", "equal_halves"], {})],
    "convolution": [("Conv", ["x", "kernel", "bias"], {"pads": [1, 1, 1, 1]}), ("LeakyRelu", ["x"], {})],
    "norms": [
        ("BatchNormalization", ["x", "scale", "shift", "mean", "var"], {}),
        ("LayerNormalization", ["x", "norm"], {"axis": -1}),
    ],
    "products": [("MatMul", ["x", "matrix"], {}), ("MatMul", ["left", "x"], {})],
    "softmax": [("Softmax", ["x"], {"axis": 1})],
    "reductions": [("ReduceSum", ["x", "axes1"], {"keepdims": 1}), ("ReduceMax", ["x", "axes_last"], {"keepdims": 0})],
    "shapes": [
        ("Transpose", ["x"], {"perm": [0, 2, 1, 3]}),
        ("Transpose", ["x"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["x", "shape"], {}),
        ("Unsqueeze", ["x", "axes1"], {}),
        ("Squeeze", ["x", "axes1"], {}),
    ],
    "rows of a table": [("Reshape", ["x", "flat"], {}), ("Relu", ["x"], {})],
    "parts": [
        ("Slice", ["x", "start", "end", "axis2"], {}),
        ("Concat", ["x", "x"], {"axis": 1}),
        ("Pad", ["x", "pads"], {}),
    ],
    "another axis first": [
        ("Reshape", ["x", "heads"], {}),
        ("Transpose", ["x"], {"perm": [2, 0, 1, 3]}),
        ("Slice", ["x", "axis0", "row_end", "axis0"], {}),
        ("Squeeze", ["x", "axis0"], {}),
        ("Softmax", ["x"], {"axis": -1}),
    ],
    "resize by factors": [("Resize", ["x", "", "factors"], {"mode": "linear"})],
    "resize to a size": [("Resize", ["x", "", "", "sizes"], {"mode": "nearest"})],
}
JOINED: dict[str, list[Node]] = {
    "constant of unequal halves": [("Mul", ["x", "unequal_halves"], {})],
    "softmax over both images": [("Softmax", ["x"], {"axis": 0})],
    "sum over both images": [("ReduceSum", ["x", "axes0"], {"keepdims": 1}), ("Concat", ["x", "x"], {"axis": 0})],
    "rows beside rows": [("Slice", ["x", "axis0", "row_end", "axis0"], {}), ("Concat", ["x", "x"], {"axis": 0})],
    "a row of padding": [("Pad", ["x", "row_pads"], {}), ("Slice", ["x", "start", "end", "axis0"], {})],
    "twice as many rows": [("Resize", ["x", "", "grow"], {"mode": "nearest"})],
    "products of another axis": [("Transpose", ["x"], {"perm": [1, 0, 2, 3]}), ("MatMul", ["x", "matrix"], {})],
    "an operator that nobody knows": [("CumSum", ["x", "first_axis"], {})],
}


@pytest.mark.parametrize("name", APART)
def test_chains_that_are_taken_apart(name: str) -> None:
    model = _model(APART[name])
    before = _run(model)
    assert unbatch(model) == len(APART[name])
    onnx.checker.check_model(model)
    assert not any(node.op_type == "Concat" and node.output[0].startswith("t") for node in model.graph.node[:3])
    assert not any(node.name.endswith("/joined") for node in model.graph.node)
    np.testing.assert_array_equal(_run(model), before)
    # Each image's nodes are the same, so the first part has each of them once.
    features = onnx.load_model_from_string(cut_graph(model.SerializeToString()).features)
    assert len(features.graph.node) <= len(APART[name]) + 2


@pytest.mark.parametrize("name", JOINED)
def test_chains_that_stay_together(name: str) -> None:
    """The results stay what they were, and so do the nodes that see both images."""
    model = _model(JOINED[name])
    before = _run(model)
    count = unbatch(model)
    onnx.checker.check_model(model)
    assert count < len(JOINED[name])
    np.testing.assert_array_equal(_run(model), before)


@pytest.mark.parametrize(
    ("chain", "kept"),
    [
        ([("Conv", ["x", "kernel", "bias"], {}), ("CumSum", ["x", "first_axis"], {})], "Conv"),
        ([("Relu", ["x"], {}), ("Mul", ["x", "two"], {}), ("CumSum", ["x", "first_axis"], {})], "Mul"),
        ([("Relu", ["x"], {}), ("Div", ["x", "two"], {}), ("CumSum", ["x", "first_axis"], {})], "Div"),
    ],
)
def test_what_backends_compute_with_the_next_node_stays_whole(chain: list[Node], kept: str) -> None:
    """A convolution and a factor are not taken apart where the images meet in the next node."""
    model = _model(chain)
    before = _run(model)
    unbatch(model)
    nodes = [node for node in model.graph.node if node.op_type == kept and not node.input[0].startswith("image")]
    assert [node.output[0] for node in nodes] == [f"t{len(chain) - 1}"]
    np.testing.assert_array_equal(_run(model), before)


def test_halves_by_slices_are_found() -> None:
    """Exporters write either form; the second image's half may end far beyond the batch."""
    model = _model([("Relu", ["x"], {})])
    graph = model.graph
    kept = [node for node in graph.node if node.op_type != "Split"]
    known = {"axis0": [0], "start": [1], "row_end": [1], "far": [1 << 40]}
    graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in known.items())
    kept.insert(-1, helper.make_node("Slice", ["t1", "axis0", "row_end", "axis0"], ["first"]))
    kept.insert(-1, helper.make_node("Slice", ["t1", "start", "far", "axis0"], ["second"]))
    del graph.node[:]
    graph.node.extend(kept)
    before = _run(model)
    assert unbatch(model) == 1 and not any(node.op_type == "Slice" for node in model.graph.node)
    np.testing.assert_array_equal(_run(model), before)


def test_a_batch_of_one_image_twice_is_no_batch_of_both() -> None:
    model = _model([("Relu", ["x"], {})])
    concat = next(node for node in model.graph.node if node.op_type == "Concat")
    concat.input[1] = "a0"
    assert unbatch(model) == 0


@pytest.mark.slow
def test_a_static_engine_of_the_bundled_model_falls_apart(tmp_path: Path) -> None:
    from matchrt.building.pipeline import BuildRequest, build
    from matchrt.store import EngineStore

    built = build(BuildRequest("loftr-lite", height=128, width=160), EngineStore(tmp_path))
    model = onnx.load(str(built.path))
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    assert unbatch(model) > 80
    assert sum(node.op_type == "Conv" for node in model.graph.node) == 2 * convolutions
