"""The bundled engines in runtimes that matchrt does not drive: what docs/other-runtimes.md says of them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from matchrt.manifest import manifest_path, read_manifest
from matchrt.runtime.bundled import BUNDLED, bundled_path
from matchrt.runtime.fit import apply_fit, fit_image
from matchrt.runtime.matcher import Matcher

IMAGES = Path(__file__).resolve().parents[2] / "examples" / "images"
ENGINE = bundled_path("loftr-lite")
every_bundled = pytest.mark.parametrize("model", BUNDLED)


@every_bundled
def test_openvino_alone_gives_the_same_matches(model: str) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    from examples.openvino.match import match

    paths = [str(IMAGES / f"cup_{side}.jpg") for side in (0, 1)]
    keypoints0, keypoints1, scores = match(str(bundled_path(model)), *paths)
    with Matcher(model) as matcher:
        expected = matcher.match(*paths)
    assert len(scores) == len(expected) > 1000
    ours = np.hstack([keypoints0, keypoints1, scores[:, None]])
    theirs = np.hstack([expected.keypoints0, expected.keypoints1, expected.scores[:, None]])
    ours, theirs = (rows[np.lexsort((rows[:, 0].round(2), rows[:, 1].round(2)))] for rows in (ours, theirs))
    assert np.abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize("size", [(97, 131), (16, 3000), (3000, 100), (720, 1280)])
def test_the_openvino_example_prepares_images_as_matchrt_does(size: tuple[int, int], tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    from examples.openvino.match import prepare

    grey = np.random.default_rng(6).integers(0, 256, size, dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    manifest = read_manifest(manifest_path(ENGINE))
    prepared, _ = prepare(str(tmp_path / "grey.png"), json.loads(manifest_path(ENGINE).read_text())["input"])
    fit = fit_image(size, manifest.input, 640)
    assert np.array_equal(prepared[0], apply_fit(grey[..., None], fit).reshape(*fit.canvas_hw, 1))


@every_bundled
def test_opencv_s_own_runtime_refuses_the_graph(model: str) -> None:
    """If this fails, OpenCV has learnt to read the graph: measure its matches, and change docs/other-runtimes.md."""
    engine = getattr(cv2.dnn, "ENGINE_CLASSIC", None)
    with pytest.raises(cv2.error, match=r"(?i)shape|not supported|unsupported|assert|Can't create layer"):
        cv2.dnn.readNetFromONNX(str(bundled_path(model)), *([] if engine is None else [engine]))


@pytest.mark.slow
@every_bundled
def test_opencv_s_new_runtime_reads_the_graph_and_fails_in_it(model: str) -> None:
    engine = getattr(cv2.dnn, "ENGINE_NEW", None)
    if engine is None:
        pytest.skip(f"OpenCV {cv2.__version__} has the classic engine only")
    black = np.zeros((1, 96, 128, 1), np.uint8)
    with pytest.raises(cv2.error):
        network = cv2.dnn.readNetFromONNX(str(bundled_path(model)), engine)
        for name in ("image0", "image1"):
            network.setInput(black, name)
        network.forward(["keypoints0", "keypoints1", "scores", "num_matches"])
