"""Images of any layout on a real GPU (`pytest -m gpu`): the kernels' pixels, and matches with TensorRT-RTX.

tests/runtime/gpu/test_frames.py runs the same source on the CPU; what is compared with the host there is compared with
the host here too, so a test that fails here alone is about NVIDIA's compiler, the driver or the launch. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from matchrt import Matcher, MatcherOptions, Matches, MatchRTError, Nv12
from matchrt.bench.scene import image_pair
from matchrt.building.pipeline import BuildRequest, build
from matchrt.manifest import HOST_KERNELS, InputContract, Kernel
from matchrt.nvidia.cuda import call, cuda_runtime
from matchrt.runtime.engine_file import engine_path
from matchrt.runtime.gpu.frames.device_code import FrameKernels
from matchrt.runtime.gpu.frames.layouts import layout_of, layout_of_nv12
from matchrt.runtime.gpu.frames.plan import plan_frames
from matchrt.runtime.gpu.frames.stage import FrameStage
from matchrt.runtime.gpu.memory import DeviceMemory, PinnedMemory
from matchrt.runtime.gpu.stream import Stream
from matchrt.runtime.preprocess import prepare_image
from matchrt.store import EngineStore

pytestmark = pytest.mark.gpu
Array = npt.NDArray[Any]
GREY = InputContract(1, 8, "letterbox", "area-linear", height=480, width=640)


class OnGpu:
    """A copy of an array on the GPU, with its strides, shown by `__cuda_array_interface__`."""

    def __init__(self, array: Array) -> None:
        steps = [(side - 1) * step for side, step in zip(array.shape, array.strides, strict=True)]
        self.memory, self.array = DeviceMemory(sum(steps) + array.itemsize), array
        runtime = cuda_runtime()
        first = array.__array_interface__["data"][0]
        call(runtime.cudaMemcpy, self.memory.pointer, first, self.memory.size, _kind("HostToDevice"))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"version": 3, "data": (self.memory.pointer, False), "shape": self.array.shape, "stream": None,
                "typestr": self.array.dtype.str, "strides": self.array.strides}  # fmt: skip


def _kind(name: str) -> Any:
    return getattr(cuda_runtime().cudaMemcpyKind, f"cudaMemcpy{name}")


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Array:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return pixels[:, :, 0] if channels == 1 else pixels


def nv12(image: Array) -> Nv12:
    height, width = image.shape[:2]
    planar = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
    planar[height:] = np.stack(planar[height:].reshape(2, -1), 1).reshape(height // 2, width)
    return Nv12(planar, height, width)


# ------------------------------------------------------------------------------------------------ kernels


@pytest.fixture(scope="module")
def stream() -> Iterator[Stream]:
    from matchrt.nvidia.device import find_gpus

    if not find_gpus():
        pytest.skip("there is no NVIDIA GPU here")
    made = Stream()
    yield made
    made.close()


@pytest.fixture(scope="module")
def kernels(stream: Stream) -> FrameKernels:
    return FrameKernels()


def gaps(kernels: FrameKernels, stream: Stream, contract: InputContract, image: Any, order: Any = "rgb") -> Array:
    """How far the kernels are from the host, pixel by pixel; both images of the pair are the same."""
    manifest: Any = SimpleNamespace(input=contract, inputs=())
    options = MatcherOptions(channel_order=order)
    array = image.array if isinstance(image, Nv12) else image
    given = OnGpu(array)
    layout = (
        layout_of_nv12(image, array.shape, array.strides, array.dtype, "image")
        if isinstance(image, Nv12)
        else layout_of(array.shape, array.strides, array.dtype, order, "image")
    )
    plan = plan_frames((layout, layout), manifest, options)
    targets = {name: DeviceMemory(int(np.prod(shape))) for name, shape in plan.shapes.items()}
    stage = FrameStage(kernels, contract, 0)
    addresses = {name: memory.pointer for name, memory in targets.items()}
    stage.run(plan, [given.memory.pointer] * 2, addresses, stream.handle)
    stream.wait()
    made = {name: np.empty(shape, np.uint8) for name, shape in plan.shapes.items()}
    for name, host in made.items():
        call(cuda_runtime().cudaMemcpy, host.ctypes.data, targets[name].pointer, host.nbytes, _kind("DeviceToHost"))
    assert np.array_equal(made["image0"], made["image1"])
    expected = prepare_image(image, "image", manifest, options)
    assert expected.pixels is not None
    if expected.coarse is not None:
        assert np.array_equal(made["coarse0"], made["coarse1"])
        small = np.abs(made["coarse0"][0].astype(int) - expected.coarse)
        assert small.max() <= 1 and np.mean(small > 0) <= 0.01
    stage.close()
    return np.abs(made["image0"][0].astype(int) - expected.pixels)


@pytest.mark.parametrize("size", [(480, 640), (720, 1280), (1080, 1920), (1001, 777), (1440, 2560)])
def test_camera_images_are_the_same_to_the_bit(kernels: FrameKernels, stream: Stream, size: tuple[int, int]) -> None:
    assert gaps(kernels, stream, GREY, noise(*size)).max() == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kernel", [kernel for kernel in get_args(Kernel) if kernel not in HOST_KERNELS])
@pytest.mark.parametrize("size", [(1080, 1920), (240, 320), (1200, 300), (2160, 3840)])
def test_every_filter(
    kernels: FrameKernels, stream: Stream, kernel: Kernel, channels: int, size: tuple[int, int]
) -> None:
    contract = InputContract(channels, 8, "letterbox", kernel, height=480, width=640)
    found = gaps(kernels, stream, contract, noise(*size), "bgr")
    assert found.max() <= 1 and np.mean(found > 0) <= 0.01, np.mean(found > 0)


def test_the_two_sizes_of_roma(kernels: FrameKernels, stream: Stream) -> None:
    contract = InputContract(3, 14, "stretch", "bicubic", height=864, width=864, coarse=(560, 560))
    found = gaps(kernels, stream, contract, image_pair(1080, 1920)[0])
    assert found.max() <= 1 and np.mean(found > 0) <= 0.01


def layouts() -> Iterator[Any]:
    colour = noise(540, 724, 4, seed=3)
    yield "grey", colour[:, :, 1].copy()
    yield "rgba", colour
    yield "pitched", np.pad(colour[:, :, :3], ((0, 0), (0, 40), (0, 0)))[:, :724]
    yield "planes", np.moveaxis(np.ascontiguousarray(np.moveaxis(colour[:, :, :3], 2, 0)), 0, 2)
    yield "a batch of one", colour[None, :, :, :3].copy()
    yield "16 bits", np.random.default_rng(1).integers(0, 65536, (540, 724, 3), np.uint16)
    for dtype in (np.float16, np.float32, np.float64):
        yield np.dtype(dtype).name, (colour[:, :, :3] / 255).astype(dtype)
    yield "nv12", nv12(colour[:, :, :3].copy())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in layouts()])
def test_layouts(kernels: FrameKernels, stream: Stream, channels: int, image: Any) -> None:
    contract = InputContract(channels, 8, "letterbox", "area-linear", height=480, width=640)
    if isinstance(image, np.ndarray) and image.ndim == 4:  # the host takes no batch
        assert np.array_equal(gaps_of_batch(kernels, stream, contract, image), np.zeros(()))
        return
    found = gaps(kernels, stream, contract, image)
    assert found.max() <= 1 and np.mean(found > 0) <= 0.01, np.mean(found > 0)


def gaps_of_batch(kernels: FrameKernels, stream: Stream, contract: InputContract, image: Array) -> Array:
    layout = layout_of(image.shape, image.strides, image.dtype, "rgb", "image")
    assert layout == layout_of(image[0].shape, image[0].strides, image.dtype, "rgb", "image")
    return np.asarray(gaps(kernels, stream, contract, image[0]).max())


# ------------------------------------------------------------------------------------------------ matches


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path_factory.mktemp("frames")
    request = BuildRequest(
        str(engine_path("loftr-lite")), backend="tensorrt_rtx", precision="fp16", output=folder / "lite.engine"
    )
    return build(request, EngineStore(folder / "store")).path


@pytest.fixture(scope="module")
def host(engine: Path) -> Iterator[Matcher]:
    with Matcher(engine, MatcherOptions(resize_on="host")) as opened:
        yield opened


@pytest.fixture
def matcher(host: Matcher) -> Iterator[Matcher]:
    with Matcher(host.session.fork(), MatcherOptions(resize_on="gpu")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pair() -> tuple[Array, Array]:
    first, second, _ = image_pair(1080, 1920)
    return first, second


def equal(left: Matches, right: Matches) -> bool:
    return np.array_equal(left.keypoints0, right.keypoints0) and np.array_equal(left.keypoints1, right.keypoints1)


def test_full_hd_from_everywhere_gives_the_hosts_matches(
    host: Matcher, matcher: Matcher, pair: tuple[Array, Array]
) -> None:
    """Their pixels are equal to the bit, so the matches are."""
    expected = host.match(*pair)
    assert len(expected) > 500
    pinned = [PinnedMemory(image.nbytes) for image in pair]
    locked = [block.bytes.reshape(image.shape) for block, image in zip(pinned, pair, strict=True)]
    for target, image in zip(locked, pair, strict=True):
        target[...] = image
    ways = {
        "host memory": pair,
        "page-locked memory": locked,
        "GPU": [OnGpu(image) for image in pair],
        "GPU, planes": [OnGpu(np.moveaxis(np.ascontiguousarray(np.moveaxis(i, 2, 0)), 0, 2)) for i in pair],
    }
    for name, given in ways.items():
        for _ in range(4):  # plainly, captured, replayed
            found = matcher.match(*given)
            assert equal(found, expected), name
            assert {"upload", "resize", "gpu", "download"} <= set(found.timings)
    assert matcher.session.launch_mode() == "graph" or "(" in matcher.session.launch_mode()


def test_results_that_stay_are_in_the_images_pixels(matcher: Matcher, pair: tuple[Array, Array]) -> None:
    given = [OnGpu(image) for image in pair]
    found = matcher.match(*given)
    kept = matcher.match_on_gpu(*given)
    count = len(found)
    assert np.array_equal(kept.keypoints0.to_host()[0, :count], found.keypoints0)
    assert np.array_equal(kept.keypoints1.to_host()[0, :count], found.keypoints1)
    assert not kept.keypoints0.to_host()[0, int(kept.num_matches.to_host()[0]) :].any()


def test_the_callers_stream(host: Matcher, matcher: Matcher, pair: tuple[Array, Array], stream: Stream) -> None:
    expected, given = host.match(*pair), [OnGpu(image) for image in pair]
    for _ in range(4):
        assert equal(matcher.match(*given, stream=stream.handle), expected)
        kept = matcher.match_on_gpu(*given, stream=stream.handle)
        assert np.array_equal(kept.keypoints1.to_host()[0, : len(expected)], expected.keypoints1)


def test_many_pairs(host: Matcher, matcher: Matcher, pair: tuple[Array, Array]) -> None:
    """Copies and resizes of one pair run beside the engine's work on another, and change nothing."""
    swapped = pair[::-1]
    expected = host.match(*pair), host.match(*swapped)
    found = list(matcher.match_many([pair, swapped] * 50))
    assert [index for index, each in enumerate(found) if not equal(each, expected[index % 2])] == []


def test_two_sizes_and_nv12(host: Matcher, matcher: Matcher, pair: tuple[Array, Array]) -> None:
    small = image_pair(480, 640)[1]
    assert equal(matcher.match(pair[0], small), host.match(pair[0], small))
    frames = [nv12(image) for image in pair]
    expected = host.match(*frames)
    assert len(expected) > 500 and equal(matcher.match(*frames), expected)
    on_gpu = [Nv12(OnGpu(frame.array), frame.height, frame.width) for frame in frames]
    assert equal(matcher.match(*on_gpu), expected)


def test_refusals_on_a_gpu(matcher: Matcher, pair: tuple[Array, Array]) -> None:
    given = OnGpu(pair[0])
    for bad in (OnGpu(noise(3, 90, 100).copy()[:, :, :2].copy()), OnGpu(np.zeros((90, 100), np.int32)), pair[1]):
        with pytest.raises(MatchRTError) as caught:
            matcher.match(given, bad)
        assert caught.value.code == "image-array"
    assert len(matcher.match(given, given)) > 100
