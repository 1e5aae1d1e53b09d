"""Images made on the spot."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def texture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Grey noise on several scales: distinct everywhere, smooth enough to be resized."""
    generator = np.random.default_rng(seed)
    image = np.zeros((height, width), np.float32)
    for scale in (2, 4, 8, 16, 32):
        noise = generator.random((height // scale + 2, width // scale + 2), dtype=np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * scale**-0.5
    image = (image - image.min()) / (image.max() - image.min())
    return np.asarray(image * 255, np.uint8)


def shifted_pair(
    height: int, width: int, shift: tuple[int, int], seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Two overlapping crops: a point (x, y) of the first is (x - shift[0], y - shift[1]) in the second."""
    dx, dy = shift
    whole = texture(height + dy, width + dx, seed)
    return np.ascontiguousarray(whole[:height, :width]), np.ascontiguousarray(whole[dy:, dx:])
