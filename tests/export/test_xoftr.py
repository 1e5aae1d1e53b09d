"""XoFTR from a checkpoint to engines: the account, the graph against torch, fp16, the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.commands import CommandLine
from support.pictures import shifted_pair
from support.quantised import check_quantised
from support.split import require_same_bits
from support.xoftr import random_state, random_xoftr

from matchrt import Matcher
from matchrt.building.parity import compare, run_onnx, run_torch, sample_inputs
from matchrt.errors import MatchRTError
from matchrt.export import precision
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.export.passes.base import run_passes
from matchrt.export.passes.standard import standard_passes
from matchrt.export.quantization.quantize import plan_quantization
from matchrt.export.quantization.styles import ONNXRUNTIME, TENSORRT, QuantStyle
from matchrt.export.to_onnx import export_onnx
from matchrt.export.weights.network import LoadedNetwork, load_network
from matchrt.families.registry import get_spec
from matchrt.families.xoftr import XOFTR_INPUT, XoFTRFamily
from matchrt.manifest import Profile, manifest_path, read_manifest
from matchrt.models.loftr.position import sine_encoding, sine_frequencies
from matchrt.models.parts.engine_graph import EngineGraph

SIZE = (128, 160)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the authors publish it: `matcher.` before every name, in `state_dict`."""
    tensors = {f"matcher.{key}": value for key, value in _state().items()}
    path = tmp_path_factory.mktemp("xoftr") / "weights_xoftr_640.ckpt"
    torch.save({"state_dict": tensors}, path)
    return path


def _state() -> dict[str, torch.Tensor]:
    shapes = {key: tuple(value.shape) for key, value in XoFTRFamily(get_spec("xoftr").family.config).create()
              .state_dict().items()}  # fmt: skip
    return random_state(shapes)


@pytest.fixture(scope="module")
def loaded() -> LoadedNetwork:
    return LoadedNetwork(get_spec("xoftr"), random_xoftr(), None, None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def static_graph(loaded: LoadedNetwork) -> onnx.ModelProto:
    return run_passes(export_onnx(loaded, ExportOptions(*SIZE, max_matches=400)), standard_passes())[0]


@pytest.mark.parametrize("model", ["xoftr", "minima-xoftr"])
def test_every_tensor_is_loaded(checkpoint: Path, model: str) -> None:
    found = load_network(get_spec(model), checkpoint)
    found.report.require_complete(checkpoint.name)
    assert found.report.summary() == "checkpoint 247: 247 loaded; network 247: 247 loaded"


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("fine_process.self_attn_f.pos_embed_pre.pos_mlp.2.weight"),
        lambda state: state.update({"fine_process.extra.weight": torch.ones(3)}),
        lambda state: state.update({"fine_matching.fine_proj.weight": torch.ones(64, 64)}),
    ],
)
def test_mutants_are_refused(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = _state()
    change(state)
    path = tmp_path / "mutant.pt"
    torch.save(state, path)
    with pytest.raises(MatchRTError) as caught:
        load_network(get_spec("xoftr"), path)
    assert caught.value.code == "weights-unaccounted"


@pytest.mark.parametrize(("fixed", "taken"), [(True, True), (False, False)])
def test_a_position_table_must_be_that_of_the_paper(tmp_path: Path, fixed: bool, taken: bool) -> None:
    table = sine_encoding(256, 256, sine_frequencies(256, fixed))
    path = tmp_path / "with_table.pt"
    torch.save({**_state(), "pos_encoding.pe": table}, path)
    if taken:
        load_network(get_spec("xoftr"), path)
        return
    with pytest.raises(MatchRTError):
        load_network(get_spec("xoftr"), path)


def test_thresholds() -> None:
    family = get_spec("xoftr").family
    assert family.match_contract(64, 0.0).threshold == 0.1 and family.config.match.threshold == 0.3
    changed = family.with_matching(0.5, True)
    assert changed.match_contract(64, 0.0).threshold == 0.5
    assert changed.config.match.threshold == 0.3 and changed.config.match.mutual
    with pytest.raises(MatchRTError, match="outside"):
        family.with_matching(1.0, None)


def test_onnx_gives_torchs_matches_with_padding(loaded: LoadedNetwork, static_graph: onnx.ModelProto) -> None:
    for seed in (0, 1):
        inputs = sample_inputs(input_contract(XOFTR_INPUT, ExportOptions(*SIZE)), 8, seed)[0]
        expected = run_torch(EngineGraph(loaded.network, 400), inputs)
        difference = compare(expected, run_onnx(static_graph, inputs), 0.1)
        assert difference.same and difference.matches > 50 and difference.pixels <= 1e-3, difference


def test_the_graph_has_no_operator_that_engines_lack(static_graph: onnx.ModelProto) -> None:
    operators = {node.op_type for node in static_graph.graph.node}
    assert not operators & {"NonZero", "If", "Loop", "Unique", "Compress", "GridSample"}
    assert {node.domain for node in static_graph.graph.node} <= {"", "ai.onnx"}


def test_fp16_claims_every_node(static_graph: onnx.ModelProto) -> None:
    model, records = precision.apply(static_graph, "fp16", "xoftr")
    onnx.checker.check_model(model)
    assert records
    inputs = sample_inputs(input_contract(XOFTR_INPUT, ExportOptions(*SIZE)), 8)[0]
    exact, half = run_onnx(static_graph, inputs), run_onnx(model, inputs)
    found = [
        {tuple(row) for row in np.round(out["keypoints0"][0, : int(out["num_matches"][0])])} for out in (exact, half)
    ]
    assert len(found[0] & found[1]) >= 0.9 * len(found[0])


@pytest.mark.slow
@pytest.mark.parametrize("style", [ONNXRUNTIME, TENSORRT])
def test_int8(static_graph: onnx.ModelProto, style: QuantStyle) -> None:
    inputs = sample_inputs(input_contract(XOFTR_INPUT, ExportOptions(*SIZE)), 8, seed=5)
    check_quantised(static_graph, "xoftr", inputs, style)


@pytest.mark.slow
def test_dynamic_graphs_take_any_size(loaded: LoadedNetwork) -> None:
    config = loaded.spec.family.config
    layers = replace(config.coarse, layers=("self", "cross"))
    shallow = LoadedNetwork(loaded.spec, random_xoftr(replace(config, coarse=layers)), None, None)  # type: ignore[arg-type]
    options = ExportOptions(*SIZE, max_matches=300, profile=Profile((64, 64), SIZE, (256, 256)))
    model = run_passes(export_onnx(shallow, options), standard_passes())[0]
    precision.apply(model, "fp16", "xoftr")
    plan_quantization(model, "xoftr", ONNXRUNTIME)  # some rule knows every product
    whole, moved = shifted_pair(256, 256, (16, 8))
    for first, second in (((128, 160), (128, 160)), ((64, 232), (136, 80))):
        inputs = {"image0": whole[: first[0], : first[1]], "image1": moved[: second[0], : second[1]]}
        inputs = {name: np.ascontiguousarray(image)[None, :, :, None] for name, image in inputs.items()}
        difference = compare(run_torch(EngineGraph(shallow.network, 300), inputs), run_onnx(model, inputs), 0.1)
        assert difference.same, difference


@pytest.mark.slow
def test_build_match_and_verify(cli: CommandLine, checkpoint: Path, tmp_path: Path) -> None:
    path, half = tmp_path / "xoftr.onnx", tmp_path / "half.onnx"
    common = ("--checkpoint", checkpoint, "--height", "128", "--width", "160", "--max-matches", "300",
              "--store", tmp_path / "store")  # fmt: skip
    ran = cli("build", "xoftr", *common, "--output", path)
    assert ran.code == 0, ran.err
    manifest = read_manifest(manifest_path(path))
    assert (manifest.family, manifest.matching.threshold, manifest.matching.mutual) == ("xoftr", 0.1, False)
    assert manifest.self_test is not None
    with Matcher(path) as matcher:
        found = matcher.match(*shifted_pair(128, 160, (16, 8)))
    moved = np.median(found.keypoints0 - found.keypoints1, axis=0)
    assert len(found) > 50 and np.abs(moved - (16, 8)).max() < 2
    # With random weights many scores lie at the threshold, so the gate's 99 % may be missed by a match or two.
    ran = cli("build", "xoftr", *common, "--precision", "fp16", "--accept-accuracy-loss", "--output", half)
    assert ran.code == 0, ran.err
    assert read_manifest(manifest_path(half)).checks["precision_kept"] >= 0.97


@pytest.mark.slow
def test_parts_have_the_bits_of_the_whole(static_graph: onnx.ModelProto) -> None:
    inputs = sample_inputs(input_contract(XOFTR_INPUT, ExportOptions(*SIZE)), 8)[0]
    features = require_same_bits(static_graph, inputs)
    assert sum(node.op_type == "Conv" for node in features.graph.node) > 10
