"""Engines for frames in the runtime, with an engine that answers in a millisecond."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage
from support.commands import CommandLine
from support.tiny_engines import tiny_frames_engine

from matchrt import Matcher
from matchrt.cli.sizes import parse_frames
from matchrt.errors import MatchRTError
from matchrt.manifest import PIXELS, FrameContract, read_manifest
from matchrt.manifest.contract import check_contract
from matchrt.manifest.reading import manifest_path
from matchrt.manifest.rules import check_values
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.frame_matrices import range_inputs
from matchrt.runtime.frames import frame_array, frame_size, to_frame
from matchrt.runtime.image import Image
from matchrt.runtime.opening import open_session
from matchrt.serving.triton import export_triton

SIZES = ((80, 64), (64, 96))
FIXED = FrameContract("rgb", SIZES)
RANGE = FrameContract("rgb", None, (32, 32), (200, 300))


def noise(size: tuple[int, int], channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, channels)).astype(np.uint8)


@pytest.mark.parametrize("pixels", PIXELS)
def test_an_image_becomes_the_frame_of_a_camera(pixels: Any) -> None:
    frames = FrameContract(pixels, SIZES)
    image = Image(noise(SIZES[0]), "i")
    frame = to_frame(image, frames)
    assert frame.shape == frames.shape(SIZES[0]) and frame.dtype == np.uint8 and frame.flags.c_contiguous
    assert frame_size(frame, frames) == SIZES[0]
    if pixels == "nv12":
        smooth = Image(cv2.GaussianBlur(noise(SIZES[0]), (0, 0), 6), "i")
        back = cv2.cvtColor(to_frame(smooth, frames)[:, :, 0], cv2.COLOR_YUV2RGB_NV12)
        assert np.abs(back.astype(int) - smooth.pixels).mean() < 2
    else:
        shown = {"grey": image.grey()[:, :, None], "bgr": image.pixels[:, :, ::-1]}.get(pixels, image.pixels)
        assert np.array_equal(frame[:, :, :3], shown)


def test_arrays_of_the_frames_layout_are_taken_as_they_are() -> None:
    nv12 = FrameContract("nv12", ((64, 80),) * 2)
    for value, frames, shape in (
        (noise((64, 80)), FIXED, (64, 80, 3)),
        (noise((64, 80))[None], FIXED, (64, 80, 3)),
        (noise((96, 80), 1)[:, :, 0], nv12, (96, 80, 1)),
    ):
        found = frame_array(value, frames)
        assert found is not None and found.shape == shape and np.shares_memory(found, value)
    strange: list[Any] = [noise((64, 80), 4), noise((64, 80)).astype(np.float32), "a.png", noise((64, 80), 1)[:, :, 0]]
    assert all(frame_array(value, FIXED) is None for value in strange)
    assert frame_array(noise((95, 80), 1), nv12) is None  # no frame has so many rows


def test_a_range_gets_matrices_once_a_size(tmp_path: Path) -> None:
    manifest = read_manifest(manifest_path(tiny_frames_engine(tmp_path, RANGE)))
    first = range_inputs(manifest.input, (100, 200), 0)
    assert range_inputs(manifest.input, (100, 200), 0) is first
    assert first["rows0"].shape == (128, 100) and first["columns0"].shape == (200, 64)
    assert np.allclose(first["rows0"].sum(1), [1] * 64 + [0] * 64) and np.allclose(first["columns0"].sum(0), 1)
    grown = range_inputs(manifest.input, (40, 64), 0)  # each of OpenCV's two products is rounded by itself
    assert ((grown["rows0"] != 0).sum(1) <= 1).all() and np.allclose(grown["rows0"].reshape(2, 64, 40).sum((0, 2)), 1)
    assert grown["rounding0"][0] == 128 and first["rounding0"][2] == 0
    assert first["scale0"].tolist() == [200 / 64, 100 / 64] and first["size0"].tolist() == [[64, 64]]


def test_ranges_match_frames_of_any_size(tmp_path: Path) -> None:
    with Matcher(tiny_frames_engine(tmp_path, RANGE)) as matcher:
        for size in ((64, 64), (200, 300), (33, 157)):
            found = matcher.match(np.full((*size, 3), 51, np.uint8), noise((64, 90)))
            assert (found.image0.height, found.image0.width) == size
            assert found.provenance.network_size0 == (64, 64)
        for size in ((201, 64), (31, 64)):
            with pytest.raises(MatchRTError) as caught:
                matcher.match(noise(size), noise((64, 64)))
            assert caught.value.code == "frames-size" and "32x32 to 200x300" in caught.value.message
        matcher.warm_up()


def test_sessions_refuse_other_inputs(tmp_path: Path) -> None:
    path = tiny_frames_engine(tmp_path, RANGE)
    with Matcher(path) as matcher:
        inputs = matcher.adapter.inputs(noise((64, 64)), noise((100, 90)))
    session = open_session(read_engine(path))
    other = range_inputs(session.manifest.input, (70, 64), 0)
    for change in ({"rows0": other["rows0"]}, {"frame0": noise((20, 64))[None]}, {"scale0": np.ones(3, np.float32)}):
        with pytest.raises(MatchRTError) as caught:
            session.run({**inputs, **change})
        assert caught.value.code == "session-input"
    session.close()


def test_the_command_line_matches_files_of_the_frames_size(cli: CommandLine, tmp_path: Path) -> None:
    path = tiny_frames_engine(tmp_path, FIXED)
    files = []
    for side, size in enumerate(SIZES):
        files.append(tmp_path / f"{side}.png")
        PILImage.fromarray(noise(size, seed=side)).save(files[-1])
    ran = cli("match", *files, "--engine", path, "--json", "--min-score", "0")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["provenance"]["network_size0"] == [64, 64]
    ran = cli("match", *files[::-1], "--engine", path)
    assert ran.code == 2 and "frames-size" in ran.err
    ran = cli("inspect", path)
    assert ran.code == 0 and "80x64 and 64x96, rgb" in ran.out
    ran = cli("doctor", path, "--json")
    assert ran.code == 2 and "self-test-missing" in ran.out  # the tiny engine has too few matches for one
    ran = cli("bench", path, "--runs", "3")
    assert ran.code == 0, ran.err


def test_triton_serves_frames(tmp_path: Path) -> None:
    text = (export_triton(tiny_frames_engine(tmp_path, FIXED), tmp_path / "models") / "config.pbtxt").read_text()
    assert 'name: "frame0"' in text and "dims: [1, 80, 64, 3]" in text and "image0" not in text
    ranged = export_triton(tiny_frames_engine(tmp_path, RANGE), tmp_path / "ranges") / "config.pbtxt"
    words = ranged.read_text().split("model_warmup")
    assert "dims: [1, -1, -1, 3]" in words[0] and "-1" not in words[1] and "dims: [1, 128, 128, 3]" in words[1]


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": ((8, 64), (64, 64))},
        {"sizes": ((80, 64), (64, 1 << 17))},
        {"pixels": "nv12", "sizes": ((81, 64), (64, 96))},
        {"sizes": None, "minimum": (64, 64), "maximum": (32, 128)},
    ],
)
def test_manifests_with_impossible_frames(tmp_path: Path, change: dict[str, Any]) -> None:
    manifest = read_manifest(manifest_path(tiny_frames_engine(tmp_path, FIXED)))
    frames = replace(FIXED, **change)
    with pytest.raises(ValueError, match="frames"):
        check_values(replace(manifest, input=replace(manifest.input, frames=frames)))


def test_manifests_whose_tensors_are_others(tmp_path: Path) -> None:
    manifest = read_manifest(manifest_path(tiny_frames_engine(tmp_path, FIXED)))
    check_contract(manifest)
    for frames in (None, replace(FIXED, pixels="rgba"), replace(FIXED, sizes=(SIZES[1], SIZES[0])), RANGE):
        with pytest.raises(ValueError):
            check_contract(replace(manifest, input=replace(manifest.input, frames=frames)))
    with pytest.raises(ValueError):
        FrameContract("rgb")


def test_sizes_of_the_command_line() -> None:
    assert parse_frames(None, None) is None
    assert parse_frames("1080x1920", None) == FrameContract("rgb", ((1080, 1920),) * 2)
    assert parse_frames("1080x1920,720x1280", "nv12") == FrameContract("nv12", ((1080, 1920), (720, 1280)))
    assert parse_frames("480x640..1080x1920", "bgr") == FrameContract("bgr", None, (480, 640), (1080, 1920))
    ranged = parse_frames("any", "grey")
    assert ranged is not None and ranged.takes((2160, 3840), 0) and not ranged.takes((16, 16), 0)
    for text, pixels in (
        ("1x2x3", "rgb"), ("480x640,2x2,3x3", "rgb"), ("480x640..", "rgb"), ("0x640", "rgb"), ("", "rgb"),
        (None, "rgb"),
    ):  # fmt: skip
        with pytest.raises(MatchRTError) as caught:
            parse_frames(text, pixels)
        assert caught.value.code == "frames-syntax" and caught.value.remedy
    with pytest.raises(MatchRTError) as caught:
        parse_frames("480x640", "yuv")
    assert caught.value.code == "frames-pixels"
