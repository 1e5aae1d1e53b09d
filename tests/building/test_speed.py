"""Which products 8 bits make faster: kinds of products, graphs of one kind, and the choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.commands import CommandLine
from support.small import small_engine

from matchrt.bench.pairs import drawn_pairs
from matchrt.building.speed import ProductTimes, faster_products
from matchrt.errors import MatchRTError
from matchrt.export.quantization.quantize import plan_quantization
from matchrt.export.quantization.ranges import tensor_shapes
from matchrt.export.quantization.scale_types import require_float_scales
from matchrt.export.quantization.single import COPIES, ProductKind, kinds_of, single_product
from matchrt.export.quantization.styles import TENSORRT
from matchrt.runtime.adapter import PairAdapter


def kind(op: str, values: tuple[int, ...], weight: tuple[int, ...], **attributes: object) -> ProductKind:
    made = [onnx.helper.make_attribute(name, value) for name, value in attributes.items()]
    return ProductKind(op, tuple(sorted(a.SerializeToString() for a in made)), values, weight)


KINDS = (
    kind("MatMul", (2, 50, 64), (64, 96)),
    kind("Gemm", (50, 64), (32, 64), transB=1),
    kind("Conv", (2, 16, 20, 24), (32, 16, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
)


@pytest.mark.parametrize("one", KINDS, ids=str)
def test_a_product_alone_computes_what_the_network_computes(one: ProductKind) -> None:
    """In fp16 and in int8, with the same shapes; int8 is written as in whole graphs, with float32 scales."""
    import onnxruntime

    inputs = {f"x{i}": np.random.default_rng(i).normal(size=one.values).astype(np.float16) for i in range(COPIES)}
    results = []
    for activations in (None, "int8"):
        model = single_product(one, activations)  # type: ignore[arg-type]
        onnx.checker.check_model(model, full_check=True)
        require_float_scales(model)
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results.append(session.run(None, inputs))
    for half, eighth in zip(*results, strict=True):
        assert half.shape == eighth.shape and half.dtype == eighth.dtype == np.float16
        assert np.abs(half - eighth).mean() < 0.1 * np.abs(half).mean()


def test_kinds_of_a_network(tmp_path: Path) -> None:
    small = small_engine(tmp_path)
    plan = plan_quantization(onnx.load_model_from_string(small.data), "loftr", TENSORRT)
    (pair,) = drawn_pairs(small.manifest.input, (1,))
    inputs = PairAdapter(small.manifest).inputs(pair.image0, pair.image1)
    kinds = kinds_of(plan.model, plan.selection.products, tensor_shapes(plan.model, plan.placement.tensors, inputs))
    assert sum(map(len, kinds.values())) == len(plan.selection.products) and 5 < len(kinds) < 60
    assert any(one.op_type == "Conv" and one.values[2:] == (80, 112) for one in kinds)
    assert all(len(one.values) >= 2 and len(one.weight) >= 2 for one in kinds)


def times(*pairs: tuple[float, float]) -> list[ProductTimes]:
    return [ProductTimes(KINDS[i % 3], (f"a{i}", f"b{i}"), fp16, eighth) for i, (fp16, eighth) in enumerate(pairs)]


def test_only_what_gains_more_than_noise_is_chosen() -> None:
    assert faster_products(times((1.0, 0.5), (1.0, 0.98), (1.0, 1.5)), "int8") == ("a0", "b0")
    with pytest.raises(MatchRTError) as caught:
        faster_products(times((1.0, 0.99), (2.0, 3.0)), "fp8")
    assert caught.value.code == "precision-slower" and "Gemm" not in caught.value.message
    assert "0.9900 ms instead of 1.0000" in caught.value.message and "fp16" in caught.value.remedy


def test_it_needs_the_gpu_and_8_bits(cli: CommandLine, tmp_path: Path) -> None:
    small = small_engine(tmp_path)
    ran = cli.fails("device-missing", "build", small.path, "--precision", "int8", "--only-faster", "--store", tmp_path)
    assert "--only-faster" in ran.err
    cli.fails("calibration-unused", "build", small.path, "--precision", "fp16", "--only-faster", "--store", tmp_path)
