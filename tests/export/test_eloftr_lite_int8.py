"""eloftr-lite in 8 bits: rules of its own, and weights whose errors cancel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from support.commands import CommandLine
from support.quantised import assert_claimed

from matchrt.building.parity import onnx_runner
from matchrt.errors import InternalError, MatchRTError
from matchrt.export.quantization.equalising import equalisable, equalise, measure_peaks
from matchrt.export.quantization.moments import measure_moments
from matchrt.export.quantization.quantize import plan_quantization, quantize
from matchrt.export.quantization.rounding import compensated, round_weights
from matchrt.export.quantization.selection import quant_rules
from matchrt.export.quantization.styles import ONNXRUNTIME, TENSORRT_FP8
from matchrt.families.eloftr import ELOFTR_INT8, ELOFTR_LITE_INT8
from matchrt.families.loftr import LOFTR_INT8
from matchrt.runtime.bundled import any_size_path
from matchrt.runtime.engine_file import read_engine

CONVOLUTION = "conv/Conv_0"


def bundled() -> onnx.ModelProto:
    return onnx.load_model_from_string(read_engine("eloftr-lite").data)


def any_size() -> onnx.ModelProto:
    return onnx.load(str(any_size_path("eloftr-lite")), load_external_data=False)


def test_its_own_rules_are_taken_for_it_alone() -> None:
    assert quant_rules("eloftr", "eloftr-lite") is ELOFTR_LITE_INT8
    assert quant_rules("eloftr") is quant_rules("eloftr", "eloftr") is quant_rules("eloftr", "mine") is ELOFTR_INT8
    assert quant_rules("loftr", "eloftr-lite") is LOFTR_INT8  # a name that lies about its family


def test_every_rule_hits_something() -> None:
    assert_claimed(ELOFTR_LITE_INT8, [bundled(), any_size()])


def test_a_product_without_a_rule_is_an_error() -> None:
    model = bundled()
    next(n for n in model.graph.node if n.op_type == "Conv" and "layer3.1" in n.name).name = "backbone.layer4.0/Conv_0"
    with pytest.raises(InternalError) as caught:
        plan_quantization(model, "eloftr", ONNXRUNTIME, name="eloftr-lite")
    assert caught.value.code == "precision-unruled" and "layer4" in caught.value.message


def test_which_products_are_in_8_bits() -> None:
    plan = plan_quantization(bundled(), "eloftr", ONNXRUNTIME, name="eloftr-lite")
    expected = {f"backbone.layer3.{block}.rbr_reparam/Conv_{image}" for block in (1, 2, 3, 4) for image in (0, 1)}
    assert set(plan.selection.products) == expected and plan.compensated
    # What the refinement reads is as exact as in fp32. All else gets one range for all channels.
    tensors = {f"backbone.layer3.{block}/Relu_{image}" for block in range(5) for image in (0, 1)}
    assert set(plan.placement.tensors) == set(plan.equalisable) == tensors
    assert not quant_rules("eloftr").compensated
    with pytest.raises(MatchRTError) as caught:
        plan_quantization(bundled(), "eloftr", TENSORRT_FP8, name="eloftr-lite")
    assert caught.value.code == "quantized-nothing"


def _convolution(bias: bool = True) -> onnx.ModelProto:
    """Three channels to four, a kernel of 3 x 3 with the identity in its middle, a stride of 2, uneven padding."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 3, 3, 3), scale=0.05).astype(np.float32)
    for channel in range(3):
        kernel[channel, channel, 1, 1] += 1.0
    weights = [numpy_helper.from_array(kernel, "w")]
    if bias:
        weights.append(numpy_helper.from_array(rng.normal(size=4).astype(np.float32), "b"))
    inputs = ["relu", "w", "b"] if bias else ["relu", "w"]
    relu = onnx.helper.make_node("Relu", ["x"], ["relu"], "relu/Relu_0")
    node = onnx.helper.make_node("Conv", inputs, ["y"], CONVOLUTION, strides=[2, 2], pads=[0, 1, 2, 1])
    info = [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in "xy"]
    graph = onnx.helper.make_graph([relu, node], "g", info[:1], info[1:], weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def _pictures() -> list[dict[str, np.ndarray]]:
    """Smooth and positive, as features behind a Relu are."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    drawn = [rng.normal(size=(2, 3, 40, 48)) for _ in range(4)]
    return [{"x": np.maximum(gaussian_filter(x, (0, 0, 3, 3)) * 10, 0).astype(np.float32)} for x in drawn]


def _run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    result: np.ndarray = ReferenceEvaluator(model).run(None, inputs)[0]
    return result


def test_moments_are_those_of_the_windows_that_give_results() -> None:
    model, pictures, told = _convolution(), _pictures(), []
    (moment,) = measure_moments(model, {CONVOLUTION}, pictures, lambda: told.append(1)).values()
    assert len(told) == 4 and moment.shape == (28, 28) and moment[27, 27] == 1.0
    kernel = numpy_helper.to_array(model.graph.initializer[0]).reshape(4, -1)
    bias = numpy_helper.to_array(model.graph.initializer[1])
    row = np.concatenate([kernel, bias[:, None]], axis=1)
    results = np.concatenate([_run(model, inputs).transpose(1, 0, 2, 3).reshape(4, -1) for inputs in pictures], axis=1)
    assert np.allclose(np.einsum("od,de,oe->o", row, moment, row), (results**2).mean(axis=1), rtol=0.1)


@pytest.mark.parametrize("bias", [True, False])
def test_errors_of_weights_cancel(bias: bool) -> None:
    pictures, exact = _pictures(), _convolution(bias)
    moments = measure_moments(exact, {CONVOLUTION}, pictures, lambda: None)
    errors = {}
    for known in ({}, moments):
        model = _convolution(bias)
        rounded = round_weights(model, {CONVOLUTION}, known)
        assert set(rounded) == set(known)
        kernel = numpy_helper.to_array(model.graph.initializer[0])
        scale = (np.abs(kernel).reshape(4, -1).max(axis=1) / 127).reshape(-1, 1, 1, 1)
        whole = rounded["w"].whole if known else np.rint(kernel / scale)
        assert np.abs(whole).max() <= 127 and np.abs(whole - kernel / scale).max() < 40
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array((whole * scale).astype(np.float32), "w"))
        difference = [_run(model, inputs) - _run(exact, inputs) for inputs in pictures]
        errors[bool(known)] = np.sqrt(np.mean(np.square(difference)))
    assert errors[True] < 0.5 * errors[False], errors


def test_a_bias_that_others_read_stays() -> None:
    model = _convolution()
    second = onnx.helper.make_node("Add", ["b", "b"], ["z"], "other/Add_0")
    model.graph.node.append(second)
    before = numpy_helper.to_array(model.graph.initializer[1])
    moments = measure_moments(_convolution(), {CONVOLUTION}, _pictures(), lambda: None)
    assert set(round_weights(model, {CONVOLUTION}, moments)) == {"w"}
    assert np.array_equal(numpy_helper.to_array(model.graph.initializer[1]), before)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    moment = np.zeros((4, 4))
    moment[3, 3] = moment[0, 0] = 1.0
    kernel, scale = np.array([[1.0, -0.3, 0.2]]), np.array([1 / 127], np.float32)
    whole, bias = compensated(kernel, np.array([0.5]), moment, scale)
    assert whole.tolist() == [[127, -38, 25]] and bias is not None and np.isclose(bias, 0.5, atol=1e-3).all()


def test_the_graph_has_the_rounded_weights() -> None:
    plan = plan_quantization(bundled(), "eloftr", ONNXRUNTIME, name="eloftr-lite")
    rng = np.random.default_rng(0)
    moments = {}
    for node in plan.model.graph.node:
        if node.name in plan.selection.products:
            seen = np.maximum(rng.normal(size=(3000, 112 * 9 + 1)), 0)
            seen[:, -1] = 1.0
            moments[node.input[1]] = seen.T @ seen / len(seen)
    ranges = dict.fromkeys(plan.placement.tensors, (0.0, 10.0))
    plain, _ = quantize(plan, ranges)
    model, records = quantize(plan, ranges, moments)
    assert "int8:compensated-weights" in {record.name for record in records}
    stored = [{i.name: numpy_helper.to_array(i) for i in m.graph.initializer} for m in (plain, model)]
    eighths = [name for name in stored[0] if name.endswith(".weight:q")]
    assert len(eighths) == 4
    for name in eighths:
        assert stored[1][name].dtype == np.int8 and (stored[0][name] != stored[1][name]).mean() > 0.05
        scale = name.replace(":q", ":scale")
        assert np.array_equal(stored[0][scale], stored[1][scale])


def _network() -> onnx.ModelProto:
    """Two images by the same weights: a convolution and its Relu, read by the next one; that one's by a Sigmoid too."""
    rng = np.random.default_rng(2)
    shapes = {"w1": (5, 3, 3, 3), "b1": (5,), "w2": (4, 5, 1, 1), "w3": (2, 4, 1, 1)}
    weights = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in shapes.items()]
    make, nodes = onnx.helper.make_node, []
    for i in (0, 1):
        nodes += [
            make("Conv", [f"x{i}", "w1", "b1"], [f"a{i}"], f"a/Conv_{i}"),
            make("Relu", [f"a{i}"], [f"r{i}"], f"a/Relu_{i}"),
            make("Conv", [f"r{i}", "w2"], [f"c{i}"], f"c/Conv_{i}"),
            make("Relu", [f"c{i}"], [f"s{i}"], f"c/Relu_{i}"),
            make("Conv", [f"s{i}", "w3"], [f"d{i}"], f"d/Conv_{i}"),
            make("Sigmoid", [f"s{i}"], [f"e{i}"], f"e/Sigmoid_{i}"),
        ]
    info = {n: onnx.helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, None, None, None]) for n in
            ("x0", "x1", "d0", "d1", "e0", "e1")}  # fmt: skip
    graph = onnx.helper.make_graph(nodes, "g", [info["x0"], info["x1"]],
                                   [info[n] for n in ("d0", "d1", "e0", "e1")], weights)  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def test_equal_channels_change_no_result() -> None:
    model, rng = _network(), np.random.default_rng(3)
    tensors = ("r0", "r1", "s0", "s1")
    assert sorted(equalisable(model, (*tensors, "a0", "x0"))) == sorted(tensors)
    inputs = [{"x0": rng.normal(size=(1, 3, 8, 9)).astype(np.float32),
               "x1": rng.normal(size=(1, 3, 6, 7)).astype(np.float32)} for _ in range(3)]  # fmt: skip
    peaks = measure_peaks(model, tensors, inputs, lambda: None)
    assert {name: value.shape for name, value in peaks.items()} == {"r0": (5,), "r1": (5,), "s0": (4,), "s1": (4,)}
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    assert equalise(changed, peaks) == 4
    # The next convolution takes the factors in; behind a Sigmoid's input they are a product.
    assert [node.output[0] for node in changed.graph.node if node.op_type == "Mul"] == ["s0/size", "s1/size"]
    for given in inputs:
        before, after = (onnx_runner(m)(given) for m in (model, changed))
        assert all(np.allclose(before[name], after[name], rtol=1e-4, atol=1e-5) for name in before)
    # The images share the weights, so the larger peak of both is that of every channel.
    now = measure_peaks(changed, tensors, inputs, lambda: None)
    for pair in (("r0", "r1"), ("s0", "s1")):
        largest = np.max([now[name] for name in pair], axis=0)
        assert np.allclose(largest, largest[0], rtol=1e-4)


def test_a_weight_with_other_readers_is_left_alone() -> None:
    model = _network()
    model.graph.node.append(onnx.helper.make_node("Identity", ["w1"], ["other"], "other/Identity_0"))
    assert sorted(equalisable(model, ("r0", "r1", "s0", "s1"))) == ["s0", "s1"]
    # One image's tensor alone cannot change either: the other's has the same weights.
    assert equalisable(_network(), ("r0",)) == ()


@pytest.mark.slow
def test_a_build_passes_the_gate(cli: CommandLine, tmp_path: Path) -> None:
    """With drawn scenes, as users without a calibration list have it."""
    ran = cli("build", "eloftr-lite", "--precision", "int8", "--output", tmp_path / "lite.onnx", "--json")
    assert ran.code == 0, ran.err
    manifest = ran.json["manifest"]
    assert manifest["precision"] == "int8" and manifest["checks"]["precision_kept"] >= 0.955
    assert {p["name"]: p["changed"] for p in manifest["passes"]}["int8:deep-convolution"]
