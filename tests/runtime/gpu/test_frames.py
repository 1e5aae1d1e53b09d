"""Images of any layout become an engine's inputs by our kernels, which run here compiled for the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from support.cuda_stub import CudaStub
from support.kernels_on_cpu import given_size
from support.machines import Machine, install_cuda, make_engine

from matchrt import MatcherOptions, MatchRTError, Nv12
from matchrt.manifest import HOST_KERNELS, EngineManifest, InputContract, Kernel, Profile, TensorSpec
from matchrt.runtime.gpu.frames.device_code import FrameKernels
from matchrt.runtime.gpu.frames.jobs import JOBS, POINTS
from matchrt.runtime.gpu.frames.layouts import PixelLayout, layout_of, layout_of_nv12
from matchrt.runtime.gpu.frames.plan import plan_frames
from matchrt.runtime.gpu.frames.stage import MAX_PLANS, MAX_WEIGHTS, FrameStage
from matchrt.runtime.preprocess import prepare_image

Array = npt.NDArray[Any]
KERNELS: tuple[Kernel, ...] = tuple(kernel for kernel in get_args(Kernel) if kernel not in HOST_KERNELS)
STATIC = InputContract(1, 8, "letterbox", "area-linear", height=96, width=128)
COLOUR = replace(STATIC, channels=3)
# Where sums end near a half, the last digit decides, as in tests/runtime/test_resize_weights.py.
SHARE = 0.01


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaStub:
    stub = CudaStub()
    install_cuda(monkeypatch, stub)
    return stub


def manifest_for(machine: Machine, contract: InputContract) -> EngineManifest:
    """A manifest whose engine takes images as the contract says."""
    sides: tuple[Any, ...] = (contract.height or "h", contract.width or "w")
    inputs = [TensorSpec(f"image{i}", "uint8", (1, *sides, contract.channels)) for i in (0, 1)]
    if contract.profile is None:
        inputs += [TensorSpec(f"size{i}", "int32", (1, 2)) for i in (0, 1)]
    if contract.coarse is not None:
        inputs += [TensorSpec(f"coarse{i}", "uint8", (1, *contract.coarse, contract.channels)) for i in (0, 1)]
    return replace(make_engine(machine).manifest, input=contract, inputs=tuple(inputs))


class Bench:
    """A stage on the stub, and memory for what it writes."""

    def __init__(self, cuda: CudaStub, manifest: EngineManifest, options: MatcherOptions | None = None) -> None:
        self.cuda, self.manifest, self.options = cuda, manifest, options or MatcherOptions()
        self.stage = FrameStage(FrameKernels(), manifest.input, 0)
        self.stream = cuda.module.cudaStreamCreateWithFlags(1)[1]

    def inputs(self, *images: tuple[PixelLayout, Array]) -> dict[str, Array]:
        """The engine's inputs by name, as the kernels write them over 0xA5. images: two layouts with their arrays."""
        (layout0, array0), (layout1, array1) = images
        plan = plan_frames((layout0, layout1), self.manifest, self.options)
        types = {spec.name: spec.dtype for spec in self.manifest.inputs}
        made = {name: np.full(shape, 0xA5, types[name]) for name, shape in plan.shapes.items()}
        targets = {name: array.ctypes.data for name, array in made.items()}
        addresses = [array.__array_interface__["data"][0] for array in (array0, array1)]
        self.stage.run(plan, addresses, targets, self.stream)
        self.cuda.module.cudaStreamSynchronize(self.stream)
        return made


def described(array: Array, order: Any = "rgb") -> tuple[PixelLayout, Array]:
    return layout_of(array.shape, array.strides, array.dtype, order, "image0"), array


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Array:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return pixels[:, :, 0] if channels == 1 else pixels


def on_host(value: Any, manifest: EngineManifest, options: MatcherOptions | None = None) -> tuple[Array, Array | None]:
    prepared = prepare_image(value, "image", manifest, options or MatcherOptions())
    assert prepared.pixels is not None
    return prepared.pixels, prepared.coarse


def require_near(actual: Array, expected: Array, share: float = SHARE) -> None:
    """At most a level apart, and most pixels equal."""
    gap = np.abs(actual.astype(int) - expected.astype(int))
    assert gap.max() <= 1 and np.mean(gap > 0) <= share, (gap.max(), np.mean(gap > 0))


def test_structures_are_laid_out_as_the_compiler_does(cuda: CudaStub) -> None:
    assert given_size("first_pass") == given_size("second_pass") == JOBS.itemsize
    assert given_size("to_pixels") == POINTS.itemsize


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "sizes", [((200, 300), (96, 128)), ((90, 61), (401, 128)), ((192, 256), (97, 500)), ((48, 64), (288, 384))]
)
def test_the_host_gives_the_same_pixels(
    machine: Machine, kernel: Kernel, channels: int, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    """Two images of different size, shrunk, enlarged, and padded; the padding is zero and the sizes are right."""
    manifest = manifest_for(machine, replace(STATIC, kernel=kernel, channels=channels))
    images = [noise(*size, seed=index) for index, size in enumerate(sizes)]
    made = Bench(machine.cuda, manifest).inputs(*(described(image) for image in images))
    for index, image in enumerate(images):
        prepared = prepare_image(image, "image", manifest, MatcherOptions())
        assert prepared.pixels is not None
        require_near(made[f"image{index}"][0], prepared.pixels)
        fit = prepared.fit
        assert made[f"size{index}"].tolist() == [[fit.resized_height, fit.resized_width]]
        assert not made[f"image{index}"][0, fit.resized_height :].any()
        assert not made[f"image{index}"][0, :, fit.resized_width :].any()


@pytest.mark.parametrize("fitting", ["pad-square", "stretch"])
def test_other_fittings(machine: Machine, fitting: Any) -> None:
    contract = replace(COLOUR, fitting=fitting, height=128, width=128, kernel="lanczos")
    manifest, images = manifest_for(machine, contract), (noise(200, 120), noise(64, 300, seed=1))
    made = Bench(machine.cuda, manifest).inputs(*(described(image) for image in images))
    for index, image in enumerate(images):
        require_near(made[f"image{index}"][0], on_host(image, manifest)[0])


def test_two_sizes_of_each_image(machine: Machine) -> None:
    """As RoMa takes them, both from the original."""
    contract = InputContract(3, 8, "stretch", "bicubic", height=160, width=160, coarse=(96, 112))
    manifest, images = manifest_for(machine, contract), (noise(300, 400), noise(200, 150, seed=1))
    made = Bench(machine.cuda, manifest).inputs(*(described(image) for image in images))
    for index, image in enumerate(images):
        fine, coarse = on_host(image, manifest)
        assert coarse is not None
        require_near(made[f"image{index}"][0], fine)
        require_near(made[f"coarse{index}"][0], coarse)


def test_dynamic_engines(machine: Machine) -> None:
    contract = InputContract(1, 8, "aspect", "area-linear", profile=Profile((32, 32), (96, 128), (160, 160)))
    manifest, images = manifest_for(machine, contract), (noise(300, 400), noise(410, 130, seed=1))
    made = Bench(machine.cuda, manifest).inputs(*(described(image) for image in images))
    assert made["image0"].shape == (1, 96, 128, 1) and made["image1"].shape[1] == 128
    for index, image in enumerate(images):
        require_near(made[f"image{index}"][0], on_host(image, manifest)[0])


def layouts() -> Iterator[Any]:
    """Arrays in many layouts, each with what it shows as a plain array for the host."""
    colour = noise(150, 212, 4, seed=3)
    grey = colour[:, :, 1].copy()
    wide = np.random.default_rng(4).integers(0, 65536, (150, 212, 3), np.uint16)
    yield "grey", grey, grey
    yield "grey of one channel", grey[:, :, None], grey
    yield "a batch of one", colour[None, :, :, :3].copy(), colour[:, :, :3]
    yield "alpha is ignored", colour, colour[:, :, :3]
    yield "pitched rows", np.zeros((150, 300, 3), np.uint8), colour[:, :, :3]
    yield "a view of rgba", colour[:, :, :3], colour[:, :, :3]
    yield "planes", np.moveaxis(np.ascontiguousarray(np.moveaxis(colour[:, :, :3], 2, 0)), 0, 2), colour[:, :, :3]
    yield "columns first", np.asfortranarray(colour[:, :, :3]), colour[:, :, :3]
    yield "turned over", colour[::-1, ::-1, :3], colour[::-1, ::-1, :3]
    yield "every second pixel", np.repeat(np.repeat(grey, 2, 0), 2, 1)[::2, ::2], grey
    yield "16 bits", wide, wide
    for dtype in (np.float16, np.float32, np.float64):
        floats = (colour[:, :, :3] / 255).astype(dtype)
        yield np.dtype(dtype).name, floats, floats


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("array", "shown"), [pytest.param(a, s, id=name) for name, a, s in layouts()])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_layouts(machine: Machine, channels: int, array: Array, shown: Array, order: Any) -> None:
    if array.shape == (150, 300, 3):
        array[:, :212] = shown
        array = array[:, :212]
    manifest = manifest_for(machine, replace(STATIC, channels=channels))
    made = Bench(machine.cuda, manifest).inputs(described(array, order), described(noise(96, 128)))
    require_near(made["image0"][0], on_host(shown, manifest, MatcherOptions(channel_order=order))[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_floats_beyond_the_scale_are_clipped(machine: Machine, channels: int) -> None:
    values = np.array([-2.0, -0.0, 0.25, 0.999, 1.0, 7.0, np.inf, -np.inf, np.nan, 6e-8], np.float32)
    image = np.repeat(np.resize(values, (96, 128))[:, :, None], channels, 2)
    clipped = np.rint(np.clip(np.nan_to_num(image, nan=0.0, posinf=1.0, neginf=0.0), 0, 1) * 255).astype(np.uint8)
    manifest = manifest_for(machine, replace(STATIC, channels=channels))
    for dtype in (np.float16, np.float32, np.float64):
        made = Bench(machine.cuda, manifest).inputs(described(image.astype(dtype)), described(clipped))
        assert np.array_equal(made["image0"], made["image1"]), dtype


def test_every_half_precision_number(machine: Machine) -> None:
    """All 65,536 patterns of 16 bits."""
    numbers = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(256, 256)
    manifest = manifest_for(machine, replace(STATIC, height=256, width=256))
    made = Bench(machine.cuda, manifest).inputs(described(numbers), described(numbers.astype(np.float32)))
    assert np.array_equal(made["image0"], made["image1"]) and len(np.unique(made["image0"])) == 256


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("columns", "chroma_row"), [(212, None), (256, None), (256, 160)])
def test_nv12(machine: Machine, channels: int, columns: int, chroma_row: int | None) -> None:
    array = noise(260, columns, 1, seed=5)
    frame = Nv12(array, 150, 212, chroma_row)
    manifest = manifest_for(machine, replace(STATIC, channels=channels))
    layout = layout_of_nv12(frame, array.shape, array.strides, array.dtype, "image0")
    made = Bench(machine.cuda, manifest).inputs((layout, array), described(noise(96, 128)))
    rows = 150 if chroma_row is None else chroma_row
    whole = np.concatenate([array[:150, :212], array[rows : rows + 75, :212]])
    rgb = cv2.cvtColor(whole, cv2.COLOR_YUV2RGB_NV12)
    require_near(made["image0"][0], on_host(rgb, manifest)[0])
    assert np.array_equal(on_host(frame, manifest)[0], on_host(rgb, manifest)[0])


def test_an_image_of_the_engines_size_is_the_same_to_the_bit(machine: Machine) -> None:
    image = noise(96, 128)
    for contract in (STATIC, COLOUR):
        made = Bench(machine.cuda, manifest_for(machine, contract)).inputs(described(image), described(image))
        assert np.array_equal(made["image0"][0], on_host(image, manifest_for(machine, contract))[0])


@pytest.mark.parametrize("contract", [STATIC, COLOUR])
@pytest.mark.parametrize("size", [(192, 256), (288, 384), (216, 384), (333, 513), (200, 191), (1080, 1920)])
def test_camera_images_are_the_same_to_the_bit(
    machine: Machine, contract: InputContract, size: tuple[int, int]
) -> None:
    """Where both sides shrink under the usual filter, nothing depends on where an image is resized."""
    manifest, image = manifest_for(machine, contract), noise(*size)
    made = Bench(machine.cuda, manifest).inputs(described(image), described(image))
    assert np.array_equal(made["image0"][0], on_host(image, manifest)[0])


def test_plans_and_weights_are_kept_and_bounded(machine: Machine) -> None:
    cuda, manifest = machine.cuda, manifest_for(machine, STATIC)
    bench = Bench(cuda, manifest)
    images = [described(noise(100 + index, 300)) for index in range(2 * MAX_WEIGHTS)]
    targets = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in manifest.inputs}  # type: ignore[arg-type]
    addresses = {name: array.ctypes.data for name, array in targets.items()}
    plan = plan_frames((images[0][0], images[1][0]), manifest, MatcherOptions())
    pointers = [image.ctypes.data for _, image in images[:2]]
    bench.stage.run(plan, pointers, addresses, bench.stream)
    taken = cuda.count("cudaMalloc")
    for _ in range(3):
        bench.stage.run(plan, pointers, addresses, bench.stream)
    cuda.module.cudaStreamSynchronize(bench.stream)
    assert cuda.count("cudaMalloc") == taken == 3  # two tables of weights, and what lies between the passes
    for image in images:
        bench.inputs(image, image)
    assert len(bench.stage._jobs) <= MAX_PLANS and len(bench.stage._weights) <= MAX_WEIGHTS
    assert len(cuda.device_memory) <= MAX_WEIGHTS + MAX_PLANS + 1
    bench.stage.close()
    assert cuda.device_memory == {}


def test_bad_layouts_are_refused() -> None:
    def code(array: Array) -> str:
        with pytest.raises(MatchRTError) as caught:
            described(array)
        assert caught.value.remedy
        return f"{caught.value.code}: {caught.value.remedy}"

    for array in (noise(3, 200), np.zeros((3, 90, 100), np.uint8), np.zeros((2, 90, 100, 3), np.uint8),
                  np.zeros((90, 100, 2), np.uint8), np.zeros((0, 100, 3), np.uint8), np.zeros(90, np.uint8),
                  np.zeros((90, 100), np.int32), np.zeros((90, 100), ">u2"), np.zeros((90, 100), bool)):  # fmt: skip
        if array.shape != (3, 200, 3):
            assert code(array).startswith("image-array")
    assert "permute" in code(np.zeros((3, 90, 100), np.uint8))


@pytest.mark.parametrize("sides", [(101, 200), (100, 0), (100, 201)])
def test_bad_nv12(sides: tuple[int, int]) -> None:
    with pytest.raises(MatchRTError) as caught:
        Nv12(np.zeros((150, 200), np.uint8), *sides)
    assert caught.value.code == "image-array"


def test_nv12_in_an_array_that_does_not_hold_it() -> None:
    for array in (np.zeros((149, 200), np.uint8), np.zeros((150, 198), np.uint8), np.zeros((150, 200), np.uint16),
                  np.zeros(30000, np.uint8)):  # fmt: skip
        frame = Nv12(array, 100, 200)
        with pytest.raises(MatchRTError, match="NV12 of 100x200"):
            frame.to_rgb()
    with pytest.raises(MatchRTError, match="chroma"):
        Nv12(np.zeros((150, 200), np.uint8), 100, 200, 98)
