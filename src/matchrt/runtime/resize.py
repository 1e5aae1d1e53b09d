"""Images of another size, written straight to where they are wanted.

`area-linear` averages over areas along a side that shrinks (no aliasing), and interpolates linearly along a side that
grows. `lanczos` and `bicubic` are Pillow's filters, which widen when they shrink. `bicubic-aliased` is OpenCV's, which
does not.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from matchrt.manifest import Kernel
from matchrt.runtime.workspace import Workspace

UInt8Array = npt.NDArray[np.uint8]
_PILLOW = {"lanczos": PILImage.Resampling.LANCZOS, "bicubic": PILImage.Resampling.BICUBIC}


def resize_into(pixels: UInt8Array, out: UInt8Array, kernel: Kernel, workspace: Workspace) -> None:
    """Resizes `pixels`, uint8 [H, W] or [H, W, 3], to the size of `out`, whose rows may be apart. Raises nothing."""
    height, width = out.shape[:2]
    if pixels.shape[:2] == (height, width):
        np.copyto(out, pixels)
    elif kernel == "area-linear":
        _area_linear(pixels, out, workspace)
    elif kernel == "bicubic-aliased":
        _by_opencv(pixels, out, cv2.INTER_CUBIC)
    else:
        np.copyto(out, np.asarray(PILImage.fromarray(pixels).resize((width, height), _PILLOW[kernel])))


def _area_linear(pixels: UInt8Array, out: UInt8Array, workspace: Workspace) -> None:
    """Shrinks first, then enlarges: INTER_AREA stops averaging as soon as one of its two sides grows."""
    height, width = out.shape[:2]
    down = (min(height, pixels.shape[0]), min(width, pixels.shape[1]))
    if down == (height, width):
        _by_opencv(pixels, out, cv2.INTER_AREA)
        return
    if down != pixels.shape[:2]:
        smaller = workspace.take("smaller", (*down, *pixels.shape[2:]))
        _by_opencv(pixels, smaller, cv2.INTER_AREA)
        pixels = smaller
    _by_opencv(pixels, out, cv2.INTER_LINEAR)


def _by_opencv(pixels: UInt8Array, out: UInt8Array, interpolation: int) -> None:
    result = cv2.resize(pixels, (out.shape[1], out.shape[0]), dst=out, interpolation=interpolation)
    if result is not out:  # OpenCV does not like its layout
        np.copyto(out, np.asarray(result, np.uint8))
