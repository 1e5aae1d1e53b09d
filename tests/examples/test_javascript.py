"""The example in JavaScript: the same input bytes as in Python, and the same matches in both of npm's runtimes."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from support.javascript import EXAMPLE, evaluate, node, node_modules
from support.pictures import shifted_pair

from matchrt.manifest import InputContract, manifest_path, read_manifest
from matchrt.runtime.bundled import BUNDLED, bundled_path
from matchrt.runtime.colours import to_grey
from matchrt.runtime.fit import fit_image
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.resize import resize_into
from matchrt.runtime.workspace import Workspace

ENGINE = bundled_path("loftr-lite")
SIZES = [
    # height, width; new height, new width: OpenCV has code of its own for several of these
    (100, 150, 106, 160), (120, 160, 60, 80), (120, 160, 25, 83), (120, 160, 240, 320), (120, 160, 125, 75),
    (120, 160, 75, 175), (97, 131, 64, 64), (97, 131, 200, 100), (120, 160, 120, 80), (120, 160, 60, 160),
    (120, 160, 121, 160), (120, 160, 40, 53), (120, 160, 40, 40), (90, 64, 90, 64),
]  # fmt: skip


def _coded(pixels: np.ndarray) -> str:
    return base64.b64encode(pixels.tobytes()).decode()


def test_resized_images_have_opencv_s_integers() -> None:
    generator = np.random.default_rng(4)
    images = [generator.integers(0, 256, size[:2], dtype=np.uint8) for size in SIZES]
    given = [[_coded(image), *size] for image, size in zip(images, SIZES, strict=True)]
    answers = evaluate(
        "given.map(([bytes, h, w, nh, nw]) => "
        "Buffer.from(resize(new Uint8Array(Buffer.from(bytes, 'base64')), w, h, nw, nh)).toString('base64'))",
        given,
    )
    for image, size, answer in zip(images, SIZES, answers, strict=True):
        expected = np.empty(size[2:], np.uint8)
        resize_into(image, expected, "area-linear", Workspace())
        assert np.array_equal(np.frombuffer(base64.b64decode(answer), np.uint8).reshape(size[2:]), expected), size


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_has_opencv_s_integers(channels: int) -> None:
    image = np.random.default_rng(5).integers(0, 256, (64, 80, channels), dtype=np.uint8)
    answer = evaluate(
        "Buffer.from(toGrey(new Uint8Array(Buffer.from(given[0], 'base64')), given[1])).toString('base64')",
        [_coded(image), channels],
    )
    expected = np.empty((64, 80), np.uint8)
    if channels == 1:
        expected = image[:, :, 0]
    else:
        to_grey(image, "rgb" if channels == 3 else "rgba", expected)
    assert base64.b64decode(answer) == expected.tobytes()


def test_images_are_fitted_as_in_python() -> None:
    dynamic = read_manifest(manifest_path(ENGINE))
    letterbox = InputContract(1, 32, "letterbox", "area-linear", height=480, width=640)
    contracts = (dynamic.input, letterbox, replace(letterbox, divisor=8, fitting="stretch"))
    manifests = [
        {"divisor": c.divisor, "fitting": c.fitting, "height": c.height, "width": c.width,
         "profile": None if c.profile is None else asdict(c.profile)}
        for c in contracts
    ]  # fmt: skip
    sizes = [(h, w) for h in (16, 47, 240, 401, 600, 1080, 5000) for w in (16, 100, 333, 640, 1921, 4096)]
    asked = [(size, which, side) for size in sizes for which in range(3) for side in (320, 640, 832)]
    answers = evaluate("given[1].map(([s, m, l]) => fitImage(s[0], s[1], given[0][m], l))", [manifests, asked])
    for (size, which, side), answer in zip(asked, answers, strict=True):
        fit = fit_image(size, contracts[which], side)
        assert answer == {
            "height": fit.resized_height, "width": fit.resized_width, "canvasHeight": fit.canvas_height,
            "canvasWidth": fit.canvas_width, "scaleX": fit.scale_x, "scaleY": fit.scale_y,
        }, (size, which, side)  # fmt: skip


def _changed(path: tuple[str, ...], value: Any) -> str:
    raw = json.loads(Path(f"{ENGINE}.json").read_text())
    place = raw
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("no JSON", "manifest-invalid", "not JSON"),
        ("{}", "manifest-invalid", "no 'input'"),
        (_changed(("input", "channels"), 3), "engine-unsupported", "colour"),
        (_changed(("input", "kernel"), "bicubic"), "engine-unsupported", "bicubic"),
        (_changed(("input", "frames"), {}), "engine-unsupported", "frames"),
        (_changed(("backend",), "tensorrt"), "engine-unsupported", "tensorrt"),
        (_changed(("input", "profile"), None), "manifest-invalid", "no size"),
        (_changed(("matching", "default_score"), "much"), "manifest-invalid", "default_score"),
    ],
)
def test_manifests_that_do_not_fit_are_refused_by_name(text: str, code: str, says: str) -> None:
    tried = "(() => { try { return matchrt.readManifest(given) } catch (e) { return [e.code, e.message] } })()"
    found = evaluate(tried, text)
    assert found[0] == code and says in found[1]


def test_arrays_that_are_no_images_are_refused() -> None:
    text = Path(f"{ENGINE}.json").read_text()
    tried = (
        "given.images.map((image) => { const data = { ...image, data: Uint8Array.from(image.data) }; "
        "try { return matchrt.prepareImage(data, matchrt.readManifest(given.text)) } catch (e) { return e.code } })"
    )
    images = [
        {"data": [0] * 9, "width": 20, "height": 20, "channels": 1},
        {"data": [0] * 64, "width": 8, "height": 8, "channels": 1},
        {"data": [0] * 800, "width": 20, "height": 20, "channels": 2},
        {"data": [0] * 528, "width": 16.5, "height": 32, "channels": 1},
        {"data": [0], "width": 1, "height": 1, "channels": 1},
    ]
    codes = ["image-array", "image-too-small", "image-array", "image-array", "image-too-small"]
    assert evaluate(tried, {"text": text, "images": images}) == codes


@pytest.mark.parametrize("data", ["new Float32Array(4096)", "'a'.repeat(4096)", "Array(4096).fill(0)", "undefined"])
def test_data_that_are_no_bytes_are_refused(data: str) -> None:
    tried = (
        f"(() => {{ try {{ return matchrt.prepareImage({{ data: {data}, width: 64, height: 64, channels: 1 }}, "
        "matchrt.readManifest(given)) } catch (e) { return e.code } })()"
    )
    assert evaluate(tried, Path(f"{ENGINE}.json").read_text()) == "image-array"


def test_options_out_of_range_are_refused() -> None:
    fitted = (
        "given.map((side) => { try { return fitImage(64, 64, { profile: {} }, side ?? NaN) } "
        "catch (e) { return e.code } })"
    )
    assert evaluate(fitted, [None, 0, -5, 1.5, "640"]) == ["option-range"] * 5
    decoded = (
        "given.map((score) => { try { return matchrt.decodeMatches({}, { num_matches: { data: [0] }, "
        "scores: { data: [] } }, [], score ?? NaN) } catch (e) { return e.code } })"
    )
    assert evaluate(decoded, [None, -0.1, 2, "0.5"]) == ["option-range"] * 4


@pytest.mark.parametrize("model", BUNDLED)
@pytest.mark.parametrize("package", ["onnxruntime-node", "onnxruntime-web"])
def test_both_runtimes_of_npm_give_python_s_matches(package: str, model: str, tmp_path: Path) -> None:
    modules = node_modules(package, "sharp")
    engine = bundled_path(model)
    for name in EXAMPLE.glob("*.mjs"):
        shutil.copy(name, tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, grey in zip(paths, shifted_pair(120, 160, (16, 8)), strict=True):
        colours = np.stack([grey, 255 - grey // 2, grey // 3], 2)  # so that the conversion to grey matters
        PILImage.fromarray(colours).save(path)
    command = [node(), "match.mjs", str(engine), *map(str, paths), "--json", "found.json"]
    command += ["--web"] if package == "onnxruntime-web" else []
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    with Matcher(model) as matcher:
        expected = matcher.match(*paths)
    assert len(expected) > 100 and found["count"] == len(expected)
    ours = _by_place(found["keypoints0"], found["keypoints1"], found["scores"])
    theirs = _by_place(expected.keypoints0, expected.keypoints1, expected.scores)
    assert np.abs(ours[:, :4] - theirs[:, :4]).max() < 1e-3
    assert np.abs(ours[:, 4] - theirs[:, 4]).max() < 1e-4


def _by_place(keypoints0: Any, keypoints1: Any, scores: Any) -> np.ndarray:
    """Rows x0, y0, x1, y1, score by place: the order of equal scores is the runtime's."""
    rows = np.column_stack([np.reshape(keypoints0, (-1, 2)), np.reshape(keypoints1, (-1, 2)), scores])
    return rows[np.lexsort((rows[:, 0].round(2), rows[:, 1].round(2)))]
