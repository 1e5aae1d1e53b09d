"""RoMa v2's engine: contract, torch's own numbers, the runtime around it, and TensorRT's builder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.pictures import texture
from support.quantised import check_quantised
from support.romav2 import register_tiny, romav2_file, romav2_state, tiny_romav2

from matchrt.building.parity import compare, run_onnx, sample_inputs
from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.export.precision import apply
from matchrt.export.precision.emulation import emulate
from matchrt.export.quantization.styles import ONNXRUNTIME, TENSORRT, QuantStyle
from matchrt.families.presets import configure
from matchrt.families.registry import get_spec
from matchrt.families.romav2 import ROMAV2_PRESETS
from matchrt.manifest import EngineManifest, InputContract, manifest_path, read_manifest
from matchrt.runtime.matcher import Matcher
from matchrt.store import EngineStore

pytestmark = pytest.mark.slow
# Operators that engines lack, or that say that a rotation was not made a constant.
FOREIGN = {
    *("GridSample", "NonZero", "Loop", "If", "Scan", "Einsum", "BatchNormalization", "ScatterND", "ScatterElements"),
    *("Range", "Tile", "Sin", "Cos"),
}


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """The registry's RoMa v2, small."""
    patch = pytest.MonkeyPatch()
    register_tiny(patch)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coarse 64x96, fine 96x128, both ways, dense outputs; built by the whole line, which proves it against torch."""
    folder = tmp_path_factory.mktemp("romav2")
    torch.save(romav2_file(romav2_state()), folder / "romav2.pt")
    request = BuildRequest(
        "romav2",
        folder / "romav2.pt",
        height=96,
        width=128,
        mutual=True,
        family_options={"coarse": (64, 96)},
        max_matches=128,
        dense=True,
        output=folder / "romav2.onnx",
    )
    built = build(request, EngineStore(folder / "store"))
    assert any("2.0.0" in note for note in built.notes)
    return built.path


@pytest.fixture(scope="module")
def manifest(engine: Path) -> EngineManifest:
    return read_manifest(manifest_path(engine))


def test_contract(manifest: EngineManifest) -> None:
    assert {s.name: (s.dtype, s.shape) for s in (*manifest.inputs, *manifest.outputs)} == {
        "image0": ("uint8", (1, 96, 128, 3)),
        "image1": ("uint8", (1, 96, 128, 3)),
        "coarse0": ("uint8", (1, 64, 96, 3)),
        "coarse1": ("uint8", (1, 64, 96, 3)),
        "keypoints0": ("float32", (1, 128, 2)),
        "keypoints1": ("float32", (1, 128, 2)),
        "scores": ("float32", (1, 128)),
        "num_matches": ("int32", (1,)),
        "warp": ("float32", (1, 96, 256, 4)),
        "certainty": ("float32", (1, 96, 256)),
        "precision": ("float32", (1, 96, 256, 3)),
    }
    assert manifest.input.coarse == (64, 96) and manifest.input.fitting == "stretch"
    assert manifest.matching.mutual and manifest.matching.threshold == 0.05
    assert "DINOv3" in manifest.source.licence and manifest.checks["parity_matches"] >= 20


def test_the_warp_is_torchs(engine: Path, manifest: EngineManifest) -> None:
    inputs = sample_inputs(manifest.input, 8, seed=5)[0]
    images = [torch.from_numpy(inputs[n]).permute(0, 3, 1, 2) / 255 for n in ("coarse0", "coarse1", "image0", "image1")]
    network = tiny_romav2()
    state = {k: v.bfloat16().float() if k.startswith("f.") else v for k, v in network.state_dict().items()}
    for key in [key for key in state if key.startswith("f.") and key.endswith("qkv.bias")]:
        state[key][64:128] = 0  # the mask
    network.load_state_dict(state)
    network.config = configure(get_spec("romav2"), BuildRequest("romav2")).spec.family.with_matching(None, True).config
    with torch.inference_mode():
        expected = network(*images)
    actual = run_onnx(onnx.load(str(engine)), inputs)
    left, right = expected.warp.clamp(-1, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(actual["warp"][0, :, :128, 2:] - left).max() * 128 / 2 <= 1e-3  # pixels
    assert np.abs(actual["warp"][0, :, 128:, :2] - right).max() * 128 / 2 <= 1e-3
    inside = (expected.warp.abs().amax(dim=1) <= 1).numpy()
    overlap = np.concatenate(list(expected.overlap[:, 0].numpy() * inside), axis=1)
    assert np.abs(actual["certainty"][0] - overlap).max() <= 1e-3 and inside.any() and not inside.all()
    assert expected.precision is not None
    precision = np.concatenate(list(expected.precision.permute(0, 2, 3, 1).numpy()), axis=1)
    assert np.abs(actual["precision"][0] - precision).max() <= 1e-3 * precision.max()


def test_the_graph_has_what_engines_take(engine: Path) -> None:
    model = onnx.load(str(engine))
    assert not {node.op_type for node in model.graph.node} & FOREIGN
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"} and model.opset_import[0].version == 18


def test_the_matcher_gives_pixels_of_the_images_as_given(engine: Path) -> None:
    image0, image1 = (np.repeat(texture(200, 300, seed)[:, :, None], 3, axis=2) for seed in (0, 1))
    with Matcher(engine) as matcher:
        matches, dense = matcher.match(image0, image1), matcher.match_dense(image0, image1)
    assert len(matches) and dense.warp.shape == (96, 256, 4)
    assert dense.precision is not None and (np.linalg.eigvalsh(dense.precision) > 0).all()
    points0, points1 = dense.to_pixels(dense.warp.reshape(-1, 4))
    for points, found in ((points0, matches.keypoints0), (points1, matches.keypoints1)):
        assert points.min() >= -0.5 - 1e-3 and points[:, 0].max() <= 299.5 + 1e-3 and points[:, 1].max() <= 199.5 + 1e-3
        distances = np.abs(found[:10, None] - points[None]).max(axis=2)
        assert distances.min(axis=1).max() < 1e-2  # the engine's matches lie on the dense warp


def test_half_precision_keeps_the_warp(engine: Path, manifest: EngineManifest) -> None:
    model = onnx.load(str(engine))
    lowered, records = apply(model, "fp16", "romav2")
    assert all(record.changed for record in records if record.name.startswith("fp16"))
    inputs = sample_inputs(manifest.input, 8)[0]
    expected, actual = run_onnx(model, inputs), run_onnx(emulate(lowered), inputs)
    # Random weights, whose warp jumps from pixel to pixel: a trained one's is smooth.
    off = np.abs(expected["warp"] - actual["warp"]).max(axis=3)[expected["certainty"] > 0.5] * 128 / 2
    assert off.size and np.median(off) <= 0.3 and compare(expected, actual, 0.05).matches >= 20


@pytest.mark.parametrize("style", [ONNXRUNTIME, TENSORRT])
def test_int8(engine: Path, manifest: EngineManifest, style: QuantStyle) -> None:
    check_quantised(onnx.load(str(engine)), "romav2", sample_inputs(manifest.input, 8, seed=5), style)


def _contract(request: BuildRequest) -> InputContract:
    configured = configure(get_spec(request.model), request)
    options = ExportOptions(configured.height, configured.width, coarse=configured.spec.family.coarse)
    return input_contract(configured.spec.preprocess, options)


@pytest.mark.parametrize(
    ("request_", "code", "remedy"),
    [
        (BuildRequest("romav2", height=650, width=640), "size-divisor", "640 and 656"),
        (
            BuildRequest("romav2", preset="precise", family_options={"coarse": (810, 800)}),
            "size-divisor",
            "800 and 816",
        ),
        (BuildRequest("romav2", preset="official"), "preset-unknown", "precise"),
        (BuildRequest("romav2", family_options={"coarse": (320, 320), "single_pass": True}), "preset-size", "one"),
    ],
)
def test_requests_that_do_not_fit(request_: BuildRequest, code: str, remedy: str) -> None:
    with pytest.raises(MatchRTError) as caught:
        _contract(request_)
    assert caught.value.code == code and remedy in caught.value.remedy


def test_presets() -> None:
    for preset in ROMAV2_PRESETS:
        request = BuildRequest("romav2", preset=preset.name)
        contract, configured = _contract(request), configure(get_spec("romav2"), request)
        assert (contract.height, contract.width) == preset.size and contract.coarse == preset.options["coarse"]
        assert configured.mutual is (preset.name == "precise")
    usual = configure(get_spec("romav2"), BuildRequest("romav2"))
    assert (usual.height, usual.width, usual.mutual) == (640, 640, None) and not usual.spec.family.config.symmetric
    both = configure(get_spec("romav2"), BuildRequest("romav2", preset="turbo", mutual=True))
    assert both.mutual is True and both.spec.family.coarse is None
    single = configure(
        get_spec("romav2"), BuildRequest("romav2", preset="precise", family_options={"single_pass": True})
    )
    assert single.spec.family.coarse is None
