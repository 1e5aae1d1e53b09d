"""fp32 products on kernels that round their factors to TF32, emulated: ONNX Runtime computes what is written."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from matchrt.bench.scene import image_pair
from matchrt.export.precision.exact_products import ExactProducts, _parts, write_exact_products
from matchrt.runtime.engine_file import read_engine

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def run(model: onnx.ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def in_tf32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the factors of every product rounded to 11 bits, by Veltkamp's splitting."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    graph = rounded.graph
    graph.initializer.append(numpy_helper.from_array(np.float32(2**13 + 1), "veltkamp"))
    nodes, done = [], set()
    for original in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.op_type in ("MatMul", "Conv") and node.name != "counting":
            for position in (0, 1):
                name = node.input[position]
                node.input[position] = f"{name}/tf32"
                if name not in done:
                    done.add(name)
                    nodes += [
                        helper.make_node("Mul", [name, "veltkamp"], [f"{name}/times"]),
                        helper.make_node("Sub", [f"{name}/times", name], [f"{name}/less"]),
                        helper.make_node("Sub", [f"{name}/times", f"{name}/less"], [f"{name}/tf32"]),
                    ]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return rounded


def products(groups: int = 1) -> onnx.ModelProto:
    """A convolution, a product with weights, one of a tensor with itself, and one that is not in fp32."""
    shapes = {"kernel": (32, 32 // groups, 3, 3), "bias": (32,), "linear": (48, 40)}
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["features"], "conv", pads=[1, 1, 1, 1], group=groups),
        helper.make_node("MatMul", ["features", "linear"], ["projected"], "linear"),
        helper.make_node("Transpose", ["projected"], ["turned"], "turn", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["projected", "turned"], ["similarity"], "similarity"),
        helper.make_node("Cast", ["x"], ["whole"], "cast", to=TensorProto.INT32),
        helper.make_node("MatMul", ["whole", "counts"], ["counted"], "counting"),
    ]
    values = [numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), n) for n, shape in shapes.items()]
    values.append(numpy_helper.from_array(np.ones((48, 2), np.int32), "counts"))
    outputs = [("features", (1, 32, 24, 48)), ("projected", (1, 32, 24, 40)), ("similarity", (1, 32, 24, 24))]
    graph = helper.make_graph(
        nodes, "products", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 32, 24, 48))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs]
        + [helper.make_tensor_value_info("counted", TensorProto.INT32, (1, 32, 24, 2))], values,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def errors(model: onnx.ModelProto, expected: dict[str, Array], x: Array) -> dict[str, float]:
    found = run(in_tf32(model), {"x": x})
    return {name: float(np.abs(found[name] - value).max() / np.abs(value).max()) for name, value in expected.items()}


def test_tf32_kernels_give_fp32() -> None:
    model, x = products(), RNG.normal(size=(1, 32, 24, 48)).astype(np.float32)
    before = model.SerializeToString()
    exact, records = write_exact_products(model)
    assert model.SerializeToString() == before
    expected = run(model, {"x": x})
    plain, ours = errors(model, expected, x), errors(exact, expected, x)
    assert all(plain[name] > 1e-4 for name in ("features", "projected", "similarity"))
    assert all(ours[name] < 3e-6 for name in ("features", "projected", "similarity"))
    assert ours["counted"] == 0.0
    assert [(record.name, record.changed) for record in records] == [
        ("fold-batch-norm", False),
        ("exact-products", True),
    ]
    assert records[-1].summary.startswith("3 products of four times the depth") and "1 stay" in records[-1].summary


def test_a_tensor_is_split_once() -> None:
    exact, _ = write_exact_products(products())
    assert sum(node.op_type == "Sub" for node in exact.graph.node) == 4  # x, features, projected, turned
    assert len({node.name for node in exact.graph.node}) == len(exact.graph.node)
    names = {weight.name for weight in exact.graph.initializer}
    assert "kernel" not in names and {"bias", "counts"} <= names  # what nothing reads any more is gone


def test_convolutions_with_groups_stay() -> None:
    exact, records = write_exact_products(products(groups=2))
    (conv,) = (node for node in exact.graph.node if node.op_type == "Conv")
    assert list(conv.input) == ["x", "kernel", "bias"]
    assert "2 products" in records[-1].summary and "2 stay" in records[-1].summary


def test_weights_too_large_to_be_held_four_times() -> None:
    result = ExactProducts(max_weight_bytes=1000).apply(products())
    assert result.changes == 1 and "too large" in result.summary
    assert {"kernel", "linear"} <= {weight.name for weight in result.model.graph.initializer}


def test_constants_are_split_as_the_graph_splits() -> None:
    """Constants in NumPy, all else by Cast: both to nearest, ties to even."""
    values = np.concatenate([RNG.normal(size=4000), [1 + 2**-8, 1 + 3 * 2**-8, 0.0, -0.0, 1e-30, 3e38]])
    values = values.astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["half"], ["high"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape) for name in ("x", "high")]
    model = helper.make_model(helper.make_graph(nodes, "round", ends[:1], ends[1:]),
                              opset_imports=[helper.make_opsetid("", 18)], ir_version=9)  # fmt: skip
    rest, high = _parts(values)
    assert np.array_equal(run(model, {"x": values})["high"], high) and np.array_equal(high + rest, values)


@pytest.mark.slow
def test_the_bundled_network_keeps_its_matches() -> None:
    """In emulated TF32 the bundled network's matches move; with split products they do not."""
    model = onnx.load_model_from_string(read_engine("loftr-lite").data)
    exact, _ = write_exact_products(model)
    images = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[None, :, :, None] for image in image_pair(160, 192)[:2]]
    pair = dict(zip(("image0", "image1"), images, strict=True))
    expected, plain, ours = (run(graph, pair) for graph in (model, in_tf32(model), in_tf32(exact)))
    assert int(expected["num_matches"][0]) > 50
    assert moved(expected, plain) > 3e-4 and moved(expected, ours) < 1e-4


def moved(expected: dict[str, Array], found: dict[str, Array]) -> float:
    """The farthest that a match lies from where it was, pixels; of those at the same place in the first image."""
    points = [
        {tuple(point): end for point, end in zip(r["keypoints0"][0, :n].tolist(), r["keypoints1"][0, :n], strict=True)}
        for r, n in ((result, int(result["num_matches"][0])) for result in (expected, found))
    ]
    common = points[0].keys() & points[1].keys()
    assert len(common) >= 0.99 * len(points[0])
    return max(float(np.abs(points[0][point] - points[1][point]).max()) for point in common)
