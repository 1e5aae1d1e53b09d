"""Drawn pairs, which pairs are taken, measured ranges and their cache."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image
from support.pictures import texture
from support.small import small_engine

from matchrt.bench.drawn import drawn_pair
from matchrt.bench.pairs import drawn_pairs
from matchrt.building.calibration.cache import read_ranges
from matchrt.building.calibration.calibrate import plan_ranges
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.calibration.pairs import choose_pairs
from matchrt.building.calibration.refusals import require_quantizable
from matchrt.errors import MatchRTError
from matchrt.export.quantization.quantize import plan_quantization
from matchrt.export.quantization.ranges import check_method, measure_ranges
from matchrt.export.quantization.styles import TENSORRT
from matchrt.runtime.backend import get_backend
from matchrt.runtime.engine_file import EngineFile
from matchrt.store import EngineStore


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    return small_engine(tmp_path_factory.mktemp("small"))


def test_drawn_pairs_are_the_same_for_the_same_seed_and_fit_their_homography() -> None:
    first, again, other = drawn_pair(96, 128, 3), drawn_pair(96, 128, 3), drawn_pair(96, 128, 4)
    assert (first.image0 == again.image0).all() and (first.image1 == again.image1).all()
    assert (first.image0 != other.image0).any()
    back = cv2.warpPerspective(first.image0, first.homography, (128, 96)).astype(float).mean(axis=2)
    inside = cv2.warpPerspective(np.ones((96, 128), np.uint8), first.homography, (128, 96), flags=0) > 0
    seen = first.image1.astype(float).mean(axis=2)
    assert np.corrcoef(back[inside], seen[inside])[0, 1] > 0.9


def _images(folder: Path, count: int) -> None:
    for index in range(count):
        Image.fromarray(texture(64, 80, index)).save(folder / f"{index}.png")


def test_pairs_that_judge_do_not_calibrate(small: EngineFile, tmp_path: Path) -> None:
    _images(tmp_path, 10)
    chosen = choose_pairs(tmp_path, small.manifest.input, 0)
    names = [{pair.truth.id for pair in pairs} for pairs in (chosen.calibrating, chosen.judging)]
    assert chosen.apart and len(names[0]) == 6 and len(names[1]) == 3 and not names[0] & names[1]
    assert names[0] != {pair.truth.id for pair in choose_pairs(tmp_path, small.manifest.input, 1).calibrating}
    (tmp_path / "list.txt").write_text("0.png 1.png\n")
    lone = choose_pairs(tmp_path / "list.txt", small.manifest.input, 0)
    assert not lone.apart and lone.calibrating == lone.judging


def test_ranges_hold_what_the_graph_computes_and_are_kept(small: EngineFile, tmp_path: Path) -> None:
    plan = plan_quantization(
        onnx.load_model_from_string(small.data), "loftr", TENSORRT, only=("backbone.layer2.0.conv2/Conv_0",)
    )
    pairs, store, told = drawn_pairs(small.manifest.input, (1, 2)), EngineStore(tmp_path), []
    found, cached = plan_ranges(small, plan, pairs, "max", store, lambda what, share: told.append((what, share)))
    (tensor,) = plan.placement.tensors
    assert not cached and set(found) == {tensor} and told[-1] == ("calibrating (max), pair 2 of 2", 1.0)
    low, high = found[tensor]
    assert low == 0.0 < high  # behind a Relu
    assert plan_ranges(small, plan, pairs, "max", store, lambda what, share: None) == (found, True)
    # Another method, or other pixels, are other entries.
    clipped, cached = plan_ranges(small, plan, pairs[:1], "percentile", store, lambda what, share: None)
    assert not cached and 0.3 * high < clipped[tensor][1] <= high
    for entry in (tmp_path / ".calibration").iterdir():
        entry.write_text('{"other": [0, 1]}')
        assert read_ranges(store, entry.stem, (tensor,)) is None


def test_values_without_a_range_are_refused() -> None:
    nodes = [onnx.helper.make_node("Log", ["x"], ["y"], "log"), onnx.helper.make_node("Neg", ["y"], ["z"], "neg")]
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xz"]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", info[:1], info[1:]), ir_version=9,
                                   opset_imports=[onnx.helper.make_opsetid("", 18)])  # fmt: skip
    with pytest.raises(MatchRTError) as caught:
        measure_ranges(model, ["y"], [{"x": np.zeros(2, np.float32)}], "max", lambda: None)
    assert caught.value.code == "calibration-values"


@pytest.mark.parametrize(
    ("precision", "backend", "targets", "code"),
    [
        ("fp8", "onnxruntime", (), "precision-backend"),
        ("fp8", "tensorrt_rtx", (), "precision-target"),
        ("fp8", "tensorrt_rtx", ("8.9", "8.6"), "precision-target"),
        ("fp8", "tensorrt_rtx", ("8.9", "12.0"), None),
        ("int8", "tensorrt_rtx", (), None),
    ],
)
def test_what_cannot_end_well_is_said_in_advance(
    precision: str, backend: str, targets: tuple[str, ...], code: str | None
) -> None:
    if code is None:
        return require_quantizable(precision, backend, targets)
    with pytest.raises(MatchRTError) as caught:
        require_quantizable(precision, backend, targets)
    assert caught.value.code == code and "--precision" in caught.value.remedy
    return None


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(MatchRTError) as caught:
        require_quantizable("fp16", "onnxruntime", (), CalibrationOptions(keep=("backbone",)))
    assert caught.value.code == "calibration-unused"
    with pytest.raises(MatchRTError) as caught:
        check_method("mean")
    assert caught.value.code == "calibration-method"


def test_advice() -> None:
    rtx, full = get_backend("tensorrt_rtx"), get_backend("tensorrt")
    assert "fp16" in (rtx.advice("int8", "1.7.1.116") or "")
    assert "stops at int8 convolutions" in (rtx.advice("int8", "1.4.0.76") or "")
    assert "experimental" in (rtx.advice("fp8") or "") and rtx.advice("fp16") is None
    assert "experimental" in (full.advice("fp8") or "") and full.advice("int8") is None
    assert get_backend("onnxruntime").advice("int8") is None
