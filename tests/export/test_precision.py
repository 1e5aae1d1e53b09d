"""fp16 in the graph: who gets which type and why, and that types, names and interface hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.exports import exported_once
from support.quantised import assert_claimed

import matchrt
from matchrt.building.parity import require_parity, run_onnx, sample_inputs
from matchrt.errors import InternalError, MatchRTError
from matchrt.export import precision
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.export.passes.base import run_passes
from matchrt.export.passes.standard import standard_passes
from matchrt.export.precision.emulation import emulate
from matchrt.export.precision.families import model_to_fp16
from matchrt.export.precision.graph_types import element_types
from matchrt.export.quantization.selection import quant_rules
from matchrt.export.to_onnx import export_onnx
from matchrt.export.weights.network import load_network
from matchrt.families.base import Preprocess
from matchrt.families.loftr import LOFTR_FP16
from matchrt.families.registry import families, get_spec
from matchrt.families.rules import Nodes, PrecisionRules, Rule, fits
from matchrt.manifest import PassRecord, Profile

LITE = Path(matchrt.__file__).parent / "assets" / "loftr-lite.onnx"
SMALL = ExportOptions(192, 256, max_matches=128)


@pytest.fixture(scope="module")
def dynamic() -> onnx.ModelProto:
    """The bundled model's graph: dynamic sizes, normalisations apart, weights stored in half."""
    return onnx.load(LITE)


@pytest.fixture(scope="module")
def static(coarse_checkpoint: Path, exports: Path) -> onnx.ModelProto:
    """A static graph: masks, folded normalisations."""
    loaded = load_network(get_spec("coarse-loftr"), coarse_checkpoint, threshold=0.0)
    with exported_once(exports):
        return run_passes(export_onnx(loaded, SMALL), standard_passes())[0]


@pytest.fixture(scope="module")
def half(dynamic: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[PassRecord, ...]]:
    return precision.apply(dynamic, "fp16", "loftr")


@pytest.fixture(params=["dynamic", "static"])
def graph(request: pytest.FixtureRequest) -> onnx.ModelProto:
    model: onnx.ModelProto = request.getfixturevalue(request.param)
    return model


def _nodes(model: onnx.ModelProto, op: str, module: str = "**") -> list[onnx.NodeProto]:
    return [n for n in model.graph.node if n.op_type == op and fits(module, n.name.rpartition("/")[0])]


def test_fp32_is_the_model_itself(dynamic: onnx.ModelProto) -> None:
    assert precision.PRECISIONS == ("fp32", "fp16", "int8", "fp8")
    with pytest.raises(MatchRTError) as caught:
        precision.apply(dynamic, "int8", "loftr")  # it cannot be written without ranges
    assert caught.value.code == "precision-unknown" and "calibrat" in caught.value.remedy
    model, records = precision.apply(dynamic, "fp32", "loftr")
    assert model is dynamic and records == ()


def test_result_is_valid_and_keeps_its_interface(graph: onnx.ModelProto) -> None:
    before = graph.SerializeToString(deterministic=True)
    model, _ = precision.apply(graph, "fp16", "loftr")
    assert graph.SerializeToString(deterministic=True) == before  # the fp32 graph is still needed
    onnx.checker.check_model(model, full_check=True)
    assert [*model.graph.input] == [*graph.graph.input] and [*model.graph.output] == [*graph.graph.output]
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    known = {v.name for v in model.graph.input} | {i.name for i in model.graph.initializer} | {""}
    for node in model.graph.node:
        assert set(node.input) <= known, node.name
        assert not known & (set(node.output) - {""}), node.name
        known |= set(node.output)


def test_applying_again_changes_nothing(graph: onnx.ModelProto) -> None:
    once, _ = precision.apply(graph, "fp16", "loftr")
    twice, _ = precision.apply(once, "fp16", "loftr")
    assert once.SerializeToString(deterministic=True) == twice.SerializeToString(deterministic=True)


def test_types_are_where_the_rules_put_them(graph: onnx.ModelProto) -> None:
    model, _ = precision.apply(graph, "fp16", "loftr")
    types = element_types(model)
    wanted = {
        ("Conv", "backbone.**"): TensorProto.FLOAT16,
        ("MatMul", "loftr_coarse.layers.*.q_proj"): TensorProto.FLOAT16,
        ("Exp", "loftr_coarse.layers.*.attend"): TensorProto.FLOAT,
        ("LayerNormalization", "**"): TensorProto.FLOAT16,
        ("Exp", "coarse_matching"): TensorProto.FLOAT,
        ("TopK", "network"): TensorProto.FLOAT,
        ("ReduceSum", "loftr_coarse.layers.*.attend"): TensorProto.FLOAT,
    }
    for (op, module), kind in wanted.items():
        found = _nodes(model, op, module)
        assert found, op
        assert {types[node.output[0]] for node in found} == {kind}, op


def test_weights_change_type_with_their_users(half: tuple[onnx.ModelProto, tuple[PassRecord, ...]]) -> None:
    model = half[0]
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    for node in (*_nodes(model, "Conv"), *_nodes(model, "LayerNormalization")):
        assert {kinds[name] for name in node.input[1:]} == {TensorProto.FLOAT16}
    # Nothing is stored in half and cast to float any more, and the file is half of a float32 one.
    stored = {i.name for i in model.graph.initializer}
    assert not [n for n in _nodes(model, "Cast") if n.input[0] in stored]
    # Besides, 0.9 MB of the coarse attention stay float32: which channels belong to one head.
    assert model.ByteSize() < 6.3e6


def test_nothing_leaves_fp16_in_the_fine_transformer(half: tuple[onnx.ModelProto, tuple[PassRecord, ...]]) -> None:
    added = [n.name for n in half[0].graph.node if n.name.endswith(("/to_fp16", "/to_fp32"))]
    assert not [name for name in added if name.startswith("loftr_fine.layers.0")]
    assert len(added) <= 75


def test_every_rule_hits_something(
    half: tuple[onnx.ModelProto, tuple[PassRecord, ...]], static: onnx.ModelProto
) -> None:
    dynamic_records = half[1]
    static_records = precision.apply(static, "fp16", "loftr")[1]
    hit = {record.name for record in (*dynamic_records, *static_records) if record.changed}
    assert hit >= {f"fp16:{rule.name}" for rule in LOFTR_FP16.rules}
    assert {record.name for record in dynamic_records if not record.changed} == {"fp16:masks"}  # of static graphs
    reasons = {f"fp16:{rule.name}": rule.reason for rule in LOFTR_FP16.rules}
    assert all(reasons.get(record.name, "") in record.summary for record in dynamic_records)


def test_every_int8_rule_hits_something(dynamic: onnx.ModelProto, static: onnx.ModelProto) -> None:
    assert_claimed(quant_rules("loftr"), [dynamic, static])


def test_padding_stays_finite(graph: onnx.ModelProto) -> None:
    """-1e9 would be beyond fp16: padding is written as a channel of -6e4, which both types have."""
    model, _ = precision.apply(graph, "fp16", "loftr")
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype in (np.float16, np.float32):
            assert np.isfinite(values).all() and np.abs(values).max(initial=0) <= 65504


def test_folding_normalisations_changes_no_match(dynamic: onnx.ModelProto) -> None:
    assert _nodes(dynamic, "BatchNormalization")
    rules = PrecisionRules("loftr", tuple(replace(rule, precision="fp32") for rule in LOFTR_FP16.rules))
    folded, records = model_to_fp16(dynamic, "loftr", rules)
    assert records[0].name == "fold-batch-norm" and records[0].changed
    assert not _nodes(folded, "BatchNormalization")
    contract = input_contract(
        Preprocess(1, 8), ExportOptions(128, 160, profile=Profile((64, 64), (128, 160), (256, 256)))
    )
    inputs = sample_inputs(contract, 8)[0]
    assert require_parity(run_onnx(dynamic, inputs), run_onnx(folded, inputs), 0.2, "Folding").matches > 50


def _model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [2, 3])],
        [value("y", TensorProto.FLOAT, ["a", "b"])],
        [numpy_helper.from_array(values, name) for name, values in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _rules(*rules: tuple[str, str, tuple[str, ...]]) -> PrecisionRules:
    made = (Rule(name, kind, "test", (Nodes(("**",), ops),)) for name, kind, ops in rules)  # type: ignore[arg-type]
    return PrecisionRules("test", tuple(made))


ALL_HALF = _rules(("all", "fp16", ()))


def test_a_weight_that_overflows_is_refused_by_name() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "head/MatMul_0")
    weight = np.ones((3, 3), np.float32)
    model_to_fp16(_model([node], {"w": weight * 65504}), "test", ALL_HALF)
    with pytest.raises(MatchRTError) as caught:
        model_to_fp16(_model([node], {"w": weight * 70000}), "test", ALL_HALF)
    assert caught.value.code == "precision-overflow"
    assert "weight w of head/MatMul_0" in caught.value.message and "70000" in caught.value.message
    # The same weight in fp32 is nobody's trouble; an infinite mask is one in both types.
    model_to_fp16(_model([node], {"w": weight * 70000}), "test", _rules(("all", "fp32", ())))
    model_to_fp16(_model([node], {"w": weight * -np.inf}), "test", ALL_HALF)


def test_values_that_vanish_are_counted() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "head/MatMul_0")
    weight = np.array([[1, 1e-9, 0]] * 3, np.float32)
    _, records = model_to_fp16(_model([node], {"w": weight}), "test", ALL_HALF)
    assert "3 of their values became 0" in records[-1].summary


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("fp16", "roma-of-tomorrow"), "precision-family"), (("fp8", "loftr"), "precision-unknown")],
)
def test_what_is_not_known_is_refused(dynamic: onnx.ModelProto, arguments: tuple[str, str], code: str) -> None:
    with pytest.raises(MatchRTError) as caught:
        precision.apply(dynamic, *arguments)
    assert caught.value.code == code and "fp32" in caught.value.remedy


def test_rules_are_named_after_their_family() -> None:
    for family in families():
        assert {rules.family for rules in (family.fp16, family.int8) if rules is not None} == {family.name}


def test_every_rule_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "precision.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].split("(")[0].strip() for line in text.splitlines() if line.startswith("| ")}
    # Two fp16 rules cannot be turned alone: they are the network itself.
    assert {rule.name for rule in LOFTR_FP16.rules} - rows == {"position-add", "linear"}


def test_a_node_without_a_rule_is_named() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"], "a/Relu_0"), helper.make_node("Tanh", ["r"], ["y"], "a/Tanh_0")]
    with pytest.raises(InternalError, match="a/Tanh_0") as caught:
        model_to_fp16(_model(nodes), "test", _rules(("relu", "fp16", ("Relu",))))
    assert caught.value.code == "precision-unruled"


def test_a_rule_that_asks_for_the_impossible_is_named() -> None:
    nodes = [
        helper.make_node("Range", ["o", "l", "o"], ["r"], "a/Range_0"),
        helper.make_node("Add", ["x", "r"], ["y"], "a/Add_0"),
    ]
    numbers = {"o": np.float32(0.5), "l": np.float32(2.0)}
    with pytest.raises(InternalError, match="a/Range_0") as caught:
        model_to_fp16(_model(nodes, {k: np.array(v) for k, v in numbers.items()}), "test", ALL_HALF)
    assert caught.value.code == "precision-rule"


def test_rounding_that_the_network_does_itself_is_not_undone() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "a/Cast_0", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["h"], ["y"], "a/Cast_1", to=TensorProto.FLOAT),
    ]
    with pytest.raises(MatchRTError) as caught:
        model_to_fp16(_model(nodes), "test", ALL_HALF)
    assert caught.value.code == "pass-requirement"


def test_shared_tensors_are_cast_once_and_shared_weights_copied() -> None:
    nodes = [
        helper.make_node("Add", ["x", "w"], ["a"], "m/Add_0"),
        helper.make_node("Relu", ["a"], ["b"], "m/Relu_0"),
        helper.make_node("Mul", ["a", "w"], ["c"], "m/Mul_0"),
        helper.make_node("Reshape", ["b", "shape"], ["d"], "m/Reshape_0"),
        helper.make_node("Sub", ["c", "d"], ["y"], "m/Sub_0"),
    ]
    weights = {"w": np.array([0.1], np.float32), "shape": np.array([2, 3], np.int64)}
    rules = _rules(("half", "fp16", ("Relu", "Mul", "Sub")), ("float", "fp32", ("Add",)))
    model, _ = model_to_fp16(_model(nodes, weights), "test", rules)
    casts = [n.name for n in model.graph.node if n.op_type == "Cast"]
    assert casts == ["a/to_fp16", "y/to_fp32"]
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    assert kinds == {"w": TensorProto.FLOAT, "w/fp16": TensorProto.FLOAT16, "shape": TensorProto.INT64}
    assert model.graph.output[0].name == "y"
    again, _ = model_to_fp16(model, "test", rules)
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_transposed_weights_take_the_type_of_their_reader() -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], "m/Transpose_0"),
        helper.make_node("MatMul", ["x", "t"], ["y"], "m/MatMul_0"),
    ]
    model, _ = model_to_fp16(_model(nodes, {"w": np.ones((3, 3), np.float32)}), "test", ALL_HALF)
    assert [i.data_type for i in model.graph.initializer] == [TensorProto.FLOAT16]
    assert sum(n.op_type == "Cast" for n in model.graph.node) == 2


def test_emulation_rounds_and_overflows_where_the_runtime_does_not() -> None:
    import onnxruntime

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], "m/MatMul_0"),
        helper.make_node("Mul", ["p", "s"], ["y"], "m/Mul_0"),
    ]
    weights = {"w": np.full((3, 3), 300, np.float32), "s": np.array([1e-3], np.float32)}
    model, _ = model_to_fp16(_model(nodes, weights), "test", ALL_HALF)

    def run(graph: onnx.ModelProto, value: float) -> float:
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        return float(session.run(None, {"x": np.full((2, 3), value, np.float32)})[0][0, 0])

    assert run(emulate(model), 300) == float("inf")  # 270000 on the way
    half = np.float16
    product = half(np.float32(half(1.23456)) * 300 * 3)
    assert run(emulate(model), 1.23456) == float(half(np.float32(product) * np.float32(half(1e-3))))
