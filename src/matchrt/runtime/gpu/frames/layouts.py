"""How the pixels of an image lie in memory. Kernels read any such layout, so that nothing is copied to change it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from matchrt.errors import MatchRTError
from matchrt.runtime.colours import ChannelOrder
from matchrt.runtime.nv12 import Nv12

Kind = Literal["grey", "colour", "nv12"]
# The types of values that the kernels read. Floats are 0..1.
TYPES = ("uint8", "uint16", "float16", "float32", "float64")
_NAMES = {np.dtype(name): name for name in TYPES}  # a type's own name takes NumPy ten microseconds


@dataclass(frozen=True)
class PixelLayout:
    """Where the pixels of an image are, from its first one on. Strides and offsets are in bytes.

    height, width: of the image, pixels.
    kind: `grey` has one value a pixel, `colour` three, `nv12` luma and chroma.
    dtype: of the values, one of `TYPES`.
    row, column: from a pixel to the one below it, and to the one right of it.
    channels: in a pixel, where red, green and blue are; zeros for other kinds.
    chroma: where the chroma of NV12 begins, and its stride from row to row; zeros for other kinds.
    """

    height: int
    width: int
    kind: Kind
    dtype: str
    row: int
    column: int
    channels: tuple[int, int, int] = (0, 0, 0)
    chroma: tuple[int, int] = (0, 0)


@lru_cache(maxsize=256)
def layout_of(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], order: ChannelOrder, name: str
) -> PixelLayout:
    """The layout of an image `[H, W]`, `[H, W, C]` or `[1, H, W, C]`, C being 1, 3 or 4 (alpha is ignored).

    strides: in bytes. order: of the channels. name: what messages call the image. Error: image-array.
    """
    if len(shape) == 4 and shape[0] == 1:
        shape, strides = shape[1:], strides[1:]
    kind = _NAMES.get(dtype)
    if kind is None or not dtype.isnative:
        raise _refused(name, f"holds {dtype}", f"Use {', '.join(TYPES[:-1])} or {TYPES[-1]}; floats are 0..1.")
    if len(shape) == 2:
        shape, strides = (*shape, 1), (*strides, 0)
    if len(shape) != 3 or shape[2] not in (1, 3, 4) or 0 in shape:
        remedy = "Pass [H, W], [H, W, C] or [1, H, W, C] with 1, 3 or 4 channels."
        if len(shape) == 3 and shape[0] in (1, 3, 4):
            remedy = "Put the channels last; a view such as array.permute(1, 2, 0) will do, and costs nothing."
        raise _refused(name, f"has the shape {list(shape)}", remedy)
    height, width, channels = shape
    row, column, channel = strides
    if channels == 1:
        return PixelLayout(height, width, "grey", kind, row, column)
    places = (0, channel, 2 * channel) if order == "rgb" else (2 * channel, channel, 0)
    return PixelLayout(height, width, "colour", kind, row, column, places)


def layout_of_nv12(
    frame: Nv12, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], name: str
) -> PixelLayout:
    """The layout of an NV12 frame in an array of this shape, strides (bytes) and type. Error: image-array."""
    frame.require_shape(shape, dtype, name)
    if strides[1] != 1:
        raise _refused(name, f"is NV12 with a stride of {strides[1]} bytes along its rows", "Pass contiguous rows.")
    chroma = (frame.chroma_begins * strides[0], strides[0])
    return PixelLayout(frame.height, frame.width, "nv12", "uint8", strides[0], 1, chroma=chroma)


@lru_cache(maxsize=256)
def packed_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides, in bytes, of an array of this shape without gaps. Raises nothing."""
    strides, step = [], itemsize
    for side in reversed(shape):
        strides.append(step)
        step *= side
    return tuple(reversed(strides))


def _refused(name: str, what: str, remedy: str) -> MatchRTError:
    return MatchRTError("image-array", f"'{name}' {what}.", remedy)
