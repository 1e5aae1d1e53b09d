"""The weights of each resize filter, one axis at a time: what a GPU kernel or a graph needs to do as the host does.

`runtime.fit.apply_fit` says what a resized image is. Its filters are separable: an output sample is a sum of input
samples along one axis, and both axes come one after the other. `resize_passes` gives that sequence, with the weights
as the libraries round them and the places where values become 8-bit integers in between. Products in float32 then give
the host's integers, except where a sum lies within rounding errors of a half.

Sources: the 22 bits of Pillow's 8-bit resizes and the 11 bits of OpenCV's linear one are those of their sources. The
tests compare the results with both libraries'.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from matchrt.manifest import Kernel

Axis = Literal["rows", "columns"]
Rounding = Literal["none", "half-even", "half-up", "quarters"]
FloatArray = npt.NDArray[np.float64]

# Grey of an RGB pixel with OpenCV's integers, as `runtime.colours` says: (9798 R + 19235 G + 3735 B + 16384) / 32768,
# rounded down. The sum stays below 2^24, so float32 is exact.
GREY_WEIGHTS = (9798, 19235, 3735)
GREY_HALF, GREY_UNIT = 16384, 32768

# Each axis with its place in (height, width).
_WIDTH_FIRST: tuple[tuple[Axis, int], ...] = (("columns", 1), ("rows", 0))
_PILLOW_UNIT = 1 << 22
_OPENCV_UNIT = 1 << 11
# OpenCV's area averaging leaves out a part of a sample that is smaller than this.
_AREA_LEAST = 1e-3
# The slope of OpenCV's cubic at distance 1, and of Pillow's.
_OPENCV_CUBIC, _PILLOW_CUBIC = -0.75, -0.5


@dataclass(frozen=True, eq=False)
class Taps:
    """The weights of a resize along one axis: output i is the sum over j of `weights[i, j] * input[first[i] + j]`.

    first: int32 `[target]`, the first input sample of each output. `first + n` is never beyond the input, so that no
        index needs a limit; weights that would fall outside are added to those of the edge.
    weights: float64 `[target, n]`; zeros fill rows that need fewer than n.
    """

    first: npt.NDArray[np.int32]
    weights: FloatArray

    def matrix(self, source: int) -> FloatArray:
        """The same as a matrix float64 `[target, source]`, which is multiplied with the samples. Raises nothing."""
        dense = np.zeros((len(self.first), source))
        columns = self.first[:, None] + np.arange(self.weights.shape[1])
        np.put_along_axis(dense, columns, self.weights, 1)
        return dense


@dataclass(frozen=True)
class AxisPass:
    """One pass of a resize.

    axis: along which the samples are summed; `columns` changes the width, `rows` the height.
    taps: the weights.
    rounding: what happens to the sums: `none` keeps them as floats; the others round them to integers and limit these
        to 0..255. Halves go to the even integer or up. With `quarters` (OpenCV's linear along rows), each sample is
        first rounded down to a multiple of 1/128, each product to a multiple of 1/4, and halves of the sum go up.
    """

    axis: Axis
    taps: Taps
    rounding: Rounding


@lru_cache(maxsize=64)
def resize_passes(source_hw: tuple[int, int], target_hw: tuple[int, int], kernel: Kernel) -> tuple[AxisPass, ...]:
    """The passes that resize an 8-bit image as `runtime.fit.apply_fit` does; the last one rounds.

    source_hw, target_hw: (height, width) of the image and of what it becomes, pixels. If they are equal, there is no
    pass. The arrays are shared with other callers and must not be changed. Raises nothing.
    """
    if source_hw == target_hw:
        return ()
    if kernel in _PILLOW:
        return _with_pillow(source_hw, target_hw, kernel)
    if kernel == "bicubic-aliased":
        return _both(source_hw, target_hw, cubic_taps, "half-even")
    down = (min(source_hw[0], target_hw[0]), min(source_hw[1], target_hw[1]))
    passes: tuple[AxisPass, ...] = ()
    if down != source_hw:
        halves = source_hw == (2 * down[0], 2 * down[1])  # OpenCV has a kernel of its own for averages of 2 x 2
        passes += _both(source_hw, down, area_taps, "half-up" if halves else "half-even")
    if down != target_hw:
        passes += _both(down, target_hw, linear_taps, "half-up" if down[0] == target_hw[0] else "quarters")
    return passes


def axis_taps(source: int, target: int, kernel: Kernel) -> Taps:
    """The weights of one axis from `source` to `target` samples under a kernel of the manifest. Raises nothing.

    `area-linear` averages an axis that shrinks and interpolates one that grows. Equal lengths give one weight of 1.
    """
    if kernel in _PILLOW:
        return pillow_taps(source, target, kernel)
    if kernel == "bicubic-aliased":
        return cubic_taps(source, target)
    return area_taps(source, target) if target <= source else linear_taps(source, target)


def _with_pillow(source_hw: tuple[int, int], target_hw: tuple[int, int], kernel: Kernel) -> tuple[AxisPass, ...]:
    """Pillow leaves out an axis that keeps its length, and rounds in each pass.

    It changes the width first, unless the height loses more than twice as many pixels (Pillow 13; before, it was always
    the width, which gives the same pixels within one or two levels).
    """
    lost = source_hw[0] - target_hw[0], source_hw[1] - target_hw[1]
    axes = _WIDTH_FIRST
    if lost[0] > 0 and lost[0] > 2 * lost[1]:
        axes = axes[::-1]
    return tuple(
        AxisPass(axis, pillow_taps(source_hw[index], target_hw[index], kernel), "half-up")
        for axis, index in axes
        if lost[index]
    )


def _both(
    source_hw: tuple[int, int], target_hw: tuple[int, int], taps: Callable[[int, int], Taps], rounding: Rounding
) -> tuple[AxisPass, ...]:
    """OpenCV changes the width first, keeps the sums of that pass whole, and rounds once at the end."""
    sides = [
        AxisPass(axis, taps(source_hw[index], target_hw[index]), "none")
        for axis, index in _WIDTH_FIRST
        if source_hw[index] != target_hw[index]
    ]
    return (*sides[:-1], AxisPass(sides[-1].axis, sides[-1].taps, rounding))


# ------------------------------------------------------------------------------------------- OpenCV


@lru_cache(maxsize=64)
def area_taps(source: int, target: int) -> Taps:
    """OpenCV's INTER_AREA for an axis that shrinks: each output is the mean over its share of the input."""
    scale = source / target
    index = np.arange(target)
    low, high = index * scale, np.minimum((index + 1) * scale, source)
    first = np.floor(low).astype(np.int64)
    place = first[:, None] + np.arange(math.ceil(scale) + 1)
    covered = np.minimum(place + 1, high[:, None]) - np.maximum(place, low[:, None])
    covered[covered <= _AREA_LEAST] = 0.0
    width = np.minimum(scale, source - low)[:, None]
    return _collected(place, (covered / width).astype(np.float32).astype(np.float64), source)


@lru_cache(maxsize=64)
def linear_taps(source: int, target: int) -> Taps:
    """OpenCV's INTER_LINEAR with its 11 bits of weight, for an axis that grows."""
    low, part = _places(source, target)
    part[(low < 0) | (low >= source - 1)] = 0.0
    weights = np.rint(np.stack([1 - part, part], 1) * _OPENCV_UNIT) / _OPENCV_UNIT
    return _collected(np.clip(low, 0, source - 1)[:, None] + np.arange(2), weights, source)


@lru_cache(maxsize=64)
def cubic_taps(source: int, target: int) -> Taps:
    """OpenCV's INTER_CUBIC: four samples whatever the factor. On some CPUs OpenCV rounds these weights to 11 bits."""
    low, part = _places(source, target)
    weights = np.stack([_cubic(np.abs(part - step), _OPENCV_CUBIC) for step in (-1, 0, 1)], 1)
    weights = np.concatenate([weights, 1 - weights.sum(1, keepdims=True)], 1)
    return _collected(low[:, None] + np.arange(-1, 3), weights, source)


def _places(source: int, target: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """For each output, the input sample below its centre, and how far its centre is above that one."""
    centre = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32).astype(np.float64)
    low = np.floor(centre).astype(np.int64)
    return low, centre - low


# ------------------------------------------------------------------------------------------- Pillow


@lru_cache(maxsize=64)
def pillow_taps(source: int, target: int, kernel: Kernel) -> Taps:
    """Pillow's filter of this name with its 22 bits of weight; it widens by the factor when it shrinks."""
    reach, function = _PILLOW[kernel]
    scale = source / target
    spread = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale
    low = np.maximum((centre - reach * spread + 0.5).astype(np.int64), 0)
    high = np.minimum((centre + reach * spread + 0.5).astype(np.int64), source)
    place = low[:, None] + np.arange(int((high - low).max()))
    weights = function(np.abs((place - centre[:, None] + 0.5) / spread))
    weights[place >= high[:, None]] = 0.0
    weights /= weights.sum(1, keepdims=True)
    rounded = np.trunc(weights * _PILLOW_UNIT + np.copysign(0.5, weights)) / _PILLOW_UNIT
    return _collected(place, rounded, source)


def _cubic(distance: FloatArray, slope: float) -> FloatArray:
    """The cubic convolution kernel of Keys (1981) at distances of 0 or more."""
    near = ((slope + 2) * distance - (slope + 3)) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * slope
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _lanczos(distance: FloatArray) -> FloatArray:
    """sinc(x) sinc(x / 3) up to a distance of 3."""
    return np.where(distance < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


# Of each of Pillow's filters: how far it reaches, in samples, and its function of the distance.
_PILLOW: dict[str, tuple[float, Callable[[FloatArray], FloatArray]]] = {
    "lanczos": (3.0, _lanczos),
    "bicubic": (2.0, lambda distance: _cubic(distance, _PILLOW_CUBIC)),
}


# ------------------------------------------------------------------------------------------- layout


def _collected(place: npt.NDArray[np.int64], weights: FloatArray, source: int) -> Taps:
    """Weights at places that may be outside of the input: those go to its edge samples, and rows start within it."""
    inside = np.clip(place, 0, source - 1)
    used = np.where(weights != 0.0, inside, source)
    count = int((np.where(weights != 0.0, inside, -1).max(1) - used.min(1)).max()) + 1
    first = np.minimum(used.min(1), source - count)
    table = np.zeros((len(place), count))
    rows = np.broadcast_to(np.arange(len(place))[:, None], place.shape)
    column = np.clip(inside - first[:, None], 0, count - 1)  # places beyond have no weight
    np.add.at(table, (rows, column), np.where(weights != 0.0, weights, 0.0))
    return Taps(first.astype(np.int32), table)
