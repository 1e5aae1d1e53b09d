"""EfficientLoFTR's files in their three namings, and its exported graph."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto
from support.commands import CommandLine
from support.eloftr import filled, manifest_state
from support.pictures import shifted_pair
from support.quantised import check_quantised
from support.split import require_same_bits
from support.weights import sharp_state
from torch import Tensor, nn

from matchrt.building.parity import compare, run_onnx, run_torch, sample_inputs
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.export.passes.base import run_passes
from matchrt.export.passes.standard import standard_passes
from matchrt.export.precision import apply
from matchrt.export.precision.emulation import emulate
from matchrt.export.precision.graph_types import element_types
from matchrt.export.quantization.styles import ONNXRUNTIME, TENSORRT
from matchrt.export.to_onnx import export_onnx
from matchrt.export.weights.account import account
from matchrt.export.weights.fusion import MAX_DIFFERENCE
from matchrt.export.weights.network import LoadedNetwork, expected_tensors
from matchrt.export.weights.report import LoadReport
from matchrt.families.eloftr import ELOFTR, ELOFTR_INPUT, ELOFTR_KEYS, ELoFTRFamily
from matchrt.families.keymap import Fuse, Rename
from matchrt.families.registry import get_spec
from matchrt.manifest import Profile
from matchrt.models.eloftr.config import ELoFTRConfig
from matchrt.models.eloftr.repvgg import RepVGG, RepVGGBranches
from matchrt.models.parts.config import CoarseMatchConfig

TINY = ELoFTRConfig(
    widths=(8, 8, 16, 32),
    blocks=(1, 1, 1, 1),
    n_heads=2,
    layer_pairs=1,
    fine_regress=4,
    match=CoarseMatchConfig(threshold=0.0),
)


class _Training(nn.Module):
    """The backbone in training form, with the names of the authors' files."""

    def __init__(self) -> None:
        super().__init__()
        widths, blocks = ELOFTR.widths, ELOFTR.blocks
        self.layer0 = RepVGGBranches(1, widths[0], 2)
        for stage in (1, 2, 3):
            rest = (RepVGGBranches(widths[stage], widths[stage], 1) for _ in range(blocks[stage] - 1))
            first = RepVGGBranches(widths[stage - 1], widths[stage], 1 if stage == 1 else 2)
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [self.layer0(image)]
        for stage in (1, 2, 3):
            features.append(self.get_submodule(f"layer{stage}")(features[-1]))
        return features[1:]


@pytest.fixture(scope="module")
def training() -> _Training:
    network = _Training()
    network.load_state_dict(sharp_state(network))
    return network.eval()


@pytest.fixture(scope="module")
def official(training: _Training) -> dict[str, Tensor]:
    """A file of the authors' form: training backbone, everything else as in the network."""
    state = sharp_state(ELoFTRFamily(ELOFTR).create(), seed=1)
    state = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    return {f"backbone.{key}": value for key, value in training.state_dict().items()} | state


def _hugging_face(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under Hugging Face's names, by the key map read backwards."""
    names: dict[str, str] = {}
    norms = {"rbr_dense.bn": "conv1.norm", "rbr_1x1.bn": "conv2.norm", "rbr_identity": "identity"}
    for rule in ELOFTR_KEYS.rules:
        if isinstance(rule, Fuse) and rule.module.startswith("efficientloftr"):
            module = rule.target.removesuffix(".rbr_reparam")
            names |= {f"{module}.{ours}": f"{rule.module}.{theirs}" for theirs, ours in rule.parts}
            counter = "num_batches_tracked"
            names |= {f"{module}.{o}.{counter}": f"{rule.module}.{t}.{counter}" for o, t in norms.items()}
        elif isinstance(rule, Rename) and "*" not in rule.pattern:
            names[rule.target] = rule.pattern
    for stage, index in ((2, 0), (1, 1)):
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            target = f"fine_preprocess.layer{stage}_outconv2.1.{name}"
            names[target] = f"refinement_layer.out_conv_layers.{index}.batch_norm.{name}"
    return {names[key]: value for key, value in official.items()}


def _account(tensors: dict[str, Tensor]) -> LoadReport:
    return account(tensors, expected_tensors(get_spec("eloftr")), ELOFTR_KEYS, "eloftr")[1]


def test_three_namings_give_the_same_network(official: dict[str, Tensor]) -> None:
    family = ELoFTRFamily(ELOFTR)
    network, report = filled(family, {f"matcher.{key}": value for key, value in official.items()})
    assert report.counts() == {
        "file": {"derived": 282, "dropped": 60, "loaded": 105}, "network": {"derived": 42, "loaded": 105}
    }  # fmt: skip
    assert report.difference is not None and report.difference <= MAX_DIFFERENCE
    deployed, second = filled(family, dict(network.state_dict()))
    assert second.counts() == {"file": {"loaded": 147}, "network": {"loaded": 147}} and second.difference is None
    theirs, third = filled(family, _hugging_face(official))
    assert third.counts() == report.counts()
    for key, value in network.state_dict().items():
        assert torch.equal(value, deployed.state_dict()[key]) and torch.equal(value, theirs.state_dict()[key]), key


@torch.inference_mode()
def test_the_fused_backbone_computes_the_same(training: _Training, official: dict[str, Tensor]) -> None:
    network, _ = filled(ELoFTRFamily(ELOFTR), official)
    image = torch.rand(1, 1, 96, 128, generator=torch.Generator().manual_seed(0))
    backbone = network.get_submodule("backbone")
    assert isinstance(backbone, RepVGG)
    for expected, actual in zip(training(image), backbone(image), strict=True):
        assert float((actual - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.parametrize(
    "name", ["eloftr_outdoor", "eloftr_outdoor_deploy", "hf_efficientloftr", "matchanything_eloftr"]
)
def test_manifests_are_accounted_for(shared: Path, name: str) -> None:
    tensors = manifest_state(shared, name)
    for model in ("eloftr", "eloftr-opt", "matchanything-eloftr"):
        spec = get_spec(model)
        _, report = account(tensors, expected_tensors(spec), spec.key_map, model)
        assert report.complete and len(report.file) == len(tensors) and len(report.network) == 147


@pytest.mark.parametrize(
    ("kind", "fate"),
    [("missing", "unexpected"), ("reshaped", "shape-mismatched"), ("integer", "type-mismatched"),
     ("both forms", "duplicated"), ("extra", "unexpected")],
)  # fmt: skip
def test_what_does_not_fit_is_named(official: dict[str, Tensor], kind: str, fate: str) -> None:
    tensors, key = dict(official), "backbone.layer2.1.rbr_1x1.bn.bias"
    if kind == "missing":
        del tensors[key]
    elif kind == "reshaped":
        tensors[key] = tensors[key][:-1]
    elif kind == "integer":
        tensors[key] = tensors[key].int()
    elif kind == "both forms":
        tensors["backbone.layer2.1.rbr_reparam.weight"] = torch.zeros(128, 128, 3, 3)
    else:
        tensors["backbone.layer2.1.rbr_3x3.weight"] = torch.zeros(3)
    report = _account(tensors)
    assert not report.complete
    problems = [entry for entry in report.problems if entry.fate == fate]
    assert problems and all("layer2.1." in entry.key for entry in problems)


def test_a_fusion_that_loses_is_rejected(official: dict[str, Tensor]) -> None:
    tensors = dict(official)
    key = "backbone.layer3.4.rbr_dense.bn."
    # Branches that cancel: what is left of them drowns in the rounding of float32.
    tensors[f"{key}running_var"] = torch.full_like(tensors[f"{key}running_var"], 1e-12)
    tensors[f"{key}running_mean"] = torch.full_like(tensors[f"{key}running_mean"], 1e9)
    tensors[f"{key}bias"] = tensors[f"{key}weight"] * 1e9 / (1e-12 + 1e-5) ** 0.5
    report = _account(tensors)
    assert {entry.fate for entry in report.problems} >= {"rejected"}


def _tiny(config: ELoFTRConfig) -> LoadedNetwork:
    family = ELoFTRFamily(config)
    network = family.create()
    state = sharp_state(network)
    # So few blocks give features that hardly differ; these gains make cells and pixels distinct.
    gains = {"backbone.layer3": 8.0, "norm2.weight": 3.0}
    for part, gain in gains.items():
        state |= {key: gain * value for key, value in state.items() if part in key and value.is_floating_point()}
    network.load_state_dict(state)
    spec = replace(get_spec("eloftr"), family=family)
    return LoadedNetwork(spec, network.eval(), None, None)  # type: ignore[arg-type]


STATIC = ExportOptions(160, 192, 64, batch=2)


@cache
def _exported(options: ExportOptions, mutual: bool) -> tuple[LoadedNetwork, onnx.ModelProto]:
    """Once for all tests that read it."""
    loaded = _tiny(replace(TINY, match=replace(TINY.match, mutual=mutual)))
    return loaded, run_passes(export_onnx(loaded, options), standard_passes())[0]


@pytest.mark.slow
@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize("options", [
    STATIC,
    ExportOptions(160, 192, 64, Profile((128, 128), (160, 192), (256, 256))),
])  # fmt: skip
def test_export_parity(options: ExportOptions, mutual: bool) -> None:
    loaded, model = _exported(options, mutual)
    graph = loaded.spec.family.graph(loaded.network, options.max_matches)
    for inputs in sample_inputs(input_contract(ELOFTR_INPUT, options), 8):
        difference = compare(run_torch(graph, inputs), run_onnx(model, inputs), 0.0)
        assert difference.same and difference.matches >= 5 * options.batch, difference
    assert not {"NonZero", "Loop", "If"} & {node.op_type for node in model.graph.node}


@pytest.mark.slow
def test_position_numbers_of_dynamic_graphs_stay_fp32() -> None:
    options = ExportOptions(160, 192, 64, Profile((128, 128), (160, 192), (256, 256)))
    _, model = _exported(options, True)
    lowered, records = apply(model, "fp16", "eloftr")
    types = element_types(lowered)
    ranges = [node for node in lowered.graph.node if node.op_type == "Range" and node.output[0] in types]
    assert any(types[node.output[0]] == TensorProto.FLOAT for node in ranges)
    assert "fp16:positions" in {record.name for record in records if record.changed}
    halves = [name for name, kind in types.items() if kind == TensorProto.FLOAT16]
    assert len(halves) > 100
    for inputs in sample_inputs(input_contract(ELOFTR_INPUT, options), 8):
        outputs = run_onnx(emulate(lowered), inputs)
        assert outputs["num_matches"][0] > 0


@pytest.mark.slow
def test_static_graphs_have_no_position_numbers_to_compute() -> None:
    _, records = apply(_exported(STATIC, True)[1], "fp16", "eloftr")
    assert "fp16:positions" in {record.name for record in records if not record.changed}


@pytest.mark.slow
def test_int8() -> None:
    _, model = _exported(STATIC, True)
    for style in (ONNXRUNTIME, TENSORRT):
        check_quantised(model, "eloftr", sample_inputs(input_contract(ELOFTR_INPUT, STATIC), 8), style)


def test_optimised_configuration_scores_from_0_to_1() -> None:
    loaded = _tiny(replace(TINY, softmax=False, match=replace(TINY.match, mutual=False)))
    inputs = sample_inputs(input_contract(ELOFTR_INPUT, ExportOptions(128, 128, 32)), 8)[0]
    scores = run_torch(loaded.spec.family.graph(loaded.network, 32), inputs)["scores"]
    assert 0 < scores.max() < 1


@pytest.mark.slow
def test_build_and_match_matchanything(cli: CommandLine, tmp_path: Path) -> None:
    """The whole line with untrained weights: an engine, its input contract, matches in the image."""
    from PIL import Image

    torch.save(sharp_state(ELoFTRFamily(ELOFTR).create()), tmp_path / "x.ckpt")
    engine = tmp_path / "engine.onnx"
    ran = cli("build", "matchanything-eloftr", "--checkpoint", tmp_path / "x.ckpt", "--height", "160", "--width", "160",
              "--max-matches", "64", "--threshold", "0", "--output", engine, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    manifest = ran.json["manifest"]
    assert manifest["input"]["fitting"] == "pad-square" and manifest["input"]["kernel"] == "lanczos"
    assert not manifest["matching"]["mutual"] and manifest["family"] == "eloftr"
    for index, pixels in enumerate(shifted_pair(150, 200, (32, 32))):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    ran = cli("match", tmp_path / "0.png", tmp_path / "1.png", "--engine", engine, "--verify", "none", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["matches"] > 0 and ran.json["provenance"]["network_size0"] == [160, 160]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("matchanything-eloftr", "--height", "480", "--width", "640"), "size-square"),
        (("matchanything-eloftr", "--dynamic", "128,256,512"), "dynamic-unsupported"),
        (("eloftr", "--height", "200", "--width", "224"), "size-divisor"),
        (("eloftr", "--batch", "0"), "batch-range"),
        (("eloftr", "--batch", "2", "--dynamic", "128,256,512"), "batch-range"),
    ],
)
def test_bad_options(cli: CommandLine, arguments: tuple[str, ...], code: str) -> None:
    cli.fails(code, "build", *arguments)


@pytest.mark.parametrize("profile", [None, Profile((128, 128), (160, 192), (256, 256))], ids=["static", "dynamic"])
def test_parts_have_the_bits_of_the_whole(profile: Profile | None) -> None:
    """Static graphs compute both images in one batch; the pyramid's first convolutions are in the second part."""
    _, model = _exported(ExportOptions(160, 192, 64, profile=profile), True)
    options = ExportOptions(160, 192, 64, profile=profile)
    inputs = sample_inputs(input_contract(ELOFTR_INPUT, options), 8)[0]
    features = require_same_bits(model, inputs)
    convolutions = [node.name for node in features.graph.node if node.op_type == "Conv"]
    assert convolutions and not any("fine_preprocess" in name for name in convolutions)
    assert any(node.op_type == "Softmax" for node in features.graph.node)  # the first layer of self-attention
