"""Resizes in the graph: the passes of `runtime.resize_weights` as nodes.

Three forms give the host's integers:

- Averages over whole pixels, as from 1920x1080 to 640x360, are sums of the pixels and one product. All of it is exact.
- Any other pass is a product with a constant matrix. Its name says what its factor is: `pixels` are whole values
  0..255, which every kernel multiplies exactly; `sums` have digits behind the point. `export.precision.frame_products`
  splits them for kernels that multiply in TF32.
- OpenCV's linear enlargement along rows rounds each of its two products, so it is two gathers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from matchrt.building.frames.nodes import FrameNodes
from matchrt.manifest import Kernel
from matchrt.manifest.frames import Size
from matchrt.runtime.resize_weights import AxisPass, Rounding, resize_passes

# Filters whose weights are negative in places, so that sums leave 0..255.
OVERSHOOTS: tuple[Kernel, ...] = ("lanczos", "bicubic", "bicubic-aliased")


def resize(
    nodes: FrameNodes, planes: str, source: Size, target: Size, canvas: Size, kernel: Kernel, repeat: int = 1
) -> str:
    """Planes float32 `[B, C, H, W]` of whole values, resized and padded to `[B, repeat * C, *canvas]`.

    source, target, canvas: (height, width) in pixels of the planes, of what they become, and of that with zeros right
        and below. repeat: how often a single plane is repeated in the end.
    """
    passes = resize_passes(source, target, kernel)
    shrinking = (min(source[0], target[0]), min(source[1], target[1]))
    if kernel == "area-linear" and shrinking != source and _whole(source, shrinking):
        planes = _average(nodes, planes, source, shrinking, _rounding(passes, shrinking, source))
        source, passes = shrinking, resize_passes(shrinking, target, kernel)
    whole = True
    for step in _cheapest(passes, source):
        planes = round_values(nodes, _apply(nodes, planes, step, source, whole), step.rounding, kernel in OVERSHOOTS)
        length = len(step.taps.first)
        source = (length, source[1]) if step.axis == "rows" else (source[0], length)
        whole = step.rounding != "none"
    if target != canvas:
        below = [0, 0, 0, 0, 0, 0, canvas[0] - target[0], canvas[1] - target[1]]
        planes = nodes.add("Pad", [planes, nodes.constant(below, np.int64), nodes.constant(0.0)])
    return planes if repeat == 1 else nodes.add("Concat", [planes] * repeat, axis=1)


def round_values(nodes: FrameNodes, values: str, rounding: Rounding, overshoots: bool) -> str:
    """Sums as whole values 0..255, as `rounding` says. overshoots: whether they may be outside of 0..255."""
    if rounding == "none":
        return values
    upward = rounding != "half-even"
    whole = nodes.add("Floor", [nodes.plus(values, 0.5)]) if upward else nodes.add("Round", [values])
    return nodes.clip(whole, 0, 255) if overshoots else whole


def _whole(source: Size, target: Size) -> bool:
    return source[0] % target[0] == 0 and source[1] % target[1] == 0


def _rounding(passes: Sequence[AxisPass], shrinking: Size, source: Size) -> Rounding:
    """How the last pass that shrinks rounds."""
    return passes[(shrinking[0] < source[0]) + (shrinking[1] < source[1]) - 1].rounding


def _average(nodes: FrameNodes, planes: str, source: Size, target: Size, rounding: Rounding) -> str:
    """The mean over blocks of pixels: OpenCV's too is a whole sum, times a float32."""
    down, across = source[0] // target[0], source[1] // target[1]
    blocks = nodes.reshape(planes, (0, 0, target[0], down, target[1], across))
    total = nodes.add("ReduceSum", [blocks, nodes.constant([3, 5], np.int64)], keepdims=0)
    return round_values(nodes, nodes.times(total, 1 / (down * across)), rounding, overshoots=False)


def _cheapest(passes: Sequence[AxisPass], source: Size) -> Sequence[AxisPass]:
    """The passes; the first two, if nothing is rounded in between, in the order of fewer multiplications."""
    if len(passes) < 2 or passes[0].rounding != "none" or passes[1].rounding == "quarters":
        return passes
    first, second = passes[:2]
    if _cost(first, second, source) <= _cost(second, first, source):
        return passes
    swapped = (replace(second, rounding="none"), replace(first, rounding=second.rounding))
    return (*swapped, *passes[2:])


def _cost(first: AxisPass, second: AxisPass, source: Size) -> int:
    """Multiplications of two products with matrices, in this order."""
    ends = {step.axis: len(step.taps.first) for step in (first, second)}
    other = source[0] if second.axis == "rows" else source[1]
    return source[0] * source[1] * ends[first.axis] + ends[first.axis] * other * ends[second.axis]


def _apply(nodes: FrameNodes, planes: str, step: AxisPass, source: Size, whole: bool) -> str:
    if step.rounding == "quarters":
        return _quarters(nodes, planes, step)
    length = source[0] if step.axis == "rows" else source[1]
    matrix = step.taps.matrix(length)
    return multiply(nodes, planes, nodes.constant(matrix if step.axis == "rows" else matrix.T), step.axis, whole)


def multiply(nodes: FrameNodes, planes: str, matrix: str, axis: str, whole: bool) -> str:
    """The product of planes with a resize matrix: `[target, rows]` from the left, `[columns, target]` from the right.

    whole: whether the planes are whole values 0..255.
    """
    factors = [matrix, planes] if axis == "rows" else [planes, matrix]
    return nodes.within("pixels" if whole else "sums").add("MatMul", factors)


def _quarters(nodes: FrameNodes, planes: str, step: AxisPass) -> str:
    """See `AxisPass.rounding`."""
    low = nodes.times(nodes.add("Floor", [nodes.times(planes, 128.0)]), 1 / 128)
    total = ""
    for column in range(step.taps.weights.shape[1]):
        rows = nodes.add("Gather", [low, nodes.constant(step.taps.first + column, np.int64)], axis=2)
        product = nodes.times(rows, 4 * step.taps.weights[:, column, None])
        part = nodes.add("Floor", [product])
        total = nodes.add("Add", [total, part]) if total else part
    return nodes.times(total, 0.25)
