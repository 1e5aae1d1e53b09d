"""Frames that show nothing: black ones, and ones of a single colour."""

from __future__ import annotations

from typing import Literal

import numpy as np

from matchrt.runtime.decoding.values import UInt8Array

Blank = Literal["black", "blank"]
# Values of 0..255 up to which all but a few pixels of a black frame are, and by which those of a blank one differ.
# Video codes black as 16 in some files, and compression adds a few values.
BLACK_UP_TO, BLANK_RANGE = 24, 8
_FEW = 0.5  # per cent, at each end
_SIDE = 160


def blank_kind(pixels: UInt8Array) -> Blank | None:
    """Whether a frame shows nothing: `black`, `blank` (one colour), or None. Raises nothing.

    pixels: uint8 RGB [H, W, 3].
    """
    step = max(max(pixels.shape[:2]) // _SIDE, 1)
    seen = pixels[::step, ::step].reshape(-1, pixels.shape[2])
    low, high = np.percentile(seen, (_FEW, 100 - _FEW), axis=0)
    if high.max() <= BLACK_UP_TO:
        return "black"
    return "blank" if (high - low).max() <= BLANK_RANGE else None
