"""RoMa's engine: contract, torch's own numbers, the runtime around it, and TensorRT's builder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from support.pictures import texture
from support.quantised import check_quantised
from support.roma import register_tiny, roma_files, roma_state
from support.split import require_same_bits

from matchrt.building.parity import compare, run_onnx, sample_inputs
from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.export.passes.aside import put_back, set_aside
from matchrt.export.precision import apply
from matchrt.export.precision.emulation import emulate
from matchrt.export.quantization.styles import ONNXRUNTIME, TENSORRT, QuantStyle
from matchrt.families.presets import configure
from matchrt.families.registry import get_spec
from matchrt.families.roma import ROMA_PRESETS
from matchrt.manifest import EngineManifest, InputContract, manifest_path, read_manifest
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions
from matchrt.store import EngineStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    """The registry's RoMa models, small."""
    patch = pytest.MonkeyPatch()
    register_tiny(patch)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, tiny: None) -> Path:
    """Coarse 112, fine 168, both ways, dense outputs; built by the whole line, which proves it against torch."""
    folder = tmp_path_factory.mktemp("roma")
    own, dinov2 = roma_files(roma_state())
    torch.save({"state_dict": {f"matcher.model.{k}": v for k, v in own.items()}}, folder / "ma.ckpt")
    torch.save(dinov2, folder / "dinov2.pth")
    request = BuildRequest(
        "matchanything-roma",
        folder / "ma.ckpt",
        folder / "dinov2.pth",
        height=168,
        width=168,
        family_options={"coarse": (112, 112)},
        max_matches=128,
        dense=True,
        output=folder / "roma.onnx",
    )
    return build(request, EngineStore(folder / "store")).path


@pytest.fixture(scope="module")
def manifest(engine: Path) -> EngineManifest:
    return read_manifest(manifest_path(engine))


def test_contract(manifest: EngineManifest) -> None:
    assert {s.name: (s.dtype, s.shape) for s in (*manifest.inputs, *manifest.outputs)} == {
        "image0": ("uint8", (1, 168, 168, 3)),
        "image1": ("uint8", (1, 168, 168, 3)),
        "coarse0": ("uint8", (1, 112, 112, 3)),
        "coarse1": ("uint8", (1, 112, 112, 3)),
        "keypoints0": ("float32", (1, 128, 2)),
        "keypoints1": ("float32", (1, 128, 2)),
        "scores": ("float32", (1, 128)),
        "num_matches": ("int32", (1,)),
        "warp": ("float32", (1, 168, 336, 4)),
        "certainty": ("float32", (1, 168, 336)),
    }
    assert manifest.input.coarse == (112, 112) and manifest.input.fitting == "stretch"
    assert manifest.source.name == "ma.ckpt and dinov2.pth" and manifest.checks["parity_matches"] >= 100


def test_dense_outputs_are_torchs(engine: Path, manifest: EngineManifest) -> None:
    from support.roma import tiny_roma

    inputs = sample_inputs(manifest.input, 8, seed=5)[0]
    model = onnx.load(str(engine))
    images = [torch.from_numpy(inputs[n]).permute(0, 3, 1, 2) / 255 for n in ("coarse0", "coarse1", "image0", "image1")]
    with torch.inference_mode():
        expected = tiny_roma()(*images)
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    warp, certainty = session.run(["warp", "certainty"], inputs)
    assert np.abs(warp - expected.warp.numpy()).max() * 168 / 2 <= 1e-3
    assert np.abs(certainty - expected.certainty.numpy()).max() <= 1e-3


@pytest.mark.parametrize("style", [ONNXRUNTIME, TENSORRT])
def test_int8(engine: Path, manifest: EngineManifest, style: QuantStyle) -> None:
    quantised = check_quantised(onnx.load(str(engine)), "roma", sample_inputs(manifest.input, 8, seed=5), style)
    solving = [n for n in quantised.graph.node if n.name.startswith("decoder.gps") and n.op_type == "MatMul"]
    assert solving and not any(name.endswith("/dequantize") for node in solving for name in node.input)


def test_engine_graph_has_what_engines_take(engine: Path) -> None:
    operators = {node.op_type for node in onnx.load(str(engine)).graph.node}
    assert not operators & {"GridSample", "NonZero", "Loop", "If", "Scan", "Einsum", "BatchNormalization", "ScatterND"}


def test_matcher_gives_pixels_of_the_images_as_given(engine: Path) -> None:
    image0, image1 = (np.repeat(texture(200, 300, seed)[:, :, None], 3, axis=2) for seed in (0, 1))
    with Matcher(engine) as matcher:
        matches, dense = matcher.match(image0, image1), matcher.match_dense(image0, image1)
    assert len(matches) and dense.warp.shape == (168, 336, 4)
    points0, points1 = dense.to_pixels(dense.warp.reshape(-1, 4))
    for points, found in ((points0, matches.keypoints0), (points1, matches.keypoints1)):
        assert points.min() >= -0.5 - 1e-3 and points[:, 0].max() <= 299.5 + 1e-3 and points[:, 1].max() <= 199.5 + 1e-3
        distances = np.abs(found[:10, None] - points[None]).max(axis=2)
        assert distances.min(axis=1).max() < 1e-2  # the engine's matches lie on the dense warp


def test_official_sampler_is_seeded(engine: Path) -> None:
    image0, image1 = (np.repeat(texture(180, 180, seed)[:, :, None], 3, axis=2) for seed in (0, 1))

    def drawn(seed: int) -> Any:
        with Matcher(engine, MatcherOptions(sample=200, seed=seed)) as matcher:
            return matcher.match(image0, image1)

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert len(first) == 200 and np.array_equal(first.keypoints0, again.keypoints0)
    assert not np.array_equal(first.keypoints0, other.keypoints0)
    assert (np.diff(first.scores) <= 0).all()


def test_sampling_and_dense_need_a_dense_engine(coarse_engine: Path) -> None:
    with pytest.raises(MatchRTError) as caught:
        Matcher(coarse_engine, MatcherOptions(sample=10))
    assert caught.value.code == "dense-missing"


def test_half_precision_keeps_the_types_of_the_contract(engine: Path, manifest: EngineManifest) -> None:
    model = onnx.load(str(engine))
    lowered, records = apply(model, "fp16", "roma")
    assert all(record.changed for record in records if record.name.startswith("fp16"))
    halves = {i.name for i in lowered.graph.initializer if i.data_type == onnx.TensorProto.FLOAT16}
    assert not any(name.startswith(("decoder.gps", "graph")) for name in halves) and len(halves) > 50
    inputs = sample_inputs(manifest.input, 8)[0]
    expected, actual = run_onnx(model, inputs), run_onnx(emulate(lowered), inputs)
    # Random weights leave anchors of nearly the same logit, of which rounding may choose the other: most must agree.
    assert compare(expected, actual, 0.05).matches >= 30


def test_tensorrt_rtx_builds_it_without_a_gpu(engine: Path, tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    lowered, _ = apply(onnx.load(str(engine)), "fp16", "roma")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse(lowered.SerializeToString()), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    config.clear_flag(trt.BuilderFlag.TF32)
    assert builder.build_serialized_network(network, config) is not None


def test_weights_set_aside_come_back(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchrt.export.passes.aside.MIN_TOTAL", 0)
    monkeypatch.setattr("matchrt.export.passes.aside.MIN_BYTES", 4096)
    model = onnx.load(str(engine))
    before = {i.name: i.raw_data for i in model.graph.initializer}
    weights = set_aside(model)
    assert len(weights) > 5 and len(model.graph.input) == 4 + len(weights)
    put_back(model, weights, "network.")
    assert {i.name: i.raw_data for i in model.graph.initializer} == before and len(model.graph.input) == 4


def _contract(request: BuildRequest) -> InputContract:
    configured = configure(get_spec(request.model), request)
    options = ExportOptions(configured.height, configured.width, coarse=configured.spec.family.coarse)
    return input_contract(configured.spec.preprocess, options)


@pytest.mark.parametrize(
    ("request_", "code", "remedy"),
    [
        (BuildRequest("matchanything-roma", family_options={"coarse": (550, 560)}), "size-divisor", "504 and 560"),
        (BuildRequest("matchanything-roma", height=860, width=864), "size-divisor", "856 and 864"),
        (
            BuildRequest("matchanything-roma", height=568, width=560, family_options={"single_pass": True}),
            "size-divisor",
            "560 and 616",
        ),
        (BuildRequest("matchanything-roma", family_options={"coarse": (56, 56)}), "size-range", "range"),
        (BuildRequest("matchanything-roma", preset="quick"), "preset-unknown", "low-memory"),
        (
            BuildRequest("matchanything-roma", family_options={"coarse": (280, 280), "single_pass": True}),
            "preset-size",
            "one",
        ),
        (BuildRequest("matchanything-roma", family_options={"coarse": 560}), "size-syntax", "(560, 560)"),
        (BuildRequest("matchanything-roma", family_options={"passes": 3}), "option-model", "Leave"),
        (BuildRequest("loftr-outdoor", family_options={"single_pass": True}), "option-model", "Leave"),
        (BuildRequest("eloftr", preset="fast"), "option-model", "Leave"),
        (BuildRequest("loftr-outdoor", dense=True), "option-model", "Leave"),
    ],
)
def test_requests_that_do_not_fit(request_: BuildRequest, code: str, remedy: str) -> None:
    with pytest.raises(MatchRTError) as caught:
        _contract(request_)
    assert caught.value.code == code and remedy in caught.value.remedy


def test_presets() -> None:
    for preset in ROMA_PRESETS:
        contract = _contract(BuildRequest("roma-outdoor", preset=preset.name))
        assert (contract.height, contract.width) == preset.size and contract.coarse == preset.options["coarse"]
    official = _contract(BuildRequest("roma-outdoor"))
    assert official.coarse == (560, 560) and (official.height, official.width) == (864, 864)
    one_way = configure(get_spec("roma-outdoor"), BuildRequest("roma-outdoor", preset="fast"))
    assert one_way.mutual is False and one_way.spec.family.coarse is None
    assert configure(get_spec("roma-outdoor"), BuildRequest("roma-outdoor")).mutual is None
    both_ways = configure(get_spec("roma-outdoor"), BuildRequest("roma-outdoor", preset="fast", mutual=True))
    assert both_ways.mutual is True


def test_parts_have_the_bits_of_the_whole(engine: Path, manifest: EngineManifest) -> None:
    """The features of both passes are computed once an image."""
    features = require_same_bits(onnx.load(str(engine)), sample_inputs(manifest.input, 8, seed=5)[0])
    assert sum(node.op_type == "Conv" for node in features.graph.node) > 16
