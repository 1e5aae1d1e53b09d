"""Frames on the host: what an engine that resizes frames itself takes, made from an image or an array.

An engine for frames gets pixels as a camera gives them, without a copy where they lie so already. Engines of a range of
sizes also get the matrices of the resize, which are computed once for each size and kept.
"""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.manifest import FRAMES, EngineManifest, FrameContract, InputContract
from matchrt.manifest.frames import Size
from matchrt.runtime.fit import Fit, apply_fit
from matchrt.runtime.frame_matrices import range_inputs
from matchrt.runtime.image import Image, as_image
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.nv12 import Nv12
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import PreparedImage, read_as

UInt8Array = npt.NDArray[np.uint8]


def prepare_frame(
    value: Any, name: str, side: int | None, manifest: EngineManifest, options: MatcherOptions
) -> PreparedImage:
    """One image as a frame for the engine of `manifest`, uint8 `[rows, W, C]`.

    value: a uint8 array of the frame's own layout, which is taken as it is, whatever `options.channel_order` says; or
        what `Matcher.match` takes, which is decoded and brought to that layout.
    name: what messages and `Matches` call an array.
    side: 0 or 1, which of the two frames it shall be; None for either.
    Errors: image-* of `as_image`; frames-size, unless `options.fit_frames`.
    """
    start = time.perf_counter()
    contract = manifest.input
    frames = _frames(contract)
    array = frame_array(value, frames, name) if options.stretch == "none" else None
    if array is not None and (_takes(frames, frame_size(array, frames), side) or not options.fit_frames):
        size = frame_size(array, frames)
        require_frame(size, contract, side, name)
        milliseconds = (time.perf_counter() - start) * 1e3
        return PreparedImage(ImageRef(name, *size), Fit(1.0, 1.0, *size, *size), array, None, milliseconds, 0.0)
    image = _read(value, name, array, frames, options)
    decoded = time.perf_counter()
    size = image.height, image.width
    fit = Fit(1.0, 1.0, *size, *size)
    if options.fit_frames and not _takes(frames, size, side):
        nearest = frames.nearest(size, side or 0)
        fit = Fit(size[1] / nearest[1], size[0] / nearest[0], *nearest, *nearest)
        resized = apply_fit(image.pixels, fit)
        image = Image(
            resized[:, :, 0] if resized.shape[2] == 1 else resized, image.name, image.orientation, image.notice
        )
    else:
        require_frame(size, contract, side, image.name)
    pixels = to_frame(image, frames)
    spent = ((decoded - start) * 1e3, (time.perf_counter() - decoded) * 1e3)
    return PreparedImage(ImageRef(image.name, *size, image.orientation), fit, pixels, None, *spent, None, image.notice)


def read_frame(value: Any, name: str, manifest: EngineManifest, options: MatcherOptions) -> Image:
    """What `prepare_frame` takes, as an image: a frame's own layout becomes uint8 `[H, W, 3]` RGB or `[H, W]` grey.

    name: what messages and `Matches` call an array. Errors: image-* of `as_image`.
    """
    frames = _frames(manifest.input)
    array = frame_array(value, frames, name) if options.stretch == "none" else None
    if array is not None and frames.pixels == "nv12":
        return Image(Nv12(array[:, :, 0], *frame_size(array, frames)).to_rgb(name), name)
    return _read(value, name, array, frames, options)


def require_prepared_frame(image: PreparedImage, manifest: EngineManifest) -> None:
    """Raises `image-prepared` unless the image was prepared for frames like those of the engine of `manifest`."""
    frames = _frames(manifest.input)
    if image.pixels is None or (image.kernel is None and image.pixels.shape == frames.shape(image.fit.canvas_hw)):
        return
    raise MatchRTError(
        "image-prepared",
        f"'{image.ref.name}' was prepared for another engine: {list(image.pixels.shape)}. {manifest.model} takes "
        f"frames of {frames}.",
        "Prepare it with this matcher's prepare_image, or pass the image itself.",
    )


def frame_inputs(first: PreparedImage, second: PreparedImage, manifest: EngineManifest) -> dict[str, npt.NDArray[Any]]:
    """The engine's inputs for two prepared frames, by name, each with one row. Error: frames-size."""
    inputs: dict[str, npt.NDArray[Any]] = {}
    ranged = _frames(manifest.input).sizes is None
    for side, image in enumerate((first, second)):
        require_frame(image.fit.canvas_hw, manifest.input, side, image.ref.name)
        assert image.pixels is not None
        inputs[FRAMES[side]] = image.pixels[None]
        if ranged:
            inputs |= range_inputs(manifest.input, image.fit.canvas_hw, side)
    wanted = {spec.name for spec in manifest.inputs}
    return {name: array for name, array in inputs.items() if name in wanted}


def blank_frame(manifest: EngineManifest, side: int) -> PreparedImage:
    """A black frame of the largest size, prepared, for warm-up runs. side: 0 or 1. Raises nothing."""
    frames = _frames(manifest.input)
    size = frames.largest[side]
    pixels = np.zeros(frames.shape(size), np.uint8)
    return PreparedImage(ImageRef("blank", *size), Fit(1.0, 1.0, *size, *size), pixels, None, 0.0, 0.0)


def _frames(contract: InputContract) -> FrameContract:
    assert contract.frames is not None
    return contract.frames


def _takes(frames: FrameContract, size: Size, side: int | None) -> bool:
    return any(frames.takes(size, each) for each in ((0, 1) if side is None else (side,)))


def _read(value: Any, name: str, array: UInt8Array | None, frames: FrameContract, options: MatcherOptions) -> Image:
    """The image to bring to the frame's layout. array: the value, if it has that layout but another size."""
    if array is None or isinstance(value, Nv12):
        return read_as(value, name, options)
    order = "bgr" if frames.pixels == "bgr" else "rgb"
    return as_image(array, channel_order=order, name=name, max_pixels=options.max_pixels)  # type: ignore[arg-type]


def frame_array(value: Any, frames: FrameContract, name: str = "array") -> UInt8Array | None:
    """An array that is a frame as the engine takes it, uint8 `[rows, W, C]`, not copied if it is contiguous.

    value: anything. Of one channel, the last dimension may be missing; a first dimension of 1 is taken off. An `Nv12`
        is a frame of nv12, without the padding that it may have.
    name: what messages call it.
    None if it is no uint8 array with the channels of the contract: it is then an image like any other. Error:
    image-array for an `Nv12` whose array does not hold it.
    """
    if isinstance(value, Nv12) and frames.pixels == "nv12":
        return value.packed(name)[:, :, None]
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        return None
    if value.ndim == 4 and value.shape[0] == 1:
        value = value[0]
    if value.ndim == 2 and frames.channels == 1:
        value = value[:, :, None]
    if value.ndim != 3 or value.shape[2] != frames.channels:
        return None
    if frames.pixels == "nv12" and value.shape[0] % 3:
        return None
    return np.ascontiguousarray(value)


def frame_size(frame: UInt8Array, frames: FrameContract) -> Size:
    """(height, width) in pixels of the image in a frame `[rows, W, C]`. Raises nothing."""
    rows, width = frame.shape[:2]
    return (rows * 2 // 3 if frames.pixels == "nv12" else rows), width


def to_frame(image: Image, frames: FrameContract) -> UInt8Array:
    """An image as a frame, uint8 `[rows, W, C]`: what a camera of these pixels would have given.

    The image must have a size that the engine takes. nv12 is OpenCV's BT.601 in its limited range, so colours differ by
    a few levels.
    """
    if frames.pixels == "grey":
        return image.grey()[:, :, None]
    pixels = image.rgb()
    if frames.pixels == "bgr":
        return np.ascontiguousarray(pixels[:, :, ::-1])
    if frames.pixels == "rgba":
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA), np.uint8)
    return pixels if frames.pixels == "rgb" else _to_nv12(pixels)


def _to_nv12(pixels: UInt8Array) -> UInt8Array:
    height, width = pixels.shape[:2]
    planes = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420), np.uint8)
    frame = np.empty((height * 3 // 2, width), np.uint8)
    frame[:height] = planes[:height]
    u, v = planes[height:].reshape(2, height // 2, width // 2)
    frame[height:].reshape(height // 2, width // 2, 2)[:] = np.stack([u, v], 2)
    return frame[:, :, None]


def require_frame(size: Size, contract: InputContract, side: int | None, name: str) -> None:
    """Raises `frames-size` unless frame `side` (0 or 1; None for either) may be of (height, width) `size`.

    name: what the message calls the image.
    """
    frames = _frames(contract)
    if _takes(frames, size, side):
        return
    what = "the size" if frames.sizes is not None else "sizes from"
    raise MatchRTError(
        "frames-size",
        f"'{name}' is {size[0]}x{size[1]} (height x width); this engine takes frames of {what} {frames}.",
        "Build an engine for this size, --frames HxW, or for a range, --frames HxW..HxW; or one without --frames, "
        "which takes every size.",
    )
