"""How an image is fitted into a network's input, and how points go back.

Coordinates: pixels, x right, y down, the centre of the top-left pixel is (0, 0). A resize keeps the edges of the image,
    not the centres of its pixels, hence the half pixels:

    x_original = (x_resized + 0.5) * (w_original / w_resized) - 0.5
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.manifest import InputContract, Kernel
from matchrt.runtime.resize import resize_into
from matchrt.runtime.workspace import Workspace

# More than this adds no detail to the network's input, while its cost grows with the square.
MAX_ENLARGEMENT = 2.0
# Eight cells of 8 px. Networks with a coarse grid drop matches in a border of up to two cells on each side.
MIN_NETWORK_SIDE = 64
# A large image is padded to a square of at most so many times its pixels.
MAX_SQUARE, LARGE_SIDE = 8, 4096

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fit:
    """A resized image in the top-left corner of a canvas whose remaining pixels are zero.

    scale_x: original pixels for each resized pixel along x, w_original / w_resized.
    scale_y: the same along y, h_original / h_resized.
    resized_height: rows of the resized image, pixels.
    resized_width: columns of the resized image, pixels.
    canvas_height: rows of the network's input, pixels.
    canvas_width: columns of the network's input, pixels.
    padding: rows below and columns right of the original, zeros, that are added before it is resized; the scales and
        the resized size are those of the padded original.
    """

    scale_x: float
    scale_y: float
    resized_height: int
    resized_width: int
    canvas_height: int
    canvas_width: int
    padding: tuple[int, int] = (0, 0)

    @property
    def original_hw(self) -> tuple[int, int]:
        """(height, width) in pixels of the image that this fit was made for."""
        height, width = round(self.scale_y * self.resized_height), round(self.scale_x * self.resized_width)
        return height - self.padding[0], width - self.padding[1]

    @property
    def canvas_hw(self) -> tuple[int, int]:
        """(height, width) of the network's input, pixels."""
        return self.canvas_height, self.canvas_width

    @property
    def changes_nothing(self) -> bool:
        """Whether the resized image is the original, without padding."""
        same = self.scale_x == self.scale_y == 1.0 and self.canvas_hw == (self.resized_height, self.resized_width)
        return same and not any(self.padding)

    def padded(self, pixels: UInt8Array) -> UInt8Array:
        """An original `[H, W]` or `[H, W, C]` with the zeros of `padding`; itself if there are none. Raises nothing."""
        if not any(self.padding):
            return pixels
        rows, columns = self.padding
        padded = np.zeros((pixels.shape[0] + rows, pixels.shape[1] + columns, *pixels.shape[2:]), np.uint8)
        padded[: pixels.shape[0], : pixels.shape[1]] = pixels
        return padded

    def inside(self, canvas: UInt8Array) -> UInt8Array:
        """The part of a canvas `[H, W, C]` that the resized image fills, as a view. Raises nothing."""
        return canvas[: self.resized_height, : self.resized_width]

    def clear_padding(self, canvas: UInt8Array) -> None:
        """Makes the rest of a canvas `[H, W, C]` zero. It may have held another image. Raises nothing."""
        if self.resized_height < self.canvas_height:
            canvas[self.resized_height :] = 0
        if self.resized_width < self.canvas_width:
            canvas[: self.resized_height, self.resized_width :] = 0

    def to_original(self, points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Points [N, 2] (x, y) in pixels of the canvas to pixels of the original.

        float32 points give float32, any others float64. If nothing was scaled, this returns the points themselves and
        not a copy. Raises nothing.
        """
        if self.scale_x == self.scale_y == 1.0:
            return points
        moved = np.add(points, 0.5, dtype=np.float64)
        if self.scale_x == self.scale_y:
            moved *= self.scale_x
        else:  # each axis alone: NumPy is slow along an axis of two
            moved[..., 0] *= self.scale_x
            moved[..., 1] *= self.scale_y
        moved -= 0.5
        return _like(points, moved)

    def to_network(self, points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Points [N, 2] (x, y) in pixels of the original to pixels of the canvas; the inverse of `to_original`.

        float32 points give float32, any others float64. Raises nothing.
        """
        scale = np.array([self.scale_x, self.scale_y])
        return _like(points, (np.asarray(points, np.float64) + 0.5) / scale - 0.5)


def _like(points: npt.NDArray[Any], result: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    return result.astype(np.float32) if np.asarray(points).dtype == np.float32 else result


@lru_cache(maxsize=256)
def fit_image(image_hw: tuple[int, int], contract: InputContract, long_side: int) -> Fit:
    """Fits an image as the engine's contract says.

    image_hw: (height, width) of the image, pixels.
    contract: the engine's input.
    long_side: the long side, in pixels, at which a dynamic engine should see the image; static engines ignore it.
    Error: fit-size if the image's size is not positive or too small for the rule.
    """
    if contract.profile is not None:
        low, high = contract.profile.minimum, contract.profile.maximum
        return fit_long_side(image_hw, long_side, contract.divisor, low, high)
    assert contract.height is not None and contract.width is not None
    canvas = (contract.height, contract.width)
    if contract.fitting == "stretch":
        return _fit(_positive(image_hw, "image"), canvas, canvas)
    if contract.fitting == "square":
        return fit_square(image_hw, canvas)
    if contract.fitting == "pad-square":
        return fit_pad_square(image_hw, contract.height, contract.divisor)
    return fit_letterbox(image_hw, canvas, contract.divisor)


def fit_coarse(image_hw: tuple[int, int], contract: InputContract) -> Fit | None:
    """The fit of the smaller copy for engines that take one (`InputContract.coarse`); None for other engines.

    image_hw: (height, width) of the image, pixels. Error: fit-size.
    """
    if contract.coarse is None:
        return None
    if contract.fitting == "square":
        return fit_square(image_hw, contract.coarse)
    return _fit(_positive(image_hw, "image"), contract.coarse, contract.coarse)


def fit_square(image_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> Fit:
    """GIM's rule: zeros right and below make the image a square, which is then resized to the whole canvas.

    image_hw, canvas_hw: (height, width) of the image and of the canvas, pixels.
    Error: fit-size if a size is not positive, or if the square of a large image would be MAX_SQUARE times the image.
    """
    height, width = _positive(image_hw, "image")
    side = max(height, width)
    if side > LARGE_SIDE and side > MAX_SQUARE * min(height, width):
        raise MatchRTError(
            "fit-size",
            f"An image of {width}x{height} pixels is too narrow for a model that pads images to squares.",
            "Cut it into parts, or resize it first.",
        )
    whole = _fit((side, side), canvas_hw, canvas_hw)
    return replace(whole, padding=(side - height, side - width))


def fit_pad_square(image_hw: tuple[int, int], side: int, divisor: int) -> Fit:
    """MatchAnything's rule: each side is cut down to a multiple of `divisor`, then zeros right and below make a square.

    image_hw: (height, width) of the image, pixels.
    side: of the square, pixels.

    If the longer side, cut down, is that of the square, the image is resized to just these sides, as the official code
    does. Any other image is scaled so that its long side fills the square. Error: fit-size if a size is not positive.
    """
    height, width = _positive(image_hw, "image")
    floored = (height // divisor * divisor, width // divisor * divisor)
    if max(floored) != side:
        longest = max(height, width)
        floored = (height * side // longest // divisor * divisor, width * side // longest // divisor * divisor)
        floored = (side, floored[1]) if height >= width else (floored[0], side)
    return _fit((height, width), (max(floored[0], divisor), max(floored[1], divisor)), (side, side))


def fit_letterbox(image_hw: tuple[int, int], canvas_hw: tuple[int, int], divisor: int = 1) -> Fit:
    """Fits an image into a fixed canvas (static engines): aspect ratio kept, top-left corner, zeros right and below.

    image_hw, canvas_hw: (height, width) of the image and of the canvas, pixels.
    divisor: both sides become multiples of it, so that no cell is half padding. x and y then have slightly different
        scales, and each is kept exactly.

    A narrow image is stretched across to MIN_NETWORK_SIDE if the canvas has room. A small image is enlarged to fill the
    canvas: the engine's cost is the same either way. Error: fit-size if a size is not positive.
    """
    height, width = _positive(image_hw, "image")
    canvas = _positive(canvas_hw, "canvas")
    step, _ = _positive((divisor, 1), "divisor")
    factor = min(canvas[0] / height, canvas[1] / width)
    sides = [
        _side(side * factor, step, min(_smallest(step), limit), limit)
        for side, limit in zip((height, width), canvas, strict=True)
    ]
    return _fit((height, width), (sides[0], sides[1]), canvas)


def fit_long_side(
    image_hw: tuple[int, int],
    long_side: int,
    divisor: int,
    minimum: tuple[int, int] = (1, 1),
    maximum: tuple[int, int] | None = None,
) -> Fit:
    """Resizes the long side to about `long_side` (dynamic engines), both sides to multiples of `divisor`, no padding.

    image_hw: (height, width) of the image, pixels.
    minimum, maximum: (height, width) that the engine takes, pixels; a maximum of None sets no limit.

    An image is not enlarged beyond MAX_ENLARGEMENT, unless the engine's minimum asks for it. No side gets smaller than
    MIN_NETWORK_SIDE or 4 * divisor, so narrow images are stretched across. x and y then have slightly different scales,
    and each is kept exactly.
    Error: fit-size if a size is not positive or the maximum is below the smallest side.
    """
    height, width = _positive(image_hw, "image")
    target, step = _positive((long_side, divisor), "long side and divisor")
    low = _positive(minimum, "minimum")
    smallest = [max(_smallest(step), _up(side, step)) for side in low]
    free = (max(target, *smallest) + step,) * 2
    largest = [side // step * step for side in (free if maximum is None else maximum)]
    if largest[0] < smallest[0] or largest[1] < smallest[1]:
        raise MatchRTError(
            "fit-size",
            f"The largest size {largest} is below the smallest that the network can use, {smallest}.",
            f"Allow at least {max(smallest)} px a side.",
        )
    factor = min(target / max(height, width), MAX_ENLARGEMENT)
    for side, least in zip((height, width), low, strict=True):
        if least > _smallest(step):  # an engine's larger minimum is met by enlarging, not by stretching
            factor = max(factor, least / side)
    factor = min(factor, largest[0] / height, largest[1] / width)
    sides = [
        _side(side * factor, step, least, most)
        for side, least, most in zip((height, width), smallest, largest, strict=True)
    ]
    return _fit((height, width), (sides[0], sides[1]), (sides[0], sides[1]))


def _smallest(step: int) -> int:
    return _up(max(MIN_NETWORK_SIDE, 4 * step), step)


def _up(side: int, step: int) -> int:
    return -(-side // step) * step


def _side(wanted: float, step: int, low: int, high: int) -> int:
    """The multiple of `step` nearest to `wanted` within low..high; `low` if the range holds no multiple."""
    return max(min(round(wanted / step) * step, high // step * step), low)


def _positive(pair: tuple[int, int], what: str) -> tuple[int, int]:
    first, second = int(pair[0]), int(pair[1])
    if first < 1 or second < 1:
        raise MatchRTError("fit-size", f"The {what} ({first}, {second}) must be positive.", "Use sizes of 1 or more.")
    return first, second


def _fit(original: tuple[int, int], resized: tuple[int, int], canvas: tuple[int, int]) -> Fit:
    return Fit(original[1] / resized[1], original[0] / resized[0], *resized, *canvas)


def apply_fit(
    pixels: UInt8Array,
    fit: Fit,
    kernel: Kernel = "area-linear",
    out: UInt8Array | None = None,
    workspace: Workspace | None = None,
) -> UInt8Array:
    """Resizes an image and pads it: uint8 [H, W] or [H, W, 3] to uint8 [canvas_height, canvas_width, C].

    C is 1 or 3.
    kernel: as `runtime.resize` describes them.
    out: where the result is written; its rows may be apart. Without it, the result is contiguous, and if nothing is to
        be done it is `pixels` itself.
    workspace: for intermediate results; None for fresh memory.
    Error: fit-mismatch if the image is not of the size that the fit was made for.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[:2] != fit.original_hw:
        raise MatchRTError(
            "fit-mismatch",
            f"The image is {pixels.dtype} {pixels.shape}; the fit is for uint8 of height, width {fit.original_hw}.",
            "Make the fit from the size of this image.",
        )
    pixels = fit.padded(pixels)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if out is None and fit.changes_nothing:
        return np.ascontiguousarray(pixels)
    out = np.empty((*fit.canvas_hw, pixels.shape[2]), np.uint8) if out is None else out
    inner = fit.inside(out)
    if pixels.shape[2] == 1:
        resize_into(pixels[:, :, 0], inner[:, :, 0], kernel, workspace or Workspace())
    else:
        resize_into(pixels, inner, kernel, workspace or Workspace())
    fit.clear_padding(out)
    return out
