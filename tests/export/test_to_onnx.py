"""The exported graph: its contract, and torch's own numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.pictures import shifted_pair
from support.weights import random_network

from matchrt.building.parity import compare, run_onnx, run_torch, sample_inputs
from matchrt.errors import MatchRTError
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.export.passes.base import run_passes
from matchrt.export.passes.standard import standard_passes
from matchrt.export.to_onnx import export_onnx
from matchrt.export.weights.network import LoadedNetwork, load_network
from matchrt.families.loftr import LOFTR_INPUT
from matchrt.families.registry import get_spec
from matchrt.manifest import Profile
from matchrt.models.loftr.config import LOFTR_LITE
from matchrt.models.parts.engine_graph import EngineGraph
from matchrt.runtime.engine_file import read_engine

PROFILE = Profile((64, 64), (192, 256), (512, 512))


def _shapes(values: object) -> dict[str, list[int | str]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}  # type: ignore


@pytest.fixture(scope="module")
def bundled() -> LoadedNetwork:
    """The trained bundled network: its matches are confident, so equal means something."""
    return load_network(get_spec("loftr-lite"))


@pytest.fixture(scope="module")
def static_graph(bundled: LoadedNetwork) -> onnx.ModelProto:
    return run_passes(export_onnx(bundled, ExportOptions(192, 256, max_matches=512)), standard_passes())[0]


@pytest.fixture(scope="module")
def shallow() -> LoadedNetwork:
    """The bundled network with a quarter of its layers and random weights: symbolic sizes make exports slow."""
    config = replace(
        LOFTR_LITE,
        coarse=replace(LOFTR_LITE.coarse, layers=("self", "cross")),
        match=replace(LOFTR_LITE.match, threshold=0.0),
    )
    return LoadedNetwork(get_spec("loftr-lite"), random_network(config), None, None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dynamic_graph(shallow: LoadedNetwork) -> onnx.ModelProto:
    options = ExportOptions(192, 256, max_matches=512, profile=PROFILE)
    return run_passes(export_onnx(shallow, options), standard_passes())[0]


def test_static_contract(static_graph: onnx.ModelProto) -> None:
    assert _shapes(static_graph.graph.input) == {
        "image0": [1, 192, 256, 1], "image1": [1, 192, 256, 1], "size0": [1, 2], "size1": [1, 2]
    }  # fmt: skip
    assert _shapes(static_graph.graph.output) == {
        "keypoints0": [1, 512, 2], "keypoints1": [1, 512, 2], "scores": [1, 512], "num_matches": [1]
    }  # fmt: skip
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*static_graph.graph.input, *static_graph.graph.output)}
    tensor = onnx.TensorProto
    assert kinds["image0"] == tensor.UINT8 and kinds["size0"] == tensor.INT32
    assert kinds["scores"] == kinds["keypoints0"] == tensor.FLOAT and kinds["num_matches"] == tensor.INT32


def test_dynamic_contract(dynamic_graph: onnx.ModelProto) -> None:
    assert _shapes(dynamic_graph.graph.input) == {
        "image0": [1, "height0", "width0", 1], "image1": [1, "height1", "width1", 1]
    }  # fmt: skip
    assert _shapes(dynamic_graph.graph.output)["scores"] == [1, 512]


def test_static_parity_with_padding(bundled: LoadedNetwork, static_graph: onnx.ModelProto) -> None:
    graph = EngineGraph(bundled.network, 512)
    for seed in (0, 1):
        inputs = sample_inputs(input_contract(LOFTR_INPUT, ExportOptions(192, 256)), 8, seed)[0]
        difference = compare(run_torch(graph, inputs), run_onnx(static_graph, inputs), 0.2)
        assert difference.same and difference.matches > 100, difference


every_size = pytest.mark.parametrize(
    "sizes", [((192, 256), (192, 256)), ((64, 64), (64, 320)), ((200, 312), (136, 504))]
)
Sizes = tuple[tuple[int, int], tuple[int, int]]


@every_size
def test_dynamic_parity_at_any_size(shallow: LoadedNetwork, dynamic_graph: onnx.ModelProto, sizes: Sizes) -> None:
    """What is exported now."""
    _check_sizes(shallow, dynamic_graph, sizes, 512, 0.0)


@every_size
def test_the_bundled_engine_is_its_weights_at_any_size(bundled: LoadedNetwork, sizes: Sizes) -> None:
    """The file that is shipped, with trained weights and all layers."""
    engine = read_engine("loftr-lite")
    model = onnx.load_model_from_string(engine.data)
    _check_sizes(bundled, model, sizes, engine.manifest.matching.max_matches, engine.manifest.matching.threshold)


def _check_sizes(loaded: LoadedNetwork, model: onnx.ModelProto, sizes: Sizes, slots: int, threshold: float) -> None:
    whole, moved = shifted_pair(512, 512, (16, 8))
    inputs = {
        f"image{i}": np.ascontiguousarray(image[:h, :w])[None, :, :, None]
        for i, (image, (h, w)) in enumerate(zip((whole, moved), sizes, strict=True))
    }
    expected = run_torch(EngineGraph(loaded.network, slots), inputs)
    difference = compare(expected, run_onnx(model, inputs), threshold)
    assert difference.same and difference.matches >= 5, difference


@pytest.mark.slow
def test_full_size_network_with_random_weights() -> None:
    """The published size: 11.6 million parameters, linear attention over 8 heads, 256 channels."""
    spec = get_spec("loftr-outdoor")
    network = random_network(spec.family.config)
    loaded = LoadedNetwork(spec, network, None, None)  # type: ignore[arg-type]
    options = ExportOptions(128, 160, max_matches=128)
    model, _ = run_passes(export_onnx(loaded, options), standard_passes())
    inputs = sample_inputs(input_contract(LOFTR_INPUT, options), 8)[0]
    expected, actual = run_torch(EngineGraph(network, 128), inputs), run_onnx(model, inputs)
    difference = compare(expected, actual, network.config.match.threshold)
    assert difference.same, difference


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (ExportOptions(100, 256), "size-divisor"),
        (ExportOptions(8, 256), "size-range"),
        (ExportOptions(4096, 256), "size-range"),
        (ExportOptions(192, 256, max_matches=0), "matches-range"),
        (ExportOptions(192, 256, profile=Profile((64, 64), (32, 256), (512, 512))), "size-range"),
        (ExportOptions(192, 256, profile=Profile((64, 64), (100, 256), (512, 512))), "size-divisor"),
    ],
)
def test_sizes_that_do_not_fit(options: ExportOptions, code: str) -> None:
    with pytest.raises(MatchRTError) as caught:
        input_contract(LOFTR_INPUT, options)
    assert caught.value.code == code


def test_error_names_the_nearest_good_size() -> None:
    with pytest.raises(MatchRTError) as caught:
        input_contract(LOFTR_INPUT, ExportOptions(100, 256))
    assert "96" in caught.value.remedy and "104" in caught.value.remedy


@pytest.mark.slow
def test_trained_coarse_weights_onnx_against_torch(shared: Path) -> None:
    """Real trained weights, real photographs."""
    from matchrt.runtime.fit import apply_fit, fit_letterbox
    from matchrt.runtime.image import read_image

    checkpoint = shared / "weights" / "kolkir_coarse_loftr" / "LoFTR_teacher.pt"
    loaded = load_network(get_spec("coarse-loftr"), checkpoint)
    model, _ = run_passes(export_onnx(loaded, ExportOptions(480, 640)), standard_passes())
    inputs = {}
    for i in (0, 1):
        image = read_image(shared / "eval" / "homography" / "v_dogman" / f"{i + 1}.ppm")
        fit = fit_letterbox((image.height, image.width), (480, 640))
        inputs[f"image{i}"] = apply_fit(image.grey(), fit)[None]
        inputs[f"size{i}"] = np.array([[fit.resized_height, fit.resized_width]], np.int32)
    difference = compare(run_torch(EngineGraph(loaded.network, 2048), inputs), run_onnx(model, inputs), 0.1)
    assert difference.same and difference.matches > 200


def test_torch_threads_do_not_matter(bundled: LoadedNetwork) -> None:
    inputs = sample_inputs(input_contract(LOFTR_INPUT, ExportOptions(192, 256)), 8)[0]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run_torch(EngineGraph(bundled.network, 512), inputs)
    finally:
        torch.set_num_threads(before)
    assert compare(one, run_torch(EngineGraph(bundled.network, 512), inputs), 0.2).same
