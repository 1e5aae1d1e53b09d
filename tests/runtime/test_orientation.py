"""EXIF orientations: pixels turn as Pillow turns them, and points go back to the stored pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageOps

from matchrt.runtime.orientation import stored_points, turn_pixels, turn_size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_turn_as_pillow_turns_them(orientation: int) -> None:
    stored = np.random.default_rng(orientation).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = PILImage.fromarray(stored)
    picture.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(turn_pixels(stored, orientation), upright)
    assert turn_size(5, 7, orientation) == upright.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_go_back_to_the_stored_pixel(orientation: int) -> None:
    stored = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    upright = turn_pixels(stored, orientation)
    rows, columns = np.indices(upright.shape)
    points = np.stack((columns.ravel(), rows.ravel()), axis=1).astype(np.float32)
    back = stored_points(points, orientation, *upright.shape).astype(int)
    assert np.array_equal(stored[back[:, 1], back[:, 0]], upright.ravel())
