"""What a self-test is for: engines that compute something else, run by ONNX Runtime."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.small import small_engine

from matchrt.bench.pairs import drawn_pairs
from matchrt.bench.variant import open_variant
from matchrt.building.self_test import make_self_test, with_limits
from matchrt.export.quantization.quantize import plan_quantization, quantize
from matchrt.export.quantization.ranges import measure_ranges
from matchrt.export.quantization.styles import TENSORRT
from matchrt.manifest import SelfTest
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.opening import open_session
from matchrt.runtime.self_test.answer import SelfTestResult
from matchrt.runtime.self_test.prove import run_self_test


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    return small_engine(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def asked(small: EngineFile) -> SelfTest:
    """The fp32 engine's own."""
    with closing(open_session(small)) as session:
        made = make_self_test(session)
        assert made is not None and made.matches > 50
        assert not run_self_test(session, made).failures(made)
    return made


@pytest.fixture(scope="module")
def int8(small: EngineFile) -> onnx.ModelProto:
    plan = plan_quantization(onnx.load_model_from_string(small.data), "loftr", TENSORRT)
    with Matcher(open_session(small)) as matcher:
        pairs = drawn_pairs(small.manifest.input, (1, 2))
        inputs = [matcher.adapter.inputs(pair.image0, pair.image1) for pair in pairs]
    ranges = measure_ranges(plan.model, sorted(plan.placement.tensors), inputs, "max", lambda: None)
    return quantize(plan, ranges)[0]


def answered(small: EngineFile, model: onnx.ModelProto, asked: SelfTest) -> SelfTestResult:
    with closing(open_variant(small, model).session) as session:
        return run_self_test(session, asked)


def tampered(model: onnx.ModelProto, tensor: str, factor: float) -> onnx.ModelProto:
    """The graph with another scale where one quantised activation becomes floating point again."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    whole = {n.output[0] for n in made.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == tensor}
    readers = [n for n in made.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in whole]
    weights = {weight.name: weight for weight in made.graph.initializer}
    assert readers
    for number, node in enumerate(readers):
        value = numpy_helper.to_array(weights[node.input[1]]) * np.float32(factor)
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), f"tampered_{number}"))
        node.input[1] = f"tampered_{number}"
    return made


@pytest.fixture(scope="module")
def judged(small: EngineFile, int8: onnx.ModelProto, asked: SelfTest) -> SelfTest:
    """The int8 engine's, as a build that judged it by emulation writes it."""
    return with_limits(asked, "int8", answered(small, int8, asked))


def test_an_int8_graph_passes_as_int8_and_not_as_fp16(
    small: EngineFile, int8: onnx.ModelProto, asked: SelfTest, judged: SelfTest
) -> None:
    found = answered(small, int8, asked)
    assert not found.failures(judged) and not found.failures(with_limits(asked, "int8", None)), found
    assert found.failures(with_limits(asked, "fp16", None)), found


# Of the quantised tensors, some that decide the matches. What changes no match is not refused.
@pytest.mark.parametrize(
    ("tensor", "factor"),
    [
        ("backbone.layer3.0/Relu_1/to_fp32", 8.0),
        ("backbone.layer3.0/Relu_1/to_fp32", 1 / 8),
        ("loftr_coarse.layers.0/Add_1/to_fp32", 8.0),
        ("loftr_coarse.layers.3.norm1/LayerNormalization_1/to_fp32", 8.0),
        ("fine_preprocess/Gather_1/to_fp32", 8.0),
        ("fine_preprocess/Gather_1/to_fp32", 1 / 8),
    ],
)
def test_a_tampered_scale_is_caught(
    small: EngineFile, int8: onnx.ModelProto, judged: SelfTest, tensor: str, factor: float
) -> None:
    found = answered(small, tampered(int8, tensor, factor), judged)
    assert found.failures(judged), found
