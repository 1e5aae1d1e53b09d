"""Engines for frames: what `build --frames` makes, and that everything that opens engines takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image as PILImage

from matchrt.bench.scene import engine_inputs, image_pair
from matchrt.building.frames.engine import compare_with_host, frames_engine, same_matches
from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.export.precision import apply
from matchrt.manifest import EngineManifest, FrameContract, manifest_path, read_manifest
from matchrt.manifest.contract import check_contract
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.engine_checks import build_command
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.frames import to_frame
from matchrt.runtime.image import Image
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.opening import open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.self_test.prove import run_self_test
from matchrt.store import EngineStore

pytestmark = pytest.mark.slow
SIZES = ((480, 640), (400, 500))


def quiet(what: str, share: float) -> None:
    pass


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    return EngineStore(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def plain(store: EngineStore) -> EngineFile:
    """The bundled weights in a static engine of 240x320."""
    return read_engine(build(BuildRequest("loftr-lite", height=240, width=320, max_matches=512), store).path)


@pytest.fixture(scope="module")
def fixed(plain: EngineFile, store: EngineStore) -> Path:
    return frames_engine(plain, FrameContract("rgb", SIZES), store, quiet)[0].path


@pytest.fixture(scope="module")
def ranged(plain: EngineFile, store: EngineStore) -> Path:
    return frames_engine(plain, FrameContract("bgr", None, (120, 160), (720, 1280)), store, quiet)[0].path


@pytest.fixture(scope="module")
def pair() -> list[np.ndarray]:
    first, second, _ = image_pair(*SIZES[0])
    return [first, cv2.resize(second, SIZES[1][::-1], interpolation=cv2.INTER_AREA)]


def matched(file: EngineFile, *images: Any, **options: Any) -> Any:
    with Matcher(open_session(file), MatcherOptions(min_score=0.0, **options)) as matcher:
        return matcher.match(*images)


@pytest.mark.parametrize("pixels", ["rgb", "nv12", "grey"])
@pytest.mark.parametrize("sizes", [SIZES, ((720, 1280), (334, 518))])
def test_matches_are_those_of_the_host(plain: EngineFile, store: EngineStore, pixels: Any, sizes: Any) -> None:
    """At least 99.5% of the matches that the host's resize gives, within 0.05 px of the network's input."""
    path = frames_engine(plain, FrameContract(pixels, sizes), store, quiet)[0].path
    manifest = read_manifest(manifest_path(path))
    assert manifest.checks["frames_same"] >= 0.995 and manifest.checks["frames_matches"] > 200
    session = open_session(read_engine(path))
    assert compare_with_host(plain, session, seed=3).same >= 0.995
    session.close()


def test_a_range_has_the_matches_of_the_host(plain: EngineFile, ranged: Path, pair: list[np.ndarray]) -> None:
    manifest = read_manifest(manifest_path(ranged))
    for images in (pair, [pair[1], cv2.resize(pair[0], (777, 555))]):
        expected = matched(plain, *images)
        found = matched(read_engine(ranged), *(image[:, :, ::-1] for image in images))
        assert len(expected) > 200
        sizes = tuple(image.shape[:2] for image in images)
        assert same_matches(expected, found, manifest, sizes) >= 0.995


def test_files_arrays_and_prepared_images(fixed: Path, pair: list[np.ndarray], tmp_path: Path) -> None:
    with Matcher(fixed) as matcher:
        expected = matcher.match(*pair)
        assert len(expected) > 200
        assert expected.provenance.network_size0 == (240, 320)
        assert (expected.image0.height, expected.image0.width) == SIZES[0]
        paths = [tmp_path / f"{side}.png" for side in (0, 1)]
        for path, image in zip(paths, pair, strict=True):
            PILImage.fromarray(image).save(path)
        prepared = [matcher.prepare_image(path) for path in paths]
        for images in (paths, prepared, [image[None] for image in pair]):
            assert np.array_equal(matcher.match(*images).keypoints1, expected.keypoints1)
        many = list(matcher.match_many([tuple(paths), tuple(pair)]))
        assert all(np.array_equal(found.keypoints0, expected.keypoints0) for found in many)
        matcher.warm_up()


def test_other_sizes_are_refused_or_stretched(fixed: Path, pair: list[np.ndarray]) -> None:
    with Matcher(fixed) as matcher:
        for images in (pair[::-1], (pair[0], pair[0]), (pair[0][:-1], pair[1])):
            with pytest.raises(MatchRTError) as caught:
                matcher.match(*images)
            assert caught.value.code == "frames-size" and "--frames" in (caught.value.remedy or "")
    found = matched(read_engine(fixed), pair[0], pair[0], fit_frames=True)
    assert len(found) > 200 and found.image1.height == SIZES[0][0]
    error = np.abs(found.keypoints0 - found.keypoints1)
    assert np.median(error) < 1


def test_a_prepared_image_of_another_engine_is_refused(fixed: Path, plain: EngineFile, pair: list[np.ndarray]) -> None:
    other = PairAdapter(plain.manifest).prepare(pair[0])
    with Matcher(fixed) as matcher, pytest.raises(MatchRTError) as caught:
        matcher.match(other, pair[1])
    assert caught.value.code == "image-prepared"


def test_the_manifest_fits_and_says_how_to_build(fixed: Path, ranged: Path) -> None:
    for path, options in ((fixed, "--frames 480x640,400x500 --pixels rgb"), (ranged, "..720x1280 --pixels bgr")):
        manifest = read_manifest(manifest_path(path))
        check_contract(manifest)
        assert options in build_command(manifest)
        assert manifest.input.frames is not None and manifest.input.frames.name in path.name
    names = [spec.name for spec in read_manifest(manifest_path(ranged)).inputs]
    assert {"frame0", "rows0", "columns1", "scale1", "size0"} <= set(names)


def test_the_self_test_is_in_pixels_of_frames(fixed: Path, ranged: Path) -> None:
    for path in (fixed, ranged):
        file = read_engine(path)
        test = file.manifest.self_test
        assert test is not None and test.matches >= 20
        session = open_session(file)
        assert not run_self_test(session, test).failures(test)
        assert set(engine_inputs(file.manifest)) == {spec.name for spec in file.manifest.inputs}
        session.run(engine_inputs(file.manifest))
        session.close()


def test_fp16_leaves_the_frames_in_fp32(fixed: Path, store: EngineStore) -> None:
    """The rules of every family leave these nodes alone, and the engine in fp16 is judged on frames."""
    model, _ = apply(onnx.load(str(fixed)), "fp16", "loftr")
    casts = {
        name
        for node in model.graph.node
        if node.op_type == "Cast" and node.attribute[0].i == 10
        for name in node.output
    }
    frames = [node for node in model.graph.node if node.name.startswith("frames.")]
    assert len(frames) > 20 and not any(casts & set(node.input) for node in frames)
    result = build(BuildRequest(str(fixed), precision="fp16"), store)
    assert result.manifest.input.frames == FrameContract("rgb", SIZES)
    assert result.manifest.checks["precision_kept"] >= 0.99


@pytest.mark.parametrize(
    ("code", "frames", "changes"),
    [
        ("frames-dynamic", FrameContract("rgb", SIZES), {"dynamic": True}),
        ("frames-twice", FrameContract("rgb", SIZES), {"frames": FrameContract("rgb", SIZES)}),
        ("frames-batch", FrameContract("rgb", None, (64, 64), (128, 128)), {"batch": 2}),
        ("frames-batch", FrameContract("rgb", ((64, 64), (64, 64))), {"batch": 2, "any_batch": True}),
        ("frames-pixels", FrameContract("nv12", None, (64, 64), (128, 128)), {}),
        ("frames-sides", FrameContract("nv12", ((65, 64), (64, 64))), {}),
        ("frames-sides", FrameContract("rgb", ((8, 64), (64, 64))), {}),
        ("frames-sides", FrameContract("rgb", None, (128, 64), (64, 128)), {}),
    ],
)
def test_refused(plain: EngineFile, store: EngineStore, code: str, frames: FrameContract, changes: Any) -> None:
    manifest: EngineManifest = plain.manifest
    if changes.pop("dynamic", False):
        manifest = read_engine("loftr-lite").manifest
    other = replace(plain, manifest=replace(manifest, input=replace(manifest.input, **changes)))
    with pytest.raises(MatchRTError) as caught:
        frames_engine(other, frames, store, quiet)
    assert caught.value.code == code and caught.value.remedy


def test_frames_of_a_camera_are_not_copied(fixed: Path, pair: list[np.ndarray]) -> None:
    with Matcher(fixed) as matcher:
        inputs = matcher.adapter.inputs(*pair)
        assert inputs["frame0"].base is pair[0] or np.shares_memory(inputs["frame0"], pair[0])


def test_nv12_arrays(plain: EngineFile, store: EngineStore, pair: list[np.ndarray]) -> None:
    frames = FrameContract("nv12", SIZES)
    path = frames_engine(plain, frames, store, quiet)[0].path
    given = [to_frame(Image(image, "i"), frames) for image in pair]
    first = matched(read_engine(path), given[0][:, :, 0], given[1])
    assert len(first) > 200
    assert np.array_equal(first.keypoints0, matched(read_engine(path), *pair).keypoints0)
