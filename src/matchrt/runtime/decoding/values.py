"""Values as they are stored, and how they become 8 bits: on the scale of their type, or stretched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError

UInt8Array = npt.NDArray[np.uint8]
Stretch = Literal["none", "each", "same"]
STRETCHES: tuple[Stretch, ...] = ("none", "each", "same")

# An image is stretched between these percentiles, and its contrast is what lies between them.
PERCENTILES = (1.0, 99.0)
# Below this part of the scale, an image is said to have little contrast.
LEAST_CONTRAST = 0.1
# Floats may leave 0..1 by this much in this part of the values: bicubic and Lanczos resizing leave them so.
_OVERSHOOT, _OVERSHOOTING = 0.25, 0.1
_SAMPLED = 1 << 16
# A first look takes every such row of the sample, since whole rows come through the cache faster.
_FIRST_LOOK = 6


@dataclass(frozen=True)
class Span:
    """The values between which most of an image lies.

    low, high: its percentiles 1 and 99.
    white: the value of white; black is 0.
    """

    low: float
    high: float
    white: float

    @property
    def contrast(self) -> float:
        """The part of the scale between low and high; above 1 for floats beyond it."""
        return (self.high - self.low) / self.white

    def join(self, other: Span) -> Span:
        """The span of both images, on the scale of `self`. Raises nothing."""
        factor = self.white / other.white
        return Span(min(self.low, other.low * factor), max(self.high, other.high * factor), self.white)


@dataclass(frozen=True, eq=False)
class Values:
    """What a file or an array holds.

    pixels: [H, W] grey or [H, W, 3] RGB, unsigned or signed integers, or floats.
    white: the value of white, such as 255, 4095, 65535 or 1.0. Black is 0.
    """

    pixels: npt.NDArray[Any]
    white: float

    def span(self) -> Span:
        """Percentiles 1 and 99 of some 65,000 values spread over the image, NaN left out. Raises nothing."""
        step = self._step()
        sample = self.pixels[::step, ::step].ravel()
        if sample.dtype in (np.uint8, np.uint16):  # this stands before every match, and counting is faster
            counted = np.cumsum(np.bincount(sample))
            low, high = np.searchsorted(counted, np.array(PERCENTILES) / 100 * counted[-1])
            return Span(float(low), float(high), self.white)
        sample = sample.astype(np.float64)
        sample = sample[np.isfinite(sample)]
        if not sample.size:
            return Span(0.0, 0.0, self.white)
        low, high = np.percentile(sample, PERCENTILES)
        return Span(float(low), float(high), self.white)

    def has_contrast(self) -> bool:
        """Whether `span` has a contrast of at least LEAST_CONTRAST. Raises nothing.

        This stands before every match, and counting the sample takes as long as converting the image. So a part of the
        sample is looked at first. If one value in a hundred of the whole sample is dark in that part alone, the
        sample's percentile 1 is no brighter, and so on: then the contrast is proven, and nothing is counted.
        """
        return self._plainly_has_contrast() or self.span().contrast >= LEAST_CONTRAST

    def _plainly_has_contrast(self) -> bool:
        if self.pixels.dtype.kind != "u":
            return False
        step = self._step()
        rows, columns = (-(-side // step) for side in self.pixels.shape[:2])
        needed = int(PERCENTILES[0] / 100 * rows * columns * math.prod(self.pixels.shape[2:])) + 2
        part = self.pixels if self.pixels.ndim == 2 else self.pixels[:, :, 1]  # green
        look = part[:: step * _FIRST_LOOK, ::step].ravel()
        middle, half = float(look[::8].mean()), LEAST_CONTRAST / 2 * self.white
        for centre in (middle, 0.7 * middle, 0.7 * middle + 0.3 * self.white):
            low, high = math.floor(centre - half), math.ceil(centre + half)
            if low < 0 or high > self.white:
                continue
            dark, bright = look <= look.dtype.type(low), look >= look.dtype.type(high)
            if min(np.count_nonzero(dark), np.count_nonzero(bright)) >= needed:
                return True
        return False

    def _step(self) -> int:
        return max(1, int((self.pixels.size / _SAMPLED) ** 0.5))


def to_uint8(values: Values, name: str, code: str) -> UInt8Array:
    """Values on the scale of their type, to uint8: white becomes 255.

    name, code: of errors. Errors: `code` if floats or wide integers are not on their scale, or NaN or infinite.
    """
    pixels, white = values.pixels, values.white
    if pixels.dtype == np.uint8 and white == 255:
        return np.asarray(pixels, np.uint8)
    if pixels.dtype.kind == "f":
        return _floats_to_uint8(pixels, name, code)
    top = int(white)
    if pixels.dtype in (np.uint8, np.uint16):  # a table is faster than arithmetic
        table = np.minimum((np.arange(1 << 16, dtype=np.uint32) * 255 + top // 2) // top, 255).astype(np.uint8)
        return np.asarray(table[pixels], np.uint8)
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > white:
        raise MatchRTError(
            code,
            f"'{name}' has integer values {low}..{high}; 0..{white:.0f} can be read.",
            "Convert it to 16 bits, or stretch its values: --stretch each (MatcherOptions(stretch='each')).",
        )
    wide = pixels.astype(np.uint32)
    return np.asarray((wide * 255 + top // 2) // top, np.uint8)


def stretch_to_uint8(values: Values, span: Span, name: str, code: str) -> UInt8Array:
    """Values stretched to uint8: `span.low` becomes 0, `span.high` 255, and what lies outside is clipped.

    span: on the scale of `values`. name, code: of errors. Errors: `code` if there are NaN or infinite values.
    """
    pixels = values.pixels
    _require_finite(pixels, name, code)
    if pixels.dtype in (np.uint8, np.uint16):
        table = _stretched(np.arange(np.iinfo(pixels.dtype).max + 1, dtype=np.float64), span)
        return np.asarray(table[pixels], np.uint8)
    return _stretched(pixels.astype(np.float64), span)


def _stretched(values: npt.NDArray[np.float64], span: Span) -> UInt8Array:
    if span.high <= span.low:  # a flat image
        return np.asarray(np.where(values > span.high, 255, 0), np.uint8)
    clipped = np.clip(values, span.low, span.high)
    return np.asarray(np.rint((clipped / 2 - span.low / 2) / (span.high / 2 - span.low / 2) * 255), np.uint8)


def _floats_to_uint8(values: npt.NDArray[Any], name: str, code: str) -> UInt8Array:
    _require_finite(values, name, code)
    low, high = float(values.min()), float(values.max())
    if low < 0.0 or high > 1.0:
        outside = np.count_nonzero((values < 0) | (values > 1))
        rounding = max(-low, high - 1.0) <= 0.5 / 255
        if not rounding and (low < -_OVERSHOOT or high > 1 + _OVERSHOOT or outside > _OVERSHOOTING * values.size):
            raise MatchRTError(
                code,
                f"'{name}' holds floats from {low:.9g} to {high:.9g}; {outside:,} of {values.size:,} are outside 0..1.",
                "Scale it to 0..1, use uint8, or stretch it: --stretch each (MatcherOptions(stretch='each')).",
            )
        values = np.clip(values, 0, 1)
    # Half precision has too few digits for the product.
    wide = values.astype(np.float32) if values.dtype.itemsize < 4 else values
    return np.asarray(np.rint(wide * 255.0), np.uint8)


def _require_finite(values: npt.NDArray[Any], name: str, code: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise MatchRTError(code, f"'{name}' holds NaN or infinite values.", "Replace them before matching.")
