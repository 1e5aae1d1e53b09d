"""Fitting images into networks, and points back out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from matchrt.errors import MatchRTError
from matchrt.manifest import InputContract
from matchrt.runtime.fit import MAX_ENLARGEMENT, apply_fit, fit_image, fit_letterbox, fit_long_side
from matchrt.runtime.image import Image

side = st.integers(16, 9000)
divisor = st.sampled_from([8, 14, 16, 32])


def fits(image_hw, canvas_hw, long_side, step):
    return fit_letterbox(image_hw, canvas_hw), fit_long_side(image_hw, long_side, step)


@settings(max_examples=100, deadline=None)
@given(side, side, st.integers(64, 2048), st.integers(64, 2048), divisor, st.integers(0, 2**32 - 1))
def test_points_survive_the_round_trip(height, width, canvas_height, canvas_width, step, seed):
    points = np.random.default_rng(seed).uniform((-0.5, -0.5), (width - 0.5, height - 0.5), (50, 2))
    for fit in fits((height, width), (canvas_height, canvas_width), canvas_width, step):
        for values, tolerance in ((points, 1e-6), (points.astype(np.float32), 0.01)):
            network = fit.to_network(values)
            assert network.dtype == values.dtype
            assert np.abs(fit.to_original(network) - values).max() < tolerance


@settings(max_examples=100, deadline=None)
@given(side, side, st.integers(64, 2048), st.integers(64, 2048), divisor)
def test_edges_map_to_edges(height, width, canvas_height, canvas_width, step):
    """Half a pixel outside the first and last pixel centres is the image's edge, in every resolution."""
    for fit in fits((height, width), (canvas_height, canvas_width), canvas_height, step):
        corners = fit.to_original(np.array([[-0.5, -0.5], [fit.resized_width - 0.5, fit.resized_height - 0.5]]))
        assert np.allclose(corners, [[-0.5, -0.5], [width - 0.5, height - 0.5]], atol=1e-6)
        assert fit.original_hw == (height, width)


@settings(max_examples=100, deadline=None)
@given(side, side, st.integers(64, 2048), st.integers(64, 2048))
def test_letterbox_fills_one_side_and_keeps_the_aspect(height, width, canvas_height, canvas_width):
    fit = fit_letterbox((height, width), (canvas_height, canvas_width))
    assert fit.resized_height == canvas_height or fit.resized_width == canvas_width
    assert 1 <= fit.resized_height <= canvas_height
    assert 1 <= fit.resized_width <= canvas_width
    exact = max(height / canvas_height, width / canvas_width)
    for scale, resized in ((fit.scale_x, fit.resized_width), (fit.scale_y, fit.resized_height)):
        assert abs(scale * resized / exact - resized) <= 0.5 + 1e-6 or resized == 64  # narrow images are stretched


@settings(max_examples=100, deadline=None)
@given(side, side, st.integers(8, 60), st.integers(8, 60), st.sampled_from([8, 14, 16, 32]))
def test_letterbox_leaves_no_cell_half_padding(height, width, rows, columns, step):
    fit = fit_letterbox((height, width), (rows * step, columns * step), step)
    assert fit.resized_height % step == 0 and fit.resized_width % step == 0
    assert min(fit.resized_height, fit.resized_width) >= 64
    assert fit.resized_height == rows * step or fit.resized_width == columns * step


@settings(max_examples=100, deadline=None)
@given(side, side, st.integers(64, 2048), divisor)
def test_long_side_divides_and_has_no_padding(height, width, long_side, step):
    fit = fit_long_side((height, width), long_side, step)
    assert (fit.canvas_height, fit.canvas_width) == (fit.resized_height, fit.resized_width)
    smallest = max(64, 4 * step)
    for resized in (fit.resized_height, fit.resized_width):
        assert resized % step == 0
        assert smallest <= resized <= max(long_side, smallest) + step


def test_long_side_of_common_sizes():
    fit = fit_long_side((3000, 4000), 640, 8)
    assert (fit.resized_height, fit.resized_width) == (480, 640)
    assert (fit.scale_x, fit.scale_y) == (6.25, 6.25)
    fit = fit_long_side((1080, 1920), 832, 32)
    assert (fit.resized_height, fit.resized_width) == (480, 832)
    assert fit.scale_x != fit.scale_y  # rounding differs by side, and both are kept


def test_long_side_does_not_enlarge_beyond_the_limit():
    fit = fit_long_side((100, 200), 1024, 8)
    assert fit.resized_width == 200 * MAX_ENLARGEMENT
    assert fit.resized_height == 100 * MAX_ENLARGEMENT


def test_long_side_obeys_the_profile():
    fit = fit_long_side((1000, 1000), 1024, 32, maximum=(850, 850))
    assert (fit.resized_height, fit.resized_width) == (832, 832)
    # One factor for both sides: a wide profile does not squeeze a tall image.
    fit = fit_long_side((800, 400), 640, 8, (64, 64), (480, 1280))
    assert (fit.resized_height, fit.resized_width) == (480, 240)
    # Nor does a minimum above the image, as long as the maximum has room.
    fit = fit_long_side((640, 480), 640, 8, (480, 640), (1024, 1024))
    assert (fit.resized_height, fit.resized_width) == (856, 640)
    fit = fit_long_side((1000, 100), 640, 8, (480, 640), (1024, 1024))
    assert (fit.resized_height, fit.resized_width) == (1024, 640)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fit_long_side((1000, 1000), 640, 32, maximum=(100, 1000)),
        lambda: fit_long_side((0, 10), 640, 8),
        lambda: fit_long_side((10, 10), 0, 8),
        lambda: fit_long_side((10, 10), 640, 0),
        lambda: fit_letterbox((10, 10), (0, 5)),
        lambda: fit_letterbox((-1, 10), (5, 5)),
    ],
)
def test_impossible_sizes(call):
    with pytest.raises(MatchRTError) as caught:
        call()
    assert caught.value.code == "fit-size"
    assert caught.value.remedy


def spot(height, width, x, y, radius):
    """A bright square centred on (x, y)."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[y - radius : y + radius + 1, x - radius : x + radius + 1] = 255
    return pixels


def centroid(pixels):
    rows, columns = np.indices(pixels.shape)
    weights = pixels.astype(np.float64)
    return np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()


@pytest.mark.parametrize(
    ("image_hw", "canvas_hw"),
    [((600, 800), (240, 320)), ((300, 400), (480, 640)), ((601, 799), (333, 517)), ((100, 1500), (400, 400))],
)
def test_pixels_and_points_agree(image_hw, canvas_hw):
    """The centroid of a spot in the resized pixels is where `to_network` puts the spot's centre."""
    pixels = spot(*image_hw, x=image_hw[1] // 3, y=image_hw[0] // 2, radius=20)
    for fit in (fit_letterbox(image_hw, canvas_hw), fit_long_side(image_hw, max(canvas_hw), 32)):
        seen = centroid(apply_fit(pixels, fit)[:, :, 0])
        expected = fit.to_network(np.array([[image_hw[1] // 3, image_hw[0] // 2]], np.float64))[0]
        assert np.abs(seen - expected).max() < 0.05


def test_padding_is_zero_and_right_below():
    fit = fit_letterbox((100, 400), (200, 300))
    canvas = apply_fit(np.full((100, 400, 3), 200, np.uint8), fit)
    assert canvas.shape == (200, 300, 3)
    assert canvas.flags.c_contiguous
    assert (canvas[:75] == 200).all()
    assert not canvas[75:].any()


def test_grey_gets_one_channel():
    canvas = apply_fit(np.zeros((100, 400), np.uint8), fit_letterbox((100, 400), (200, 300)))
    assert canvas.shape == (200, 300, 1)


def test_a_fit_of_the_same_size_changes_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    assert np.array_equal(apply_fit(pixels, fit_letterbox((96, 128), (96, 128))), pixels)


def test_shrinking_one_side_while_the_other_grows_does_not_alias():
    """Columns alternate 0 and 255: averaged they are grey; sampled they would be stripes."""
    pixels = np.tile(np.array([0, 255], np.uint8), (16, 2000))
    fit = fit_long_side(pixels.shape, 640, 32)
    assert fit.scale_y < 1 < fit.scale_x
    canvas = apply_fit(pixels, fit)
    assert canvas.shape == (128, 640, 1)
    assert abs(canvas.astype(int) - 127).max() <= 40  # 6.25 columns a pixel: not an even number of each


def test_extreme_aspect():
    pixels = np.zeros((16, 200_000, 3), np.uint8)
    assert apply_fit(pixels, fit_letterbox(pixels.shape[:2], (480, 640))).shape == (480, 640, 3)
    assert apply_fit(pixels, fit_long_side(pixels.shape[:2], 640, 8)).shape == (64, 640, 3)


@pytest.mark.parametrize(
    "pixels", [np.zeros((100, 401), np.uint8), np.zeros((100, 400), np.float32), np.zeros((1, 100, 400, 3), np.uint8)]
)
def test_another_image_than_the_fit_was_made_for(pixels):
    with pytest.raises(MatchRTError) as caught:
        apply_fit(pixels, fit_letterbox((100, 400), (200, 300)))
    assert caught.value.code == "fit-mismatch"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("image", "side", "resized"),
    [((256, 320), 320, (256, 320)), ((250, 310), 288, (224, 288)), ((310, 250), 288, (288, 224)),
     ((1024, 768), 832, (832, 608)), ((768, 1024), 832, (608, 832)), ((100, 1600), 832, (32, 832)),
     ((640, 1280), 832, (416, 832))],
)  # fmt: skip
def test_pad_square_cuts_sides_down(image: tuple[int, int], side: int, resized: tuple[int, int]) -> None:
    contract = InputContract(1, 32, "pad-square", "lanczos", height=side, width=side)
    fit = fit_image(image, contract, side)
    assert (fit.resized_height, fit.resized_width) == resized
    assert (fit.canvas_height, fit.canvas_width) == (side, side) and fit.original_hw == image


def test_stretch_ignores_the_aspect_ratio() -> None:
    contract = InputContract(3, 14, "stretch", "bicubic", height=280, width=448)
    fit = fit_image((100, 50), contract, 448)
    pixels = apply_fit(np.zeros((100, 50, 3), np.uint8), fit, "bicubic")
    assert pixels.shape == (280, 448, 3) and fit.scale_x != fit.scale_y


@pytest.mark.parametrize("case", ["shift", "odd"])
@pytest.mark.parametrize("index", [0, 1])
def test_matchanything_input_is_the_official_one(shared: Path, case: str, index: int) -> None:
    vectors = np.load(shared / "reference" / "matchanything_eloftr.npz")
    expected, image = vectors[f"{case}/net_in{index}"], Image(vectors[f"{case}/rgb{index}"], "reference")
    side = expected.shape[0]
    contract = InputContract(1, 32, "pad-square", "lanczos", height=side, width=side)
    fit = fit_image((image.height, image.width), contract, side)
    # The official wrapper takes Pillow's grey, whose integers are OpenCV's but for a level in a few pixels.
    pillows = np.asarray(PILImage.fromarray(image.pixels).convert("L"))
    assert np.array_equal(apply_fit(pillows, fit, contract.kernel)[:, :, 0], expected)
    difference = np.abs(apply_fit(image.grey(), fit, contract.kernel)[:, :, 0].astype(int) - expected)
    assert difference.max() <= 1 and np.count_nonzero(difference) < fit.resized_height * fit.resized_width / 2000
    cells = -(-fit.resized_height // 8), -(-fit.resized_width // 8)
    mask = vectors[f"{case}/mask{index}_c"]
    assert mask[: cells[0], : cells[1]].all() and mask.sum() == cells[0] * cells[1]


def test_both_sides_are_resized_alike():
    """A picture lying on its side gives its result lying on its side, where one side shrinks and the other grows."""
    pixels = np.random.default_rng(3).integers(0, 256, (16, 4000), dtype=np.uint8)
    wide = apply_fit(pixels, fit_long_side(pixels.shape, 640, 32))[:, :, 0]
    tall = apply_fit(np.ascontiguousarray(pixels.T), fit_long_side(pixels.T.shape, 640, 32))[:, :, 0]
    assert wide.shape == (128, 640)
    assert np.abs(wide.astype(int) - tall.T.astype(int)).max() <= 1


def test_the_aliased_bicubic_kernel_is_bicubic():
    """Between two flat halves a bicubic kernel overshoots on both sides; a linear one never does."""
    pixels = np.repeat(np.array([[50, 200]], np.uint8), 64, axis=1).repeat(128, axis=0)
    enlarged = apply_fit(pixels, fit_letterbox((128, 128), (256, 256)), "bicubic-aliased")
    assert enlarged.min() < 50 and enlarged.max() > 200
