"""Images that are an engine's frames already: their bytes are copied into its inputs on the GPU, and nothing else.

An engine for frames (docs/frames.md) resizes them itself. A copy within the GPU takes a few microseconds. Binding the
caller's memory as the input would save them, but a CUDA graph holds the addresses of its inputs, so every new image
would cost its launch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matchrt.errors import MatchRTError
from matchrt.manifest import FRAMES, EngineManifest, FrameContract, InputContract
from matchrt.manifest.frames import Size
from matchrt.runtime.fit import Fit
from matchrt.runtime.frames import require_frame
from matchrt.runtime.gpu.stream import copy_on_device
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.nv12 import Nv12
from matchrt.runtime.preprocess import PreparedImage


@dataclass(frozen=True)
class Plane:
    """Rows of bytes, which lie one after another in the engine's input.

    source: the byte of the image with which it begins.
    pitch: bytes from a row to the next.
    line: bytes of a row.
    rows: how many there are.
    """

    source: int
    pitch: int
    line: int
    rows: int


@dataclass(frozen=True)
class FrameLayout:
    """How a frame lies in memory.

    size: (height, width) of the image in pixels.
    planes: its bytes, in the order of the engine's input.
    """

    size: Size
    planes: tuple[Plane, ...]


@dataclass(frozen=True, eq=False)
class CopyPlan:
    """What becomes of two frames of known layouts.

    layouts: of both frames, in the memory that is copied.
    images: names and sizes, without pixels. Their fits scale nothing: the engine's keypoints are the frames'.
    shapes: of the engine's inputs, by name.
    """

    layouts: tuple[FrameLayout, FrameLayout]
    images: tuple[PreparedImage, PreparedImage]
    shapes: Mapping[str, tuple[int, ...]]


def plan_copies(layouts: tuple[FrameLayout, FrameLayout], contract: FrameContract) -> CopyPlan:
    """Plans two frames that the engine takes (`require_frame_layout`). Raises nothing."""
    first, second = (
        PreparedImage(ImageRef(f"image{side}", *size), Fit(1.0, 1.0, *size, *size), None, None, 0.0, 0.0)
        for side, size in enumerate(layout.size for layout in layouts)
    )
    shapes = {name: (1, *contract.shape(layout.size)) for name, layout in zip(FRAMES, layouts, strict=True)}
    return CopyPlan(layouts, (first, second), shapes)


def copy_frames(plan: CopyPlan, images: Sequence[int], targets: Mapping[str, int], stream: int) -> None:
    """Puts the copies of both frames into a stream. Error: cuda-failed.

    images: addresses of their first pixels. targets: addresses of the engine's inputs, by name.
    """
    for image, name, layout in zip(images, FRAMES, plan.layouts, strict=True):
        target = targets[name]
        for plane in layout.planes:
            copy_on_device(target, image + plane.source, plane.pitch, plane.line, plane.rows, stream)
            target += plane.line * plane.rows


def frame_layout(
    image: Any, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], frames: FrameContract
) -> FrameLayout | None:
    """The layout of a frame; None if it is no frame as the engine takes it, whatever its size.

    image: an `Nv12`, or the array itself. shape, strides (bytes), dtype: of the array. Raises nothing.
    """
    if dtype != np.uint8:
        return None
    if isinstance(image, Nv12):
        return _layout_of_nv12(image, shape, strides) if frames.pixels == "nv12" else None
    if len(shape) == 4 and shape[0] == 1:
        shape, strides = shape[1:], strides[1:]
    if len(shape) == 2:
        shape, strides = (*shape, 1), (*strides, 1)
    if len(shape) != 3 or shape[2] != frames.channels or 0 in shape:
        return None
    rows, width, channels = shape
    together = strides[1] == channels and (channels == 1 or strides[2] == 1) and strides[0] >= width * channels
    if not together or (frames.pixels == "nv12" and rows % 3):
        return None
    height = rows * 2 // 3 if frames.pixels == "nv12" else rows
    return FrameLayout((height, width), (_plane(0, strides[0], width * channels, rows),))


def _layout_of_nv12(image: Nv12, shape: tuple[int, ...], strides: tuple[int, ...]) -> FrameLayout | None:
    size, begins = (image.height, image.width), image.chroma_begins
    fits = len(shape) == 2 and shape[0] >= image.rows and shape[1] >= image.width
    if not fits or strides[1] != 1 or strides[0] < image.width:
        return None
    if begins == image.height:
        return FrameLayout(size, (_plane(0, strides[0], image.width, image.rows),))
    luma = _plane(0, strides[0], image.width, image.height)
    return FrameLayout(size, (luma, _plane(begins * strides[0], strides[0], image.width, image.height // 2)))


def _plane(source: int, pitch: int, line: int, rows: int) -> Plane:
    """Rows without gaps are one long row."""
    return Plane(source, line * rows, line * rows, 1) if pitch == line else Plane(source, pitch, line, rows)


def require_frame_layout(
    image: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: np.dtype[Any],
    contract: InputContract,
    side: int,
    name: str,
) -> FrameLayout:
    """The layout of frame `side` (0 or 1) on the GPU. Arguments are those of `frame_layout`.

    name: what messages call it. Errors: image-array if it is no frame as the engine takes it; frames-size.
    """
    frames = contract.frames
    assert frames is not None
    if isinstance(image, Nv12):
        image.require_shape(shape, dtype, name)
    layout = frame_layout(image, shape, strides, dtype, frames)
    if layout is None:
        wanted = list(frames.shape(frames.largest[side]))
        raise MatchRTError(
            "image-array",
            f"'{name}' on the GPU is {dtype} {list(shape)}; this engine for frames takes {frames.pixels} there as it "
            f"is: uint8 {wanted}, in rows of bytes that follow one another.",
            "Pass such an array, pass the images in host memory, or use an engine without --frames, which takes every "
            "layout.",
        )
    require_frame(layout.size, contract, side, name)
    return layout


def copies_frames(manifest: EngineManifest) -> bool:
    """Whether frames are all that the engine takes. Engines of a range of sizes also take matrices from the host."""
    frames = manifest.input.frames
    return frames is not None and frames.sizes is not None
