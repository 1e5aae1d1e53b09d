"""What a network sees of a frame is what the host's resize gives, for every filter, fitting and layout of pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper
from support.frames import COUNT, POINTS, manifest_of, run_graph, seen_by_graph, seen_on_host, showing_graph

from matchrt.bench.scene import image_pair
from matchrt.building.frames.write import write_frames
from matchrt.export.graph import GraphEditor
from matchrt.export.precision.frame_products import split_frame_products
from matchrt.manifest import (
    HOST_KERNELS,
    PIXELS,
    EngineManifest,
    FrameContract,
    InputContract,
    Kernel,
    manifest_path,
    read_manifest,
)
from matchrt.runtime.engine_file import engine_path
from matchrt.runtime.fit import fit_image
from matchrt.runtime.frames import frame_inputs, prepare_frame, to_frame
from matchrt.runtime.image import Image
from matchrt.runtime.options import MatcherOptions

# (frame 0, frame 1): an exact factor, two sizes that are none, one that is enlarged and one of the network's size.
SIZES = [
    ((288, 384), (192, 256)),
    ((208, 300), (150, 290)),
    ((100, 130), (96, 128)),
    ((70, 50), (96, 170)),
]
GREY = InputContract(1, 8, "letterbox", "area-linear", 1, 96, 128)
COLOUR = InputContract(3, 8, "stretch", "bicubic", 1, 96, 128, coarse=(56, 56))


@pytest.fixture(scope="module")
def manifest() -> EngineManifest:
    return read_manifest(manifest_path(engine_path("loftr-lite")))


def images(sizes: Any) -> list[np.ndarray]:
    first, second, _ = image_pair(*sizes[0])
    return [first, second if sizes[0] == sizes[1] else cv2.resize(second, sizes[1][::-1])]


def differences(host: dict[str, np.ndarray], graph: dict[str, np.ndarray]) -> tuple[float, int]:
    """(share of values that differ, largest difference) of everything that the network sees."""
    gaps = [
        np.abs(host[name].reshape(graph[name].shape) - graph[name]).ravel() for name in host if name.startswith("seen")
    ]
    every = np.concatenate(gaps)
    return float((every > 0).mean()), int(every.max())


@pytest.mark.parametrize("kernel", [kernel for kernel in get_args(Kernel) if kernel not in HOST_KERNELS])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("contract", [GREY, COLOUR, replace(GREY, fitting="pad-square", height=128, divisor=32)])
def test_pixels_are_those_of_the_host(
    manifest: EngineManifest, contract: InputContract, sizes: Any, kernel: Kernel
) -> None:
    contract, pair = replace(contract, kernel=kernel), images(sizes)
    host = seen_on_host(manifest, contract, pair)
    share, most = differences(host, seen_by_graph(manifest, contract, FrameContract("rgb", sizes), pair))
    assert most <= 1
    assert share < 0.01 if kernel == "area-linear" else share < 1e-3


def test_whole_factors_of_the_usual_filter_are_exact(manifest: EngineManifest) -> None:
    """Not one pixel differs from 1920x1080, a third and a half, nor of any frame that only shrinks."""
    for sizes in (((1080, 1920), (720, 1280)), ((192, 256), (288, 384)), ((111, 150), (110, 260))):
        pair = images(sizes)
        graph = seen_by_graph(manifest, GREY, FrameContract("rgb", sizes), pair)
        assert differences(seen_on_host(manifest, GREY, pair), graph) == (0, 0)


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("contract", [GREY, COLOUR])
def test_every_layout_of_pixels(manifest: EngineManifest, contract: InputContract, pixels: Any) -> None:
    frames = FrameContract(pixels, ((240, 320), (96, 128)))
    arrays = [to_frame(Image(image, "i"), frames) for image in images(frames.sizes)]
    shown = {
        "rgb": lambda a: a,
        "bgr": lambda a: np.ascontiguousarray(a[:, :, ::-1]),
        "rgba": lambda a: np.ascontiguousarray(a[:, :, :3]),
        "grey": lambda a: a[:, :, 0],
        "nv12": lambda a: cv2.cvtColor(a[:, :, 0], cv2.COLOR_YUV2RGB_NV12),
    }[pixels]
    host = seen_on_host(manifest, contract, [shown(array) for array in arrays])
    share, most = differences(host, seen_by_graph(manifest, contract, frames, arrays))
    assert most <= 1 and share < 2e-4


def test_all_colours_of_nv12() -> None:
    """Every luma with every chroma of a grid, also those that are no colours, as OpenCV converts them."""
    luma, u, v = np.meshgrid(np.arange(256), np.arange(0, 256, 5), np.arange(0, 256, 5), indexing="ij")
    height, width = 2 * 256, 2 * 52 * 52
    frame = np.empty((height * 3 // 2, width), np.uint8)
    frame[:height] = np.repeat(np.repeat(luma.reshape(256, -1), 2, 0), 2, 1)
    frame[height:] = np.stack([u.reshape(256, -1), v.reshape(256, -1)], 2).reshape(256, -1)
    contract = replace(COLOUR, coarse=None, height=height, width=width)
    frames = FrameContract("nv12", ((height, width), (16, 16)))
    model = showing_graph(contract)
    write_frames(model, contract, frames)
    blank = np.zeros((1, 24, 16, 1), np.uint8)
    seen = run_graph(model, {"frame0": frame[None, :, :, None], "frame1": blank})["seen_image0"]
    gap = np.abs(seen[0].transpose(1, 2, 0) - cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12))
    # float32 rounds a green in a hundred thousand to the other side.
    assert gap.max() <= 1 and (gap > 0).mean() < 2e-5


def test_valid_sizes_and_points(manifest: EngineManifest) -> None:
    """The network is told what is padding, and points come back in pixels of the frame."""
    sizes = ((288, 300), (96, 128))
    seen = seen_by_graph(manifest, GREY, FrameContract("rgb", sizes), images(sizes), sized=True)
    fits = [fit_image(size, GREY, 0) for size in sizes]
    for side, fit in enumerate(fits):
        assert seen[f"valid{side}"].tolist() == [[fit.resized_height, fit.resized_width]]
        found = seen[f"keypoints{side}"][0]
        assert np.allclose(found[:COUNT], fit.to_original(POINTS[0, :COUNT]), atol=1e-4)
        assert not found[COUNT:].any()  # slots without a match
    assert np.array_equal(seen["keypoints1"], POINTS)


def test_a_batch(manifest: EngineManifest) -> None:
    contract = replace(GREY, batch=2)
    frames = FrameContract("rgb", ((192, 256),) * 2)
    pair = images(frames.sizes)
    model = showing_graph(contract)
    write_frames(model, contract, frames)
    inputs = {f"frame{side}": np.stack([pair[side], pair[1 - side]]) for side in (0, 1)}
    seen = run_graph(model, inputs)
    assert np.array_equal(seen["seen_image0"][0], seen["seen_image1"][1])
    assert np.array_equal(seen["seen_image0"][1], seen["seen_image1"][0])


@pytest.mark.parametrize("kernel", [kernel for kernel in get_args(Kernel) if kernel not in HOST_KERNELS])
@pytest.mark.parametrize("contract", [GREY, COLOUR])
def test_a_range_of_sizes(manifest: EngineManifest, contract: InputContract, kernel: Kernel) -> None:
    """One graph for every size: the host's pixels, but for a level in some hundreds, or hundredths if frames grow."""
    contract = replace(contract, kernel=kernel)
    frames = FrameContract("rgb", None, (64, 64), (720, 1280))
    model = showing_graph(contract, sized=contract is not COLOUR)
    write_frames(model, contract, frames)
    told = manifest_of(manifest, replace(contract, frames=frames), sized=True)
    for sizes in (((192, 256), (288, 384)), ((208, 300), (97, 131)), ((96, 128), (720, 1280)), ((64, 70), (100, 90))):
        pair = images(sizes)
        made = [prepare_frame(image, "i", side, told, MatcherOptions()) for side, image in enumerate(pair)]
        inputs = frame_inputs(made[0], made[1], told)
        wanted = {value.name for value in model.graph.input}
        seen = run_graph(model, {name: array for name, array in inputs.items() if name in wanted})
        host = seen_on_host(manifest, contract, pair)
        share, most = differences(host, seen)
        grows = min(sizes[0]) < 96 or min(sizes[1]) < 96
        assert most <= (2 if grows else 1), sizes
        # The order of Pillow's passes depends on the size, and each of them rounds.
        assert share < (0.1 if grows else 5e-3), sizes


@pytest.mark.parametrize("kernel", ["area-linear", "lanczos", "bicubic-aliased"])
@pytest.mark.parametrize("ranged", [False, True])
def test_split_products_are_right_in_tf32(manifest: EngineManifest, kernel: Kernel, ranged: bool) -> None:
    """The factors of every product are rounded as TF32 rounds them; without the split, one pixel in twenty differs."""
    contract, sizes = replace(COLOUR, kernel=kernel, coarse=None), ((208, 300), (150, 290))
    frames = FrameContract("rgb", None, (64, 64), (300, 300)) if ranged else FrameContract("rgb", sizes)
    pair, shares = images(sizes), []
    told = manifest_of(manifest, replace(contract, frames=frames))
    made = [prepare_frame(image, "i", side, told, MatcherOptions()) for side, image in enumerate(pair)]
    for split in (False, True):
        model = showing_graph(contract)
        write_frames(model, contract, frames)
        if split:
            assert "4 products" in split_frame_products(model)[0].summary
        round_factors(model)
        seen = run_graph(model, frame_inputs(made[0], made[1], told))
        shares.append(differences(seen_on_host(manifest, contract, pair), seen)[0])
    assert shares[1] < 2e-3 and shares[0] > 10 * shares[1]


def round_factors(model: onnx.ModelProto) -> None:
    """Rounds the factors of products to TF32: x - (x - x * (1 + 2^13)) has the upper 11 bits of x (Veltkamp)."""
    editor = GraphEditor(model.graph)
    factor = editor.constant("veltkamp", np.float32(2**13 + 1))
    for node in editor.rewrite():
        if node.op_type != "MatMul":
            continue
        for place, name in enumerate(node.input):
            new = [f"{node.name}/{place}{step}" for step in ("large", "gap", "short")]
            editor.before(
                helper.make_node("Mul", [name, factor], [new[0]], new[0]),
                helper.make_node("Sub", [new[0], name], [new[1]], new[1]),
                helper.make_node("Sub", [new[0], new[1]], [new[2]], new[2]),
            )
            node.input[place] = new[2]
    editor.finish()
