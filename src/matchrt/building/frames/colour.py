"""Colour conversion in the graph: what a camera gives becomes grey or RGB with the host's integers.

Grey is that of OpenCV's COLOR_RGB2GRAY, as in `runtime.colours`. NV12 is that of OpenCV's COLOR_YUV2RGB_NV12: ITU-R
BT.601 in its limited range (luma 16..235), whose constants have 20 bits behind the point. Networks that see grey get
the grey of that RGB, because the host's path does: the luma plane alone, stretched to 0..255, is that within a level
where no colour is clipped, and saves little, since all of it is one pass over the frame's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from matchrt.building.frames.nodes import FrameNodes
from matchrt.manifest import Pixels
from matchrt.manifest.frames import Size
from matchrt.runtime.resize_weights import GREY_HALF, GREY_UNIT, GREY_WEIGHTS

# OpenCV's constants of BT.601, in units of 2^-20: luma, then chroma's shares of red, green and blue.
_UNIT = 1 << 20
_LUMA, _RED_V, _GREEN_U, _GREEN_V, _BLUE_U = 1220542, 1673527, -409993, -852492, 2116026
_BLACK, _NO_CHROMA = 16, 128
# Where red, green and blue are in a pixel.
_ORDER: dict[str, tuple[int, int, int]] = {"rgb": (0, 1, 2), "rgba": (0, 1, 2), "bgr": (2, 1, 0)}


def to_planes(nodes: FrameNodes, frame: str, pixels: Pixels, size: Size | None, grey: bool) -> str:
    """The frame, uint8 `[B, rows, W, C]`, as float32 planes `[B, 1 or 3, H, W]` of whole values 0..255.

    size: (height, width) of the image in pixels, which only nv12 needs; None if it is known only when the engine runs.
    grey: one plane of grey; otherwise three of RGB, or one for a grey frame, which is the same in all three.
    """
    values = nodes.cast(frame)
    if pixels == "grey":
        return _single(nodes, values)
    if pixels == "nv12":
        assert size is not None
        colours = _from_nv12(nodes, values, size)
        return _grey(nodes, colours) if grey else nodes.add("Concat", colours, axis=1)
    if grey:
        order = _ORDER[pixels]
        return _single(nodes, _grey(nodes, [nodes.piece(values, 3, place, place + 1) for place in order]))
    planes = nodes.add("Transpose", [values], perm=[0, 3, 1, 2])
    if pixels == "rgb":
        return planes
    return nodes.add("Gather", [planes, nodes.constant(_ORDER[pixels], np.int64)], axis=1)


def _from_nv12(nodes: FrameNodes, values: str, size: Size) -> list[str]:
    """Red, green and blue, each `[B, 1, H, W]`, of `[B, H * 3 / 2, W, 1]`: luma, then rows of u and v in turn."""
    height, width = size
    dark = nodes.plus(_single(nodes, nodes.piece(values, 1, 0, height)), -_BLACK)
    luma = nodes.times(nodes.clip(dark, 0, None), _LUMA / _UNIT)
    chroma = nodes.piece(values, 1, height, height * 3 // 2)
    pairs = nodes.plus(nodes.reshape(chroma, (0, height // 2, 1, width // 2, 1, 2)), -_NO_CHROMA)
    full = nodes.add("Expand", [pairs, nodes.constant([1, 1, 2, 1, 2, 1], np.int64)])
    u, v = (nodes.reshape(nodes.piece(full, 5, i, i + 1), (0, 1, height, width)) for i in (0, 1))
    green = nodes.add("Add", [nodes.times(u, _GREEN_U / _UNIT), nodes.times(v, _GREEN_V / _UNIT)])
    shares = (nodes.times(v, _RED_V / _UNIT), green, nodes.times(u, _BLUE_U / _UNIT))
    sums = (nodes.add("Floor", [nodes.plus(nodes.add("Add", [luma, share]), 0.5)]) for share in shares)
    return [nodes.clip(total, 0, 255) for total in sums]


def _single(nodes: FrameNodes, values: str) -> str:
    """`[B, H, W, 1]` to `[B, 1, H, W]`, which moves nothing in memory."""
    return nodes.add("Unsqueeze", [nodes.add("Squeeze", [values, nodes.constant([3], np.int64)]),
                                   nodes.constant([1], np.int64)])  # fmt: skip


def _grey(nodes: FrameNodes, colours: Sequence[str]) -> str:
    """The weighted sum of red, green and blue. It is below 2^24, so float32 is exact."""
    shares = [nodes.times(colour, weight) for colour, weight in zip(colours, GREY_WEIGHTS, strict=True)]
    total = nodes.plus(nodes.add("Add", [nodes.add("Add", shares[:2]), shares[2]]), GREY_HALF)
    return nodes.add("Floor", [nodes.times(total, 1 / GREY_UNIT)])
