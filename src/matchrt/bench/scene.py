"""A pair of images generated from a seed, so that latency can be measured on the same pixels everywhere."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.manifest import FRAMES, EngineManifest
from matchrt.runtime.frame_matrices import range_inputs
from matchrt.runtime.frames import to_frame
from matchrt.runtime.image import as_image
from matchrt.runtime.self_test.pair import self_test_size

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


def textured_image(height: int, width: int, seed: int = 0) -> UInt8Array:
    """A generated image, uint8 [H, W, 3]: noise of several scales, which has corners at all scales, as photographs."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell in (64, 24, 8, 3):
        coarse = rng.random((height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        layer = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        total += (layer - 0.5) * cell**0.5
    low, high = total.min(), total.max()
    return np.asarray((total - low) / (high - low) * 255, np.uint8)


def view_change(height: int, width: int) -> FloatArray:
    """A homography [3, 3] in pixels, like that of a small step to the side: some rotation, scale and perspective."""
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    shift = np.array([[0.05, 0.06], [-0.02, 0.01], [-0.04, -0.05], [0.03, -0.01]], np.float32)
    target = source + shift * np.array([width, height], np.float32)
    return np.asarray(cv2.getPerspectiveTransform(source, target), np.float64)


def image_pair(height: int, width: int, seed: int = 0) -> tuple[UInt8Array, UInt8Array, FloatArray]:
    """Two uint8 [H, W, 3] images and the homography [3, 3] from the first to the second, x1 ~ H x0."""
    first = textured_image(height, width, seed)
    homography = view_change(height, width)
    second = cv2.warpPerspective(first, homography, (width, height), flags=cv2.INTER_LINEAR)
    return first, np.asarray(second, np.uint8), homography


def engine_inputs(manifest: EngineManifest) -> dict[str, npt.NDArray[Any]]:
    """The generated pair as inputs of an engine, by name, without padding.

    The images have the engine's channels and size, or 480x640 for a dynamic engine.
    """
    contract = manifest.input
    if contract.frames is not None:
        return _frames_inputs(manifest)
    height, width = contract.height or 480, contract.width or 640
    inputs: dict[str, npt.NDArray[Any]] = {}
    for name, pixels in zip(("image0", "image1"), image_pair(height, width)[:2], strict=True):
        image = as_image(pixels)
        inputs[name] = image.rgb()[None] if contract.channels == 3 else image.grey()[None, :, :, None]
        if contract.coarse is not None:
            inputs[name.replace("image", "coarse")] = cv2.resize(image.rgb(), contract.coarse[::-1])[None]
    for spec in manifest.inputs:
        if spec.name.startswith("size"):
            inputs[spec.name] = np.array([[height, width]], np.int32)
    return inputs


def _frames_inputs(manifest: EngineManifest) -> dict[str, npt.NDArray[Any]]:
    """The pair as frames; the second image is scaled if frame 1 has another size."""
    contract = manifest.input
    frames = contract.frames
    assert frames is not None
    sizes = frames.sizes or (self_test_size(contract),) * 2
    inputs: dict[str, npt.NDArray[Any]] = {}
    for side, (size, pixels) in enumerate(zip(sizes, image_pair(*sizes[0])[:2], strict=True)):
        scaled = pixels if size == sizes[0] else np.asarray(cv2.resize(pixels, size[::-1]), np.uint8)
        inputs[FRAMES[side]] = to_frame(as_image(scaled), frames)[None]
        if frames.sizes is None:
            inputs |= range_inputs(contract, size, side)
    wanted = {spec.name for spec in manifest.inputs}
    return {name: array for name, array in inputs.items() if name in wanted}
