"""Arrays as people hand them over: the right pixels, or `image-array` with words that say what is wrong."""

import cv2
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchrt.errors import MatchRTError
from matchrt.runtime.image import as_image

RGB = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (40, 64), dtype=np.uint16)
UNIT = (RGB / 255).astype(np.float32)


def refused(value, *words):
    with pytest.raises(MatchRTError) as caught:
        as_image(value)
    assert caught.value.code == "image-array"
    assert all(word in caught.value.message for word in words), caught.value.message
    return caught.value


@pytest.mark.parametrize("order", "<>=")
@pytest.mark.parametrize("kind", ["u1", "u2", "f2", "f4", "f8"])
def test_any_byte_order(kind, order):
    values = {"u1": RGB, "u2": RGB.astype(np.uint16) * 257}.get(kind, RGB / 255)
    assert np.array_equal(as_image(values.astype(order + kind)).pixels, RGB)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a[:, :, ::-1],
        lambda a: a[::2, 1::3],
        np.asfortranarray,
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: a.transpose(1, 0, 2),
    ],
)
def test_any_strides(view):
    for values in (RGB, RGB.astype(">u2") * 257, UNIT):
        assert np.array_equal(as_image(view(values)).pixels, np.ascontiguousarray(view(RGB)))


def test_read_only_arrays_stay_as_they_are():
    for values in (RGB, DEEP.astype(">u2"), UNIT):
        frozen = values.copy()
        frozen.setflags(write=False)
        as_image(frozen)
        assert np.array_equal(frozen, values)


def test_memoryviews_and_array_interfaces():
    assert np.array_equal(as_image(memoryview(RGB)).pixels, RGB)

    class Interface:
        __array_interface__ = DEEP.astype(">u2").__array_interface__
        kept = DEEP.astype(">u2")

    Interface.__array_interface__ = Interface.kept.__array_interface__
    assert np.array_equal(as_image(Interface()).pixels, as_image(DEEP).pixels)
    refused(RGB.tobytes(), "bytes")
    refused(np.ndarray, "type")


def test_tensors():
    torch = pytest.importorskip("torch")
    assert np.array_equal(as_image(torch.from_numpy(RGB)).pixels, RGB)
    assert np.array_equal(as_image(torch.from_numpy(UNIT)).pixels, RGB)
    assert np.array_equal(as_image(torch.from_numpy(UNIT).double()).pixels, RGB)
    assert "channels first" in refused(torch.from_numpy(UNIT).permute(2, 0, 1)).message
    refused(torch.from_numpy(UNIT).requires_grad_(), "numpy array")


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_within_rounding_are_clipped(kind):
    values = UNIT.astype(kind)
    values[5, 5, 0] = np.nextafter(kind(1), kind(2))
    values[6, 6, 1] = np.nextafter(kind(0), kind(-1))
    pixels = as_image(values).pixels
    assert (pixels[5, 5, 0], pixels[6, 6, 1]) == (255, 0)
    assert np.array_equal(as_image(values.clip(0, 1)).pixels, pixels)
    assert as_image(np.full((20, 20), 1 + 1 / 1024, kind)).pixels.min() == 255


@pytest.mark.parametrize("method", [cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
def test_the_overshoot_of_a_resize_is_clipped(method):
    for size in ((96, 60), (200, 130)):
        values = cv2.resize(cv2.GaussianBlur(UNIT, (3, 3), 1) * 1.6 - 0.3, (64, 40)).clip(0, 1)
        resized = cv2.resize(values, size, interpolation=method)
        assert resized.max() > 1.01 or resized.min() < -0.01
        assert np.array_equal(as_image(resized).pixels, np.rint(resized.clip(0, 1) * 255))


@pytest.mark.parametrize("bad", [1.5, -0.3, 255.0, np.nan, np.inf, -np.inf])
def test_one_value_off_the_scale_is_refused(bad):
    values = UNIT.copy()
    values[7, 7, 1] = bad
    refused(values, f"{bad:g}" if np.isfinite(bad) else "NaN")


def test_wrong_scales_are_refused_with_enough_digits():
    refused(UNIT * 255, "255")
    refused(UNIT * 2 - 1, "-1")
    refused(UNIT * 1.2, "1.2")
    refused(np.where(UNIT > 0.99, np.float32(1.3), UNIT), "1.29999995")
    refused((UNIT - 0.45) / 0.22)


SHAPES = st.one_of(
    arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=40),
    st.tuples(st.integers(16, 40), st.integers(16, 40)),
    st.tuples(st.integers(16, 40), st.integers(16, 40), st.integers(1, 5)),
)
DTYPES = st.one_of(
    arrays.scalar_dtypes(),
    arrays.unsigned_integer_dtypes(),
    arrays.floating_dtypes(),
    arrays.array_dtypes(max_size=2),
    st.just(np.dtype(object)),
    st.just(np.dtype("S3")),
)
STEPS = st.tuples(*[st.sampled_from([1, -1, 2])] * 2)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), dtype=DTYPES, shape=SHAPES, steps=STEPS, stretch=st.sampled_from(["none", "each", "same"]))
def test_any_array_is_an_image_or_a_named_error(data, dtype, shape, steps, stretch):
    seed = data.draw(st.integers(0, 2**32 - 1))
    low, high = data.draw(
        st.sampled_from([(0, 1), (0, 255), (-1, 1), (0, 65535), (0, 1.001), (-1e30, 1e30), (0, np.nan)])
    )
    with np.errstate(all="ignore"):
        values = np.random.default_rng(seed).uniform(0, 1, shape) * (high - low) + low
        values = np.asarray(values)
        try:
            array = values.astype(dtype)
        except (TypeError, ValueError):
            array = np.zeros(shape, dtype)
    if array.ndim >= 2:
        array = array[:: steps[0], :: steps[1]]
    try:
        image = as_image(array, stretch=stretch)
    except MatchRTError as error:
        assert error.code in ("image-array", "image-too-small")
        assert error.message
        return
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags.c_contiguous
    assert image.pixels.shape[:2] == array.shape[:2]
    if stretch == "none" and array.dtype.kind in "uf":
        white = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
        expected = np.rint(np.clip(array.astype(np.float64) / white, 0, 1) * 255)
        expected = expected[:, :, 0] if expected.ndim == 3 and expected.shape[2] == 1 else expected
        expected = expected[:, :, :3] if expected.ndim == 3 else expected
        assert np.abs(image.pixels - expected).max() <= (0 if array.dtype.kind == "u" else 1)
