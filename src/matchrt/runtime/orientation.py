"""EXIF orientations: how stored pixels become upright ones, and how points go back.

The eight values are those of the tag Orientation (Exif 3.0, 4.6.5.1). Upright pixels are what people see; stored pixels
are what readers without EXIF see, such as those of COLMAP and hloc. Points are x, y; the centre of the top-left pixel
is 0, 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

UPRIGHT = 1
ORIENTATIONS = range(1, 9)
# 5..8 store rows as columns. Once these are swapped, they are flipped like 1..4.
_SWAPPED = (5, 6, 7, 8)
_ROWS_REVERSED = (3, 4, 7, 8)
_COLUMNS_REVERSED = (2, 3, 6, 7)


def inverse(orientation: int) -> int:
    """The orientation that turns upright pixels back to stored ones. Raises nothing."""
    return {6: 8, 8: 6}.get(orientation, orientation)


def turn_pixels(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Stored pixels, [H, W] or [H, W, C], as upright ones: contiguous, [W, H] or [W, H, C] for 5..8. Raises nothing."""
    if orientation in _SWAPPED:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in _ROWS_REVERSED:
        pixels = pixels[::-1]
    if orientation in _COLUMNS_REVERSED:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turn_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """(height, width) of the upright picture from those of the stored one, and the other way round. Raises nothing."""
    return (width, height) if orientation in _SWAPPED else (height, width)


def stored_points(
    points: npt.NDArray[np.float32], orientation: int, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Points in upright pixels, float32 [N, 2] x, y, as points in stored pixels, float32 [N, 2]. Raises nothing.

    height, width: of the upright picture.
    """
    x, y = points[:, 0], points[:, 1]
    if orientation in _COLUMNS_REVERSED:
        x = np.float32(width - 1) - x
    if orientation in _ROWS_REVERSED:
        y = np.float32(height - 1) - y
    return np.stack((y, x) if orientation in _SWAPPED else (x, y), axis=1).astype(np.float32)
