"""Values that use little of their range: said, and stretched alone or together with the other image of a pair."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image as PILImage

from matchrt.errors import MatchRTError
from matchrt.runtime.image import Image, as_image, decode_image, stretch_together
from matchrt.runtime.options import MatcherOptions

RANDOM = np.random.default_rng(2)
RAMP = np.linspace(0, 1, 100 * 120).reshape(100, 120)
THERMAL = (29000 + 1500 * RAMP).astype(np.uint16)
TWELVE = (4095 * RAMP).astype(np.uint16)


def percent(values):
    low, high = np.percentile(values, (1, 99))
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255)


@pytest.mark.parametrize("values", [THERMAL, TWELVE, THERMAL.astype(">u2"), (29000 + 1500 * RAMP), RAMP * 20 - 280])
def test_percentiles_1_and_99_become_black_and_white(values):
    image = as_image(values, stretch="each")
    assert np.abs(image.pixels - percent(values)).max() <= 1
    assert image.notice is None


def test_a_file_is_stretched_as_its_values_are(tmp_path):
    for kind in ("PNG", "TIFF"):
        stream = io.BytesIO()
        PILImage.fromarray(THERMAL).save(stream, kind)
        image = decode_image(stream.getvalue(), "a", stretch="each")
        assert np.array_equal(image.pixels, as_image(THERMAL, stretch="each").pixels)


def test_pixels_beyond_the_percentiles_are_clipped():
    values = THERMAL.copy()
    values[50, 50], values[50, 51] = 65535, 0
    found, expected = (as_image(array, stretch="each").pixels[:50].astype(int) for array in (values, THERMAL))
    assert np.abs(found - expected).max() <= 1


def test_little_contrast_is_said():
    notice = as_image(THERMAL, name="t.tif").notice
    assert "t.tif" in notice
    assert "2.2%" in notice
    assert "--stretch" in notice
    assert as_image(TWELVE).notice is not None
    assert as_image((255 * RAMP).astype(np.uint8)).notice is None
    assert as_image((255 * RAMP * 0.09).astype(np.uint8)).notice is not None
    assert as_image(RAMP).notice is None


def test_both_images_of_a_pair_get_one_scale():
    cold, warm = THERMAL - 2000, THERMAL
    first, second = stretch_together(as_image(cold, stretch="same"), as_image(warm, stretch="same"))
    equal = cold == 28000
    assert abs(int(first.pixels[equal].mean()) - int(second.pixels[warm == 29000].min())) > 20
    for value in (29000, 29100):  # in both images
        if (cold == value).any():
            assert set(first.pixels[cold == value]) == set(second.pixels[warm == value])
    low, high = (
        min(np.percentile(cold, 1), np.percentile(warm, 1)),
        max(np.percentile(cold, 99), np.percentile(warm, 99)),
    )
    assert np.abs(first.pixels - np.clip((cold - low) / (high - low), 0, 1) * 255).max() <= 1


def test_images_of_different_types_get_one_scale():
    first, second = stretch_together(
        as_image(THERMAL, stretch="same"), as_image((THERMAL / 65535).astype(np.float32), stretch="same")
    )
    assert np.abs(first.pixels.astype(int) - second.pixels).max() <= 1


def test_an_image_without_values_cannot_be_stretched_with_another():
    with pytest.raises(MatchRTError) as caught:
        stretch_together(as_image(THERMAL, stretch="same"), Image(np.zeros((20, 20), np.uint8), "grey"))
    assert caught.value.code == "image-array"
    assert "grey" in caught.value.message


@pytest.mark.parametrize("value", [0, 7, 255])
def test_flat_images_stay_flat(value):
    assert np.ptp(as_image(np.full((20, 30), value, np.uint8), stretch="each").pixels) == 0
    assert np.ptp(as_image(np.full((20, 30), value, np.float32), stretch="each").pixels) == 0


def test_images_can_be_sent_to_other_processes():
    stream = io.BytesIO()
    PILImage.fromarray(THERMAL).save(stream, "PNG")
    for stretch in ("none", "each", "same"):
        image = decode_image(stream.getvalue(), "a", stretch=stretch)
        copy = pickle.loads(pickle.dumps(image))
        assert np.array_equal(copy.pixels, image.pixels)
        assert (copy.name, copy.notice, copy.orientation) == (image.name, image.notice, image.orientation)


@pytest.mark.parametrize(
    "options",
    [
        {"stretch": "both"},
        {"threads": "4"},
        {"threads": 2.5},
        {"threads": True},
        {"resize": "832"},
        {"resize": 0},
        {"min_score": "high"},
        {"min_score": float("nan")},
        {"max_pixels": None},
        {"seed": -1},
        {"sample": "many"},
    ],
)
def test_options_of_the_wrong_type_are_named(options):
    with pytest.raises(MatchRTError) as caught:
        MatcherOptions(**options)
    assert caught.value.code == "option-range"
    assert next(iter(options)) in caught.value.message


def test_numpy_numbers_are_numbers():
    assert MatcherOptions(threads=np.int64(2), seed=np.int32(3), min_score=np.float32(0.5)).threads == 2
