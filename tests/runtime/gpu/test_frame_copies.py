"""Frames that go straight into engines for frames, on stubs: the same matches as through the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.cuda_stub import OnGpu
from support.machines import KINDS, Machine, make_engine, save_engine

from matchrt import Matcher, MatcherOptions, Matches, MatchRTError, Nv12
from matchrt.manifest import FrameContract

every_machine = pytest.mark.parametrize("machine", KINDS, indirect=True)
Array = npt.NDArray[np.uint8]
SIZES = ((64, 96), (48, 80))
ON_GPU, ON_HOST = MatcherOptions(resize_on="gpu"), MatcherOptions(resize_on="host")
CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "grey": 1, "nv12": 1}


def frames_engine(machine: Machine, folder: Path, pixels: Any, sizes: Any = SIZES) -> Path:
    return save_engine(make_engine(machine, frames=FrameContract(pixels, sizes)), folder)


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def frames_of(pixels: str, seed: int) -> tuple[Array, Array]:
    shapes = [FrameContract(pixels, SIZES).shape(size) for size in SIZES]  # type: ignore[arg-type]
    return noise(*shapes[0], seed=seed), noise(*shapes[1], seed=seed + 1)


def same(left: Matches, right: Matches) -> bool:
    pairs = ((left.keypoints0, right.keypoints0), (left.keypoints1, right.keypoints1), (left.scores, right.scores))
    return all(np.array_equal(*pair) for pair in pairs) and left.image1.width == right.image1.width


def refused(action: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(MatchRTError) as caught:
        action(*arguments)
    assert caught.value.remedy
    return caught.value.code


@every_machine
@pytest.mark.parametrize("pixels", list(CHANNELS))
def test_frames_from_everywhere(machine: Machine, tmp_path: Path, pixels: str) -> None:
    """Plainly, captured and replayed; without a kernel of ours, since nothing is resized."""
    path = frames_engine(machine, tmp_path, pixels)
    with Matcher(path, ON_GPU) as gpu, Matcher(path, ON_HOST) as host:
        for seed in range(0, 8, 2):
            pair = frames_of(pixels, seed)
            expected = host.match(*pair)
            assert "copy" not in expected.timings and len(expected) > 0
            sent = gpu.match(*pair)
            assert same(sent, expected) and "copy" in sent.timings
            given = [OnGpu(machine.cuda, image) for image in pair]
            assert same(gpu.match(*given), expected) and same(host.match(*given), expected)
            kept = gpu.match_on_gpu(*given).keypoints1.to_host()
            assert np.array_equal(kept[0, : len(expected)], expected.keypoints1)
        assert gpu.session.launch_mode() == "graph" and machine.cuda.count("cuLaunchKernel", "cuModuleLoadData") == 0


@pytest.mark.parametrize("pixels", list(CHANNELS))
def test_rows_apart(machine: Machine, tmp_path: Path, pixels: str) -> None:
    """Pitched rows, of one image in three dimensions and of the other in four or two; in page-locked memory too."""
    pair = frames_of(pixels, 5)
    wide = [np.pad(image, ((0, 2), (0, 32), (0, 0)), constant_values=7) for image in pair]
    views = [large[: image.shape[0], : image.shape[1]] for large, image in zip(wide, pair, strict=True)]
    other = views[1][:, :, 0] if CHANNELS[pixels] == 1 else views[1][None]
    with Matcher(frames_engine(machine, tmp_path, pixels), ON_GPU) as matcher:
        expected = matcher.match(*pair)
        assert same(matcher.match(OnGpu(machine.cuda, views[0]), OnGpu(machine.cuda, other)), expected)
        assert machine.cuda.count("cudaMemcpy2DAsync") == 2
        assert same(matcher.match(*views), expected)
        machine.cuda.pinned += [(array.ctypes.data, array.nbytes) for array in wide]
        assert same(matcher.match(*views), expected)


def test_nv12_with_padding_loses_nothing(machine: Machine, tmp_path: Path) -> None:
    """A decoder's buffer: aligned rows and an aligned height. Its bytes come to the engine as they are."""
    pair = frames_of("nv12", 3)
    wrapped = []
    for image, (height, width) in zip(pair, SIZES, strict=True):
        buffer = noise(height + 8 + height // 2, width + 32, seed=9)
        buffer[:height, :width], buffer[height + 8 :, :width] = image[:height, :, 0], image[height:, :, 0]
        wrapped.append(Nv12(buffer, height, width, chroma_row=height + 8))
    path = frames_engine(machine, tmp_path, "nv12")
    with Matcher(path, ON_GPU) as gpu, Matcher(path, ON_HOST) as host:
        expected = host.match(*pair)
        assert same(host.match(*wrapped), expected) and same(gpu.match(*wrapped), expected)
        on_gpu = [Nv12(OnGpu(machine.cuda, frame.array), frame.height, frame.width, frame.chroma_row)
                  for frame in wrapped]  # fmt: skip
        assert same(gpu.match(*on_gpu), expected)
        short = Nv12(wrapped[0].array[:-1], *SIZES[0], chroma_row=SIZES[0][0] + 8)
        assert refused(host.match, short, wrapped[1]) == refused(gpu.match, short, wrapped[1]) == "image-array"


def test_nv12_is_read_for_frames_of_other_pixels_and_sizes(machine: Machine, tmp_path: Path) -> None:
    given = [Nv12(image[:, :, 0], *size) for image, size in zip(frames_of("nv12", 4), SIZES, strict=True)]
    with Matcher(frames_engine(machine, tmp_path, "rgb"), ON_GPU) as matcher:
        found = matcher.match(*given)
        assert same(found, matcher.match(*(frame.to_rgb() for frame in given)))
    fitting = MatcherOptions(fit_frames=True)
    with Matcher(frames_engine(machine, tmp_path, "nv12", (SIZES[1], SIZES[0])), fitting) as matcher:
        found = matcher.match(*given)
        assert (found.image0.height, found.image0.width) == SIZES[0]
        assert same(found, matcher.match(*(frame.to_rgb() for frame in given)))


def test_what_the_host_prepares(machine: Machine, tmp_path: Path) -> None:
    """Small frames unless `resize_on` says so, and images that are no frames of the engine."""
    pair = frames_of("bgr", 6)
    path = frames_engine(machine, tmp_path, "bgr")
    with Matcher(path) as matcher, Matcher(path, ON_GPU) as gpu:
        assert "copy" not in matcher.match(*pair).timings
        grey = noise(*SIZES[0]), noise(*SIZES[1])
        assert same(gpu.match(*grey), matcher.match(*grey)) and "copy" not in gpu.match(*grey).timings
        assert refused(gpu.match, pair[1], pair[0]) == "frames-size"


def test_many_pairs(machine: Machine, tmp_path: Path) -> None:
    pairs = [frames_of("rgb", 2 * seed) for seed in range(6)]
    path = frames_engine(machine, tmp_path, "rgb")
    with Matcher(path, ON_GPU) as gpu, Matcher(path, ON_HOST) as host:
        expected = [host.match(*pair) for pair in pairs]
        for matcher in (gpu, host):
            found = matcher.match_many(pairs)
            assert all(same(left, right) for left, right in zip(found, expected, strict=True))


def test_refused_on_the_gpu(machine: Machine, tmp_path: Path) -> None:
    pair = frames_of("rgb", 1)
    with Matcher(frames_engine(machine, tmp_path, "rgb")) as matcher:

        def on_gpu(first: Array) -> str:
            return refused(matcher.match, OnGpu(machine.cuda, first), OnGpu(machine.cuda, pair[1]))

        assert on_gpu(noise(*SIZES[0], 1)) == on_gpu(noise(*SIZES[0], 4)) == "image-array"
        assert on_gpu(noise(3, *SIZES[0])) == "image-array"
        assert on_gpu(np.asfortranarray(pair[0])) == on_gpu(pair[0][:, ::-1]) == "image-array"
        assert on_gpu(pair[0].astype(np.float32)) == "image-array"  # type: ignore[arg-type]
        assert on_gpu(pair[1]) == on_gpu(noise(66, 96, 3)) == "frames-size"
        nv12 = Nv12(OnGpu(machine.cuda, noise(96, 96)), *SIZES[0])
        assert refused(matcher.match, nv12, OnGpu(machine.cuda, pair[1])) == "image-array"
        assert same(matcher.match(*(OnGpu(machine.cuda, image) for image in pair)), matcher.match(*pair))
