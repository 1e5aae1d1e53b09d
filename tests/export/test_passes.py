"""Every pass: what it changes, that it changes no match, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.exports import exported_once

from matchrt.building.parity import require_parity, run_onnx, sample_inputs
from matchrt.errors import InternalError, MatchRTError
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.export.passes.base import Pass, PassResult, run_passes
from matchrt.export.passes.batch_norm import FoldBatchNorm
from matchrt.export.passes.fold import FoldConstants, RemoveDeadNodes, RemoveIdentities
from matchrt.export.passes.half_storage import HalfStorage
from matchrt.export.passes.stable_names import StableNames
from matchrt.export.passes.standard import standard_passes
from matchrt.export.passes.supported import RequireSupported
from matchrt.export.precision.exact_products import ExactProducts
from matchrt.export.quantization.selection import select
from matchrt.export.to_onnx import export_onnx
from matchrt.export.weights.network import load_network
from matchrt.families.loftr import COARSE_LOFTR_INPUT, LOFTR_INT8
from matchrt.families.registry import get_spec

OPTIONS = ExportOptions(192, 256, max_matches=128)


@pytest.fixture(scope="module")
def exported(coarse_checkpoint: Path, exports: Path) -> onnx.ModelProto:
    with exported_once(exports):
        return export_onnx(load_network(get_spec("coarse-loftr"), coarse_checkpoint, threshold=0.0), OPTIONS)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


@pytest.mark.parametrize("step", standard_passes(), ids=lambda step: step.name)
def test_pass_changes_no_match(exported: onnx.ModelProto, step: Pass) -> None:
    inputs = sample_inputs(input_contract(COARSE_LOFTR_INPUT, OPTIONS), 16)[0]
    before = run_onnx(exported, inputs)
    assert int(before["num_matches"][0]) > 5
    after, records = run_passes(_copy(exported), [step])
    assert require_parity(before, run_onnx(after, inputs), 0.0, step.name).matches == int(before["num_matches"][0])
    assert records[0].name == step.name


def test_whole_list_with_parity_after_every_pass(exported: onnx.ModelProto) -> None:
    inputs = sample_inputs(input_contract(COARSE_LOFTR_INPUT, OPTIONS), 16)[0]
    checked = []

    def same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        checked.append(require_parity(run_onnx(before, inputs), run_onnx(after, inputs), 0.0, "pass"))

    _, records = run_passes(_copy(exported), standard_passes(), same)
    assert len(checked) == sum(record.changed for record in records) >= 2


def test_passes_have_nothing_left_to_do_the_second_time(exported: onnx.ModelProto) -> None:
    passes = standard_passes()[:-1]
    model, _ = run_passes(_copy(exported), passes)
    again, records = run_passes(_copy(model), passes[1:])
    assert not any(record.changed for record in records)
    assert [n.name for n in again.graph.node] == [n.name for n in model.graph.node]


def test_names_are_module_paths_and_stable(exported: onnx.ModelProto, coarse_checkpoint: Path) -> None:
    model, _ = run_passes(_copy(exported), [StableNames()])
    names = {node.name for node in model.graph.node}
    assert any(name.startswith("loftr_coarse.layers.3.") for name in names)
    again = export_onnx(load_network(get_spec("coarse-loftr"), coarse_checkpoint, threshold=0.0), OPTIONS)
    model_again, _ = run_passes(again, [StableNames()])
    assert model.SerializeToString(deterministic=True) == model_again.SerializeToString(deterministic=True)


def test_a_convolution_joined_with_its_norm_keeps_its_own_name(exported: onnx.ModelProto) -> None:
    """The exporter gives it the norm's scope, with which the first convolution would escape the rule that holds it."""
    model, _ = run_passes(_copy(exported), [StableNames()])
    convolutions = {node.name.rpartition("/")[0] for node in model.graph.node if node.op_type == "Conv"}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}, "the exporter joined none"
    assert {"backbone.conv1", "backbone.layer1.0.conv1", "backbone.layer2.0.downsample.0"} <= convolutions
    assert not [name for name in convolutions if ".bn" in name]
    chosen = select(model, LOFTR_INT8, "int8").products
    assert "backbone.layer2.0.conv1/Conv_0" in chosen and "backbone.conv1/Conv_0" not in chosen


def test_no_path_of_this_machine_is_left(exported: onnx.ModelProto) -> None:
    here = str(Path(__file__).resolve().parents[2]).encode()
    assert here in exported.SerializeToString()
    model, _ = run_passes(_copy(exported), standard_passes())
    assert here not in model.SerializeToString()


def _model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto] | None = None) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [2, 3])], [value("y", TensorProto.FLOAT, ["a", "b"])], weights or []
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_folding_computes_constants() -> None:
    weights = [numpy_helper.from_array(np.float32([1, 2, 3]), "a"), numpy_helper.from_array(np.float32([4]), "b")]
    nodes = [helper.make_node("Mul", ["a", "b"], ["ab"], "mul"), helper.make_node("Add", ["x", "ab"], ["y"], "add")]
    result = FoldConstants().apply(_model(nodes, weights))
    assert [n.op_type for n in result.model.graph.node] == ["Add"] and result.changes == 1
    folded = numpy_helper.to_array(result.model.graph.initializer[0])
    assert folded.tolist() == [4, 8, 12]


def test_folding_leaves_large_results_to_run_time() -> None:
    weights = [numpy_helper.from_array(np.array([3, 1000], np.int64), "shape")]
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"], "big"),
        helper.make_node("MatMul", ["x", "big"], ["y"], "matmul"),
    ]
    for limit, kept in ((64, True), (1 << 20, False)):
        model = FoldConstants(max_bytes=limit).apply(_model(nodes, weights)).model
        assert ("ConstantOfShape" in {n.op_type for n in model.graph.node}) is kept


def test_identities_go() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["x1"], "identity"),
        helper.make_node("Cast", ["x1"], ["x2"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Relu", ["x2"], ["y"], "relu"),
    ]
    result = RemoveIdentities().apply(_model(nodes))
    assert [n.op_type for n in result.model.graph.node] == ["Relu"] and result.changes == 2
    assert list(result.model.graph.node[0].input) == ["x"]


def test_casts_that_convert_stay() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "down", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["h"], ["y"], "up", to=TensorProto.FLOAT),
    ]
    assert RemoveIdentities().apply(_model(nodes)).changes == 0


def test_dead_nodes_go() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], "relu"), helper.make_node("Abs", ["x"], ["unused"], "abs")]
    result = RemoveDeadNodes().apply(_model(nodes))
    assert [n.op_type for n in result.model.graph.node] == ["Relu"] and result.changes == 1


def test_half_storage_is_exact_or_left_alone() -> None:
    exact = np.linspace(-2, 2, 300).astype(np.float16).astype(np.float32).reshape(3, 100)
    inexact = exact + np.float32(1e-6)
    large = np.full((3, 100), 1e6, np.float32)
    for values, halved in ((exact, True), (inexact, False), (large, False)):
        model = _model([helper.make_node("MatMul", ["x", "w"], ["y"], "m")], [numpy_helper.from_array(values, "w")])
        result = HalfStorage().apply(_copy(model))
        assert bool(result.changes) is halved
        HalfStorage().ensures(result.model)
        x = {"x": np.random.default_rng(0).random((2, 3), dtype=np.float32)}
        import onnxruntime

        run = [onnxruntime.InferenceSession(m.SerializeToString()).run(None, x)[0] for m in (model, result.model)]
        assert np.array_equal(run[0], run[1])


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (helper.make_node("NonZero", ["x"], ["y"], "bad"), "data-dependent"),
        (helper.make_node("Resize", ["x", "", "", "s"], ["y"], "bad", antialias=1, mode="cubic"), "antialiased"),
        (helper.make_node("Einsum", ["x", "x"], ["y"], "bad", equation="...i,...i->..."), "ellipsis"),
        (helper.make_node("Einsum", ["x"], ["y"], "bad", equation="ii->i"), "repeated"),
        (helper.make_node("Einsum", ["x", "x", "x"], ["y"], "bad", equation="ij,ij,ij->ij"), "two operands"),
        (helper.make_node("Multinomial", ["x"], ["y"], "bad"), "replacement"),
    ],
)
def test_unsupported_nodes_are_named(node: onnx.NodeProto, reason: str) -> None:
    with pytest.raises(InternalError, match=reason) as caught:
        RequireSupported().ensures(_model([node]))
    assert "bad" in caught.value.message


def test_supported_einsum_passes() -> None:
    RequireSupported().ensures(_model([helper.make_node("Einsum", ["x", "x"], ["y"], "ok", equation="ij,kj->ik")]))


def test_a_pass_that_breaks_the_graph_is_caught() -> None:
    class Breaks(RemoveDeadNodes):
        def apply(self, model: onnx.ModelProto) -> PassResult:
            model.graph.node[0].input[0] = "nowhere"
            return PassResult(model, 1, "broke it")

    with pytest.raises(InternalError, match="invalid graph"):
        run_passes(_model([helper.make_node("Relu", ["x"], ["y"], "relu")]), [Breaks()])


def test_a_pass_that_changes_matches_is_caught(exported: onnx.ModelProto) -> None:
    class Doubles(RemoveDeadNodes):
        def apply(self, model: onnx.ModelProto) -> PassResult:
            scale = next(i for i in model.graph.initializer if i.name.endswith("loftr_coarse.layers.0.norm2.weight"))
            scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 2, scale.name))
            return PassResult(model, 1, "doubled a weight")

    inputs = sample_inputs(input_contract(COARSE_LOFTR_INPUT, OPTIONS), 16)[0]

    def same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        require_parity(run_onnx(before, inputs), run_onnx(after, inputs), 0.0, "pass")

    with pytest.raises(InternalError) as caught:
        run_passes(_copy(exported), [Doubles()], same)
    assert caught.value.code == "parity"


def _relu() -> onnx.ModelProto:
    return _model([helper.make_node("Relu", ["x"], ["y"], "relu")])


def _with_subgraph() -> onnx.ModelProto:
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["z"], "inner")], "branch", [], [value])
    node = helper.make_node("If", ["c"], ["y"], "if", then_branch=branch, else_branch=branch)
    return _model([node], [numpy_helper.from_array(np.array(True), "c")])


def _with_function() -> onnx.ModelProto:
    model = _relu()
    model.functions.add().name = "f"
    return model


def _with_weight_outside() -> onnx.ModelProto:
    model = _model([helper.make_node("Add", ["x", "w"], ["y"], "add")], [numpy_helper.from_array(np.ones(3), "w")])
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    return model


def _with_name_twice() -> onnx.ModelProto:
    return _model([helper.make_node("Relu", ["x"], ["z"], "same"), helper.make_node("Abs", ["z"], ["y"], "same")])


def _in_training() -> onnx.ModelProto:
    norm = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y", "m2", "v2"], "norm", training_mode=1)
    return _model([norm], [numpy_helper.from_array(np.ones(3, np.float32), name) for name in "sbmv"])


def _of_opset_12() -> onnx.ModelProto:
    model = _relu()
    model.opset_import[0].version = 12
    return model


@pytest.mark.parametrize(
    ("step", "model", "reason"),
    [
        (StableNames(), _with_subgraph(), "subgraphs"),
        (StableNames(), _with_function(), "functions"),
        (FoldConstants(), _with_weight_outside(), "outside the file"),
        (RemoveIdentities(), _with_subgraph(), "subgraphs"),
        (RemoveDeadNodes(), _with_subgraph(), "subgraphs"),
        (RemoveDeadNodes(), _with_function(), "functions"),
        (RequireSupported(), _with_function(), "functions"),
        (HalfStorage(), _with_weight_outside(), "outside the file"),
        (FoldBatchNorm(), _with_subgraph(), "subgraphs"),
        (FoldBatchNorm(), _with_weight_outside(), "outside the file"),
        (FoldBatchNorm(), _with_name_twice(), "'same'"),
        (FoldBatchNorm(), _in_training(), "training mode"),
        (ExactProducts(), _with_subgraph(), "subgraphs"),
        (ExactProducts(), _with_weight_outside(), "outside the file"),
        (ExactProducts(), _of_opset_12(), "bfloat16"),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else value if isinstance(value, str) else "",
)
def test_a_pass_refuses_a_graph_that_it_would_get_wrong(step: Pass, model: onnx.ModelProto, reason: str) -> None:
    before = model.SerializeToString(deterministic=True)
    with pytest.raises(MatchRTError, match=reason) as caught:
        run_passes(model, [step])
    assert caught.value.code == "pass-requirement" and step.name in caught.value.message
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("step", [*standard_passes(), FoldBatchNorm(), ExactProducts()], ids=lambda step: step.name)
def test_a_pass_takes_a_plain_graph(step: Pass) -> None:
    _, records = run_passes(_relu(), [step])
    assert records[0].name == step.name


def test_a_convolution_that_is_returned_too_keeps_its_normalisation() -> None:
    """Folded, the graph would not give the convolution's own result any more."""
    weights = {"w": np.full((2, 3, 1, 1), 2), "s": [1, 2], "b": [0, 1], "m": [1, 0], "v": [1, 4]}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], "conv"),
        helper.make_node("BatchNormalization", ["conv", *"sbmv"], ["y"], "norm"),
    ]
    value = helper.make_tensor_value_info
    for returned, folds in ((("y", "conv"), 0), (("y",), 1)):
        graph = helper.make_graph(
            nodes,
            "g",
            [value("x", TensorProto.FLOAT, [1, 3, 2, 2])],
            [value(name, TensorProto.FLOAT, [1, 2, 2, 2]) for name in returned],
            [numpy_helper.from_array(np.array(numbers, np.float32), name) for name, numbers in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        inputs = {"x": np.random.default_rng(0).random((1, 3, 2, 2), np.float32)}
        before = run_onnx(model, inputs)
        after, records = run_passes(model, [FoldBatchNorm()])
        assert records[0].changed is bool(folds) and len(after.graph.node) == 2 - folds
        found = run_onnx(after, inputs)
        assert all(np.allclose(before[name], found[name], atol=1e-5) for name in returned)
