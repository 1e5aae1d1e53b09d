"""Q/DQ in the graph: numbers, places, what both runtimes make of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from support.small import small_engine

from matchrt.bench.pairs import drawn_pairs
from matchrt.building.calibration.style import style_for
from matchrt.building.judge import judge_graph
from matchrt.errors import InternalError, MatchRTError
from matchrt.export.precision.graph_types import element_types
from matchrt.export.quantization.quantize import QuantPlan, plan_quantization, quantize
from matchrt.export.quantization.ranges import measure_ranges
from matchrt.export.quantization.scale_types import require_float_scales
from matchrt.export.quantization.scales import activation_affine, quantize_bias, quantize_weight
from matchrt.export.quantization.styles import (
    ONNXRUNTIME,
    TENSORRT,
    TENSORRT_FP8,
    TENSORRT_MATRICES,
    QuantStyle,
)
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.opening import open_session


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    return small_engine(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def ranges(small: EngineFile) -> dict[str, tuple[float, float]]:
    """Of every tensor that any style quantises, over two drawn pairs."""
    model = onnx.load_model_from_string(small.data)
    plans = [plan_quantization(model, "loftr", style) for style in (TENSORRT, ONNXRUNTIME)]
    tensors = sorted({name for plan in plans for name in plan.placement.tensors})
    with Matcher(open_session(small)) as matcher:
        pairs = drawn_pairs(small.manifest.input, (1, 2))
        inputs = [matcher.adapter.inputs(pair.image0, pair.image1) for pair in pairs]
    return measure_ranges(plans[0].model, tensors, inputs, "max", lambda: None)


def planned(small: EngineFile, style: QuantStyle, keep: tuple[str, ...] = ()) -> QuantPlan:
    return plan_quantization(onnx.load_model_from_string(small.data), "loftr", style, keep)


def test_scales_cover_the_range() -> None:
    for low, high in ((-3.0, 1.7), (0.0, 0.01), (-1e-9, 0.0), (0.0, 0.0)):
        affine = activation_affine(low, high, "int8")
        assert affine.scale.dtype == np.float32 and affine.zero == 0
        assert affine.scale * 127 >= max(-low, high) * 0.999999 and affine.scale <= max(max(-low, high) / 126.9, 6e-8)
        unsigned = activation_affine(low, high, "uint8")
        assert (0 - unsigned.zero.astype(int)) * unsigned.scale <= low + unsigned.scale
        assert (255 - unsigned.zero.astype(int)) * unsigned.scale >= high - unsigned.scale
    assert activation_affine(0.5, 2.0, "uint8").zero == 0  # zero padding stays exact


def test_weights_are_symmetric_per_channel() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
    values *= np.array([1, 10, 0.01, 1e-3, 0], np.float32)[:, None, None, None]
    whole, affine = quantize_weight(values, 0, "int8")
    assert whole.dtype == np.int8 and affine.scale.shape == (5,) and not affine.zero.any()
    assert np.abs(whole[:4]).reshape(4, -1).max(axis=1).tolist() == [127] * 4
    error = np.abs(whole * affine.scale[:, None, None, None] - values)
    assert (error <= affine.scale[:, None, None, None] * 0.5001).all()
    bias, unit = quantize_bias(np.ones(5, np.float32), np.float32(0.1), affine.scale)
    assert bias.dtype == np.int32 and (np.abs(bias * unit - 1) <= 0.5001 * unit)[:4].all()


def test_graph_for_tensorrt(small: EngineFile, ranges: dict[str, tuple[float, float]]) -> None:
    model, records = quantize(planned(small, TENSORRT), ranges)
    graph, constants = model.graph, {i.name: i for i in model.graph.initializer}
    pairs, types = Counter(node.op_type for node in graph.node), element_types(model)
    assert pairs["QuantizeLinear"] > 50 and model.opset_import[0].version == 19
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not numpy_helper.to_array(constants[node.input[2]]).any()
            assert constants[node.input[2]].data_type == TensorProto.INT8
            whole = node.input[0] if node.op_type == "QuantizeLinear" else node.output[0]
            # Scales are float32, and so is what is rounded with them: vendors' products with float16 scales overflow.
            assert constants[node.input[1]].data_type == types[whole] == TensorProto.FLOAT, node.name
    halves = Counter(types[node.output[0]] for node in graph.node if node.op_type in ("Add", "Softmax", "Conv"))
    assert halves[TensorProto.FLOAT16] > 20, "the rest is fp16"
    kinds = Counter(i.data_type for i in graph.initializer if len(i.dims) > 1)
    assert kinds[TensorProto.INT8] > 60
    said = {record.name: record.summary for record in records}
    assert "similarity" in "".join(said) and "near-equal" in said["int8:similarity"]
    assert "8 bits end" in said["int8:softmax and exponentials"]
    quantised = {n.name.rpartition("/")[0] for n in graph.node if n.op_type in ("Conv", "MatMul")
                 and n.input[1].endswith("/dequantize")}  # fmt: skip
    floating = {"network", "coarse_matching", "fine_matching", "backbone.conv1", "backbone.layer1.0.conv1"}
    assert not quantised & floating and {"backbone.layer2.0.conv1", "loftr_coarse.layers.0.q_proj"} <= quantised


@pytest.mark.parametrize("style", [TENSORRT, TENSORRT_MATRICES, TENSORRT_FP8])
def test_no_cast_separates_what_one_kernel_computes(
    small: EngineFile, ranges: dict[str, tuple[float, float]], style: QuantStyle
) -> None:
    """From the dequantised factors through the product to its Relu, all is float32, with one Cast behind it."""
    plan = planned(small, style)
    model, _ = quantize(plan, ranges)
    types, producers = element_types(model), {name: node for node in model.graph.node for name in node.output}
    products = [node for node in model.graph.node if node.name in plan.selection.products]
    assert len(products) == len(plan.selection.products) > 40
    for node in products:
        assert {producers[name].op_type for name in node.input[:2]} == {"DequantizeLinear"}, node.name
        assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT}, node.name
    results = {node.output[0] for node in products}
    relus = [node for node in model.graph.node if node.op_type == "Relu" and node.input[0] in results]
    assert relus or not style.convolutions  # those of MLPs follow the sum of two products
    assert {types[node.output[0]] for node in relus} <= {TensorProto.FLOAT}


def test_a_float16_scale_is_refused(small: EngineFile, ranges: dict[str, tuple[float, float]]) -> None:
    model, _ = quantize(planned(small, TENSORRT), ranges)
    require_float_scales(model)
    for op in ("QuantizeLinear", "DequantizeLinear"):
        spoilt = onnx.ModelProto()
        spoilt.CopyFrom(model)
        name = next(node.input[1] for node in spoilt.graph.node if node.op_type == op)
        scale = next(weight for weight in spoilt.graph.initializer if weight.name == name)
        scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale).astype(np.float16), name))
        with pytest.raises(InternalError) as caught:
            require_float_scales(spoilt)
        assert caught.value.code == "pass-invalid" and "scale" in caught.value.message


def test_onnx_runtime_computes_in_8_bits(
    small: EngineFile, ranges: dict[str, tuple[float, float]], tmp_path: Path
) -> None:
    import onnxruntime

    model, _ = quantize(planned(small, ONNXRUNTIME), ranges)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(n.op_type for n in onnx.load(tmp_path / "optimised.onnx", load_external_data=False).graph.node)
    # Both images of a dynamic engine go through the backbone: 2 x 21 convolutions, none left in floating point but
    # the stem.
    assert kinds["QLinearConv"] == 42 and kinds["Conv"] == 2 and kinds["QLinearAdd"] >= 12
    assert kinds["MatMulIntegerToFloat"] >= 60


@pytest.mark.parametrize("style", [ONNXRUNTIME, TENSORRT, TENSORRT_FP8])
def test_matches_survive(small: EngineFile, ranges: dict[str, tuple[float, float]], style: QuantStyle) -> None:
    model, _ = quantize(planned(small, style), ranges)
    verdict = judge_graph(small, model, "int8", drawn_pairs(small.manifest.input, (50,))).verdict
    # One small pair is not what the limits are for; a broken graph keeps nothing.
    agreement = verdict.verification.agreement
    assert agreement.expected > 100 and agreement.share(1.0) > 0.9, agreement
    assert model.ByteSize() < 0.95 * len(small.data)


def test_a_saturated_scale_is_stopped(small: EngineFile, ranges: dict[str, tuple[float, float]]) -> None:
    plan = planned(small, ONNXRUNTIME)
    worst = max((n for n in plan.placement.tensors if n.startswith("backbone.layer2")), key=lambda n: ranges[n][1])
    broken = {**ranges, worst: (0.0, ranges[worst][1] / 20)}
    verdict = judge_graph(small, quantize(plan, broken)[0], "int8", drawn_pairs(small.manifest.input, (50,))).verdict
    with pytest.raises(MatchRTError) as caught:
        verdict.require("int8")
    assert caught.value.code == "precision-gate" and "within 1 px" in caught.value.message


def test_keep_fp32(small: EngineFile) -> None:
    plan = planned(small, TENSORRT, ("loftr_fine", "backbone.layer2.*.conv2"))
    assert not any(name.startswith(("loftr_fine", "backbone.layer2.0.conv2")) for name in plan.selection.products)
    assert any(name.startswith("backbone.layer2.0.conv1") for name in plan.selection.products)
    assert plan.selection.kept > 10
    assert planned(small, TENSORRT, ("backbone.layer1.0",)).selection.kept == 0  # in floating point as it is
    with pytest.raises(MatchRTError) as caught:
        planned(small, TENSORRT, ("no.such.module",))
    assert caught.value.code == "keep-unused"
    with pytest.raises(MatchRTError) as caught:
        planned(small, TENSORRT, ("backbone", "loftr_coarse", "loftr_fine", "fine_preprocess"))
    assert caught.value.code == "quantized-nothing"


def test_fp8_leaves_the_last_layers_mlp(small: EngineFile) -> None:
    """They cost two thirds of what fp8 costs (docs/quantization.md); in int8 they stand."""
    last = {f"loftr_coarse.layers.{layer}.mlp.{part}/MatMul_" for layer in (6, 7) for part in (0, 2)}

    def held(style: QuantStyle) -> set[str]:
        return {name.rstrip("0123456789") for name in planned(small, style).selection.products} & last

    assert not held(TENSORRT_FP8) and held(TENSORRT) == held(TENSORRT_MATRICES) == held(ONNXRUNTIME) == last
    taken = planned(small, TENSORRT_FP8).selection.products
    assert {"loftr_coarse.layers.5.mlp.2/MatMul_0", "loftr_coarse.layers.7.q_proj/MatMul_0"} <= set(taken)


def test_styles() -> None:
    assert style_for("int8", "onnxruntime") is ONNXRUNTIME and style_for("int8", "tensorrt", "10.9.0") is TENSORRT
    assert style_for("int8", "tensorrt_rtx", "1.4.0.76") is TENSORRT_MATRICES
    assert style_for("int8", "tensorrt_rtx", "1.7.1.116") is TENSORRT and style_for("fp8", "tensorrt") is TENSORRT_FP8
