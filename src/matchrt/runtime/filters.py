"""Pillow's bicubic and Lanczos filters on several threads, with the same integers, in two thirds of the processor time.

An axis is resized by products with its weights (`resize_weights`): a few rows of output are a small matrix times the
rows of input that they need. NumPy's BLAS makes these products, a block at a time, so that the numbers stay in the
cache. The width is resized the same way in the transposed image, which OpenCV transposes. Values are rounded to 8 bits
between the two passes, as Pillow does.

The products are in float64, where they are exact: weights have 22 bits and values 8. In float32 a pair takes three
quarters of the time, and 5 of 100,000 values are another integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.manifest import Kernel
from matchrt.runtime.resize_weights import AxisPass, resize_passes
from matchrt.runtime.workspace import Workspace

UInt8Array = npt.NDArray[np.uint8]
Float64Array = npt.NDArray[np.float64]

# Rows of output that are converted and rounded together, rows of one product, and the most columns of both. BLAS makes
# products of this size in the thread that asks for them; larger ones would start its own threads inside of ours.
_BLOCK, _PRODUCT = 16, 4
_COLUMNS = 2048
# OpenCV rounds halves to the even integer, Pillow up. Sums are multiples of 2^-22, so this moves nothing but halves.
_HALF_UP = 2.0**-24


@dataclass(frozen=True, eq=False)
class Job:
    """An image that is wanted in another size.

    pixels: uint8 [H, W] or [H, W, 3].
    out: where the result is written, likewise; its rows may be apart.
    """

    pixels: UInt8Array
    out: UInt8Array


@dataclass(frozen=True, eq=False)
class _Product:
    """Rows low..high of a block are `weights` times the rows first..last of what the block reads."""

    low: int
    high: int
    first: int
    last: int
    weights: Float64Array


@dataclass(frozen=True, eq=False)
class _Block:
    """Rows low..high of an axis's output, which need the rows first..last of the input."""

    low: int
    high: int
    first: int
    last: int
    products: tuple[_Product, ...]


# An image as rows of values, the same of its result, and the block of it that is to be made.
_Work = tuple[UInt8Array, UInt8Array, _Block]


def filter_all(jobs: Sequence[Job], kernel: Kernel, workspace: Workspace) -> None:
    """Resizes all images by one of Pillow's filters (`lanczos`, `bicubic`), on the workspace's threads.

    They go through each pass together, so that no thread waits for one image. Each must change its size. Raises
    nothing.
    """
    passes = [resize_passes(job.pixels.shape[:2], job.out.shape[:2], kernel) for job in jobs]
    current = [job.pixels for job in jobs]
    for stage in range(max(map(len, passes), default=0)):
        steps = {}
        for index, job in enumerate(jobs):
            if stage < len(passes[index]):
                step = passes[index][stage]
                shape = _resized_shape(current[index], step)
                whole = stage + 1 == len(passes[index])
                steps[index] = (current[index], job.out if whole else workspace.take(f"half{index}", shape), step)
        _one_pass(steps, workspace)
        for index, (_, out, _) in steps.items():
            current[index] = out


def _resized_shape(pixels: UInt8Array, step: AxisPass) -> tuple[int, ...]:
    height, width = pixels.shape[:2]
    size = len(step.taps.first)
    return (size, width, *pixels.shape[2:]) if step.axis == "rows" else (height, size, *pixels.shape[2:])


def _one_pass(jobs: dict[int, tuple[UInt8Array, UInt8Array, AxisPass]], workspace: Workspace) -> None:
    """One pass of every image: (pixels, where the result is written, the pass)."""
    turned: dict[int, UInt8Array] = {}  # images that are wanted in several sizes are transposed once
    there: list[tuple[UInt8Array, UInt8Array]] = []
    back: list[tuple[UInt8Array, UInt8Array]] = []
    work: list[_Work] = []
    for index, (pixels, out, step) in jobs.items():
        source, result = pixels, out
        if step.axis == "columns":
            if id(pixels) not in turned:
                turned[id(pixels)] = workspace.take(f"turned{index}", _transposed(pixels))
                there += _slices(pixels, turned[id(pixels)], workspace.threads)
            source, result = turned[id(pixels)], workspace.take(f"result{index}", _transposed(out))
            back += _slices(result, out, workspace.threads)
        rows, wanted = _as_rows(source), _as_rows(result)
        parts = list(pairwise(_edges(rows.shape[1], -(-rows.shape[1] // _COLUMNS))))
        work += [(rows[:, low:high], wanted[:, low:high], block) for block in _blocks(step) for low, high in parts]
    workspace.share(there, _transpose)
    workspace.share(work, partial(_multiply, buffers=_buffers(work, workspace)))
    workspace.share(back, _transpose)


@lru_cache(maxsize=64)
def _blocks(step: AxisPass) -> tuple[_Block, ...]:
    count, taps = len(step.taps.first), step.taps
    last = taps.first + taps.weights.shape[1]
    matrix = taps.matrix(int(last.max())).astype(np.float64)
    found = []
    for low in range(0, count, _BLOCK):
        high = min(low + _BLOCK, count)
        first = int(taps.first[low:high].min())
        products = []
        for start in range(low, high, _PRODUCT):
            end = min(start + _PRODUCT, high)
            begin, stop = int(taps.first[start:end].min()), int(last[start:end].max())
            weights = np.ascontiguousarray(matrix[start:end, begin:stop])
            products.append(_Product(start - low, end - low, begin - first, stop - first, weights))
        found.append(_Block(low, high, first, int(last[low:high].max()), tuple(products)))
    return tuple(found)


def _buffers(work: Sequence[_Work], workspace: Workspace) -> list[tuple[Float64Array, Float64Array]]:
    """For each thread, room for the floats that a block reads, and for those that it makes."""
    reads = max((rows.shape[1] * (block.last - block.first) for rows, _, block in work), default=0)
    makes = max((rows.shape[1] * (block.high - block.low) for rows, _, block in work), default=0)

    def room(name: str, count: int) -> Float64Array:
        floats: Float64Array = workspace.take(name, (8 * count,)).view(np.float64)
        return floats

    return [(room(f"reads{index}", reads), room(f"makes{index}", makes)) for index in range(workspace.threads)]


def _multiply(share: Sequence[_Work], index: int, buffers: list[tuple[Float64Array, Float64Array]]) -> None:
    reads, makes = buffers[index]
    for rows, result, block in share:
        width = rows.shape[1]
        values = reads[: (block.last - block.first) * width].reshape(-1, width)
        sums = makes[: (block.high - block.low) * width].reshape(-1, width)
        np.copyto(values, rows[block.first : block.last])
        for product in block.products:
            np.matmul(product.weights, values[product.first : product.last], out=sums[product.low : product.high])
        place = result[block.low : block.high]
        # A sum of one array rounds and limits it, into memory that is there.
        rounded = cv2.addWeighted(sums, 1.0, sums, 0.0, _HALF_UP, dst=place, dtype=cv2.CV_8U)
        if rounded is not place:
            np.copyto(place, rounded, casting="unsafe")


def _transpose(share: Sequence[tuple[UInt8Array, UInt8Array]], index: int) -> None:
    for pixels, out in share:
        result = cv2.transpose(pixels, dst=out)
        if result is not out:
            np.copyto(out, result, casting="unsafe")


def _slices(pixels: UInt8Array, turned: UInt8Array, count: int) -> list[tuple[UInt8Array, UInt8Array]]:
    """`count` parts of an image, with the places of their transposed forms."""
    edges = _edges(len(pixels), count)
    return [(pixels[low:high], turned[:, low:high]) for low, high in pairwise(edges) if high > low]


def _edges(length: int, count: int) -> list[int]:
    """The bounds of `count` parts of about equal length."""
    return [length * index // count for index in range(count + 1)]


def _transposed(pixels: UInt8Array) -> tuple[int, ...]:
    return (pixels.shape[1], pixels.shape[0], *pixels.shape[2:])


def _as_rows(pixels: UInt8Array) -> UInt8Array:
    """[H, W, C] as [H, W * C], a view."""
    return pixels if pixels.ndim == 2 else pixels.reshape(len(pixels), -1)
