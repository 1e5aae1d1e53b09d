"""The structures of `frames.cu`, filled for a plan: where pixels come from, the weights, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.manifest import InputContract
from matchrt.runtime.gpu.frames.device_code import Arguments
from matchrt.runtime.gpu.frames.layouts import TYPES, PixelLayout
from matchrt.runtime.gpu.frames.plan import FramePlan, Resize
from matchrt.runtime.gpu.layout import ALIGNMENT
from matchrt.runtime.gpu.memory import DeviceMemory
from matchrt.runtime.gpu.stream import copy_to_device
from matchrt.runtime.resize_weights import AxisPass, Taps, resize_passes

MAX_JOBS = 4
# Threads of a block: along a row, so that neighbours read and write neighbouring bytes.
BLOCK = (32, 8)
_KINDS = ("grey", "colour", "nv12")
_ROUNDINGS = ("none", "half-even", "half-up", "quarters")

_SOURCE = np.dtype(
    [("data", "u8"), *((name, "i8") for name in ("row", "column", "red", "green", "blue", "chroma", "chroma_row")),
     ("kind", "i4"), ("type", "i4")], align=True
)  # fmt: skip
_PASS = np.dtype(
    [("first", "u8"), ("weights", "u8"), ("count", "i4"), ("length", "i4"), ("rows", "i4"), ("rounding", "i4")],
    align=True,
)
JOB = np.dtype(
    [("source", _SOURCE), ("passes", _PASS, 2), ("middle", "u8"), ("target", "u8"), ("size", "u8"),
     *((name, "i4") for name in ("middle_height", "middle_width", "height", "width", "canvas_height", "canvas_width",
                                 "channels", "unused"))], align=True
)  # fmt: skip
JOBS = np.dtype([("job", JOB, MAX_JOBS)])
POINTS = np.dtype(
    [("points", "u8", 2), ("count", "u8"), ("scales", "f8", 4), ("slots", "i4"), ("unused", "i4")], align=True
)


class GpuWeights:
    """The weights of both passes of a resize in GPU memory. Errors: out-of-memory, cuda-failed.

    passes: two, one along each axis.
    stream: the address of the stream in which they are copied, and first used.
    """

    def __init__(self, passes: tuple[AxisPass, AxisPass], stream: int) -> None:
        self.passes = passes
        parts: list[npt.NDArray[np.uint8]] = []
        self._offsets: list[int] = []
        end = 0
        for each in passes:
            for table in (each.taps.first.astype("<i4"), each.taps.weights.T.astype("<f4")):
                size = -(-table.nbytes // ALIGNMENT) * ALIGNMENT
                part = np.zeros(size, np.uint8)
                part[: table.nbytes] = np.ascontiguousarray(table).reshape(-1).view(np.uint8)
                parts.append(part)
                self._offsets.append(end)
                end += size
        self._host = np.concatenate(parts)  # kept, because the copy may be under way
        self._memory = DeviceMemory(end)
        copy_to_device(self._memory.pointer, self._host.ctypes.data, end, stream)

    @property
    def size(self) -> int:
        """Bytes on the GPU."""
        return self._memory.size

    def fill(self, structures: npt.NDArray[Any]) -> None:
        """Writes both passes into structures `_PASS` [2]. Raises nothing."""
        for index, each in enumerate(self.passes):
            length, count = each.taps.weights.shape
            first, weights = (self._memory.pointer + offset for offset in self._offsets[2 * index : 2 * index + 2])
            rounding = _ROUNDINGS.index(each.rounding)
            structures[index] = (first, weights, count, length, int(each.axis == "rows"), rounding)

    def close(self) -> None:
        """Frees the memory. Raises nothing."""
        self._memory.close()


def both_passes(source: tuple[int, int], target: tuple[int, int], contract: InputContract) -> tuple[AxisPass, AxisPass]:
    """The passes of a resize from (height, width) to (height, width) under an engine's kernel, always one an axis.

    An axis that keeps its length gets one weight of 1. Raises nothing.
    """
    passes = resize_passes(source, target, contract.kernel)
    whole = {
        "columns": AxisPass("columns", _copied(target[1]), "none"),
        "rows": AxisPass("rows", _copied(target[0]), "none"),
    }
    for each in passes:
        whole.pop(each.axis)
    first, second = (*passes, *whole.values())
    return first, second


def _copied(length: int) -> Taps:
    return Taps(np.arange(length, dtype=np.int32), np.ones((length, 1)))


def middle_size(source: tuple[int, int], first: AxisPass) -> tuple[int, int]:
    """(height, width) of what lies between the passes. Raises nothing."""
    length = len(first.taps.first)
    return (length, source[1]) if first.axis == "rows" else (source[0], length)


@dataclass(frozen=True, eq=False)
class Jobs:
    """A plan's structures, ready for launches.

    plan: the plan.
    arguments: the structure `Jobs`; the sources' addresses are written before each launch.
    data: the sources' addresses in it, `[jobs]`.
    images: of each job, the image that it reads.
    grids: of both kernels, in blocks.
    weights: kept, because the structure points to them.
    """

    plan: FramePlan
    arguments: Arguments
    data: npt.NDArray[Any]
    images: tuple[int, ...]
    grids: tuple[tuple[int, int, int], tuple[int, int, int]]
    weights: tuple[GpuWeights, ...]


def make_jobs(
    plan: FramePlan, channels: int, weights: tuple[GpuWeights, ...], targets: Mapping[str, int], middle: int
) -> Jobs:
    """Fills the structures of a plan. Raises nothing.

    channels: of the engine's inputs. weights: of each resize. targets: addresses of the engine's inputs by name.
    middle: the address of the memory between the passes, of `middle_bytes`.
    """
    block = np.zeros(1, JOBS)
    jobs = block[0]["job"]
    sizes: list[tuple[int, int]] = []
    for index, (resize, made) in enumerate(zip(plan.resizes, weights, strict=True)):
        layout = plan.layouts[resize.image]
        job = jobs[index]
        job["source"] = _source(layout)
        made.fill(job["passes"])
        size = middle_size((layout.height, layout.width), made.passes[0])
        job["middle"], job["target"] = middle, targets[resize.tensor]
        job["size"] = 0 if resize.size_tensor is None else targets[resize.size_tensor]
        job["middle_height"], job["middle_width"] = size
        job["height"], job["width"] = resize.fit.resized_height, resize.fit.resized_width
        job["canvas_height"], job["canvas_width"] = resize.fit.canvas_hw
        job["channels"] = channels
        middle += _middle_bytes(size, channels)
        sizes.append(size)
    count = len(plan.resizes)
    grids = _grid(sizes, count), _grid([resize.fit.canvas_hw for resize in plan.resizes], count)
    images = tuple(resize.image for resize in plan.resizes)
    return Jobs(plan, Arguments(block), jobs["source"]["data"][:count], images, grids, weights)


def middle_bytes(plan: FramePlan, channels: int, weights: tuple[GpuWeights, ...]) -> int:
    """Bytes between the passes of all resizes of a plan. Raises nothing."""
    total = 0
    for resize, made in zip(plan.resizes, weights, strict=True):
        layout = plan.layouts[resize.image]
        total += _middle_bytes(middle_size((layout.height, layout.width), made.passes[0]), channels)
    return total


def points_arguments(resizes: tuple[Resize, ...], points: tuple[int, int], count: int, slots: int) -> Arguments | None:
    """The structure `Points` for keypoints at these addresses; None if both images have the network's own pixels."""
    fits = [next(resize.fit for resize in resizes if resize.image == index) for index in (0, 1)]
    scales = [scale for fit in fits for scale in (fit.scale_x, fit.scale_y)]
    if scales == [1.0] * 4:
        return None
    block = np.zeros(1, POINTS)
    block[0] = (points, count, scales, slots, 0)
    return Arguments(block)


def _middle_bytes(size: tuple[int, int], channels: int) -> int:
    return -(-size[0] * size[1] * channels * 4 // ALIGNMENT) * ALIGNMENT


def _grid(sizes: list[tuple[int, int]], count: int) -> tuple[int, int, int]:
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    return -(-width // BLOCK[0]), -(-height // BLOCK[1]), count


def _source(layout: PixelLayout) -> tuple[int, ...]:
    kind, dtype = _KINDS.index(layout.kind), TYPES.index(layout.dtype)
    return (0, layout.row, layout.column, *layout.channels, *layout.chroma, kind, dtype)


def weights_key(resize: Resize, layout: PixelLayout) -> tuple[Any, ...]:
    """What the weights of a resize depend on, besides the engine."""
    fit = resize.fit
    return layout.height, layout.width, fit.resized_height, fit.resized_width
