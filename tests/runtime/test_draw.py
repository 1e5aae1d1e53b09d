"""Pictures: sizes, that lines are where the matches are, and files."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PILImage

from matchrt.errors import MatchRTError
from matchrt.runtime.draw import draw_matches, save_picture, score_colors
from matchrt.runtime.geometry import Geometry
from matchrt.runtime.match_data import ImageRef


def black(matches):
    return [np.zeros((ref.height, ref.width, 3), np.uint8) for ref in (matches.image0, matches.image1)]


def single(matches, point0, point1, score=1.0):
    return replace(matches.top(1), keypoints0=[point0], keypoints1=[point1], scores=[score])


def test_size_and_type(matches, photos):
    picture = draw_matches(*photos, matches)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert picture.shape[0] > 600
    assert picture.shape[1] > 640 + 800
    assert np.array_equal(draw_matches(*photos, matches.top(0))[:480, :640], photos[0])


def test_the_ends_of_a_line_are_on_the_keypoints(matches):
    picture = draw_matches(*black(matches), single(matches, (100, 50), (700, 500)))
    right = picture.shape[1] - 800
    yellow = score_colors(np.array([1.0], np.float32))[0]
    assert np.abs(picture[50, 100].astype(int) - yellow).max() < 8
    assert np.abs(picture[500, right + 700].astype(int) - yellow).max() < 8
    assert not picture[300:480, :300].any()  # and nothing where no match is


def test_large_images_are_scaled_down_and_lines_follow(matches):
    large = replace(single(matches, (3000, 1500), (10, 10)), image0=ImageRef("large.jpg", 3000, 4000))
    images = np.zeros((3000, 4000), np.uint8), np.zeros((600, 800), np.uint8)
    picture = draw_matches(*images, large, max_height=300)
    assert picture.shape[0] < 400
    assert picture.shape[1] < 400 + 400 + 20
    assert picture[150, 300].max() > 200


def test_panoramas_are_scaled_by_their_width(matches):
    wide = replace(single(matches, (10, 10), (10, 10)), image0=ImageRef("wide.jpg", 100, 9000))
    assert draw_matches(np.zeros((100, 9000, 3), np.uint8), black(matches)[1], wide).shape[1] < 3000


def test_the_images_are_not_drawn_on(matches, photos):
    before = [photo.copy() for photo in photos]
    draw_matches(*photos, matches)
    assert all(np.array_equal(photo, old) for photo, old in zip(photos, before, strict=True))


def test_outliers_are_red_and_below(matches):
    verified = matches.verify("homography")
    with_outliers = draw_matches(*black(matches), verified)[:480, :640].astype(int)
    without = draw_matches(*black(matches), matches)[:480, :640].astype(int)

    def reddish(picture):
        return np.count_nonzero((picture[..., 0] > 150) & (picture[..., 1] < 70) & (picture[..., 2] < 70))

    assert reddish(with_outliers) > 500
    assert reddish(without) == 0


def test_the_caption_changes_with_what_it_says(matches):
    plain = draw_matches(*black(matches), matches)[-50:]
    verified = draw_matches(*black(matches), matches.verify("homography"))[-50:]
    assert plain[:, :200].max() > 200  # there is text
    assert not np.array_equal(plain, verified)
    turned = replace(matches, provenance=replace(matches.provenance, turned1=270))
    assert not np.array_equal(plain, draw_matches(*black(matches), turned)[-50:])


def reddish_of_the_legend(picture):
    row = picture[-26:].astype(int)  # the second row of the bar
    return np.count_nonzero((row[..., 0] > 150) & (row[..., 1] < 90) & (row[..., 2] < 90))


def test_the_legend_explains_red_where_there_is_red(matches):
    verified = matches.verify("homography")
    assert not verified.inliers.all()
    assert reddish_of_the_legend(draw_matches(*black(verified), verified)) > 15
    assert reddish_of_the_legend(draw_matches(*black(matches), matches)) == 0
    scale = score_colors(np.linspace(0, 1, 80, dtype=np.float32))
    row = draw_matches(*black(matches), matches)[-26:].reshape(-1, 3)
    assert all((np.abs(row.astype(int) - color.astype(int)).max(axis=1) < 4).any() for color in scale[::10])


def test_letters_grow_with_the_picture(matches):
    """The bar and its letters take the same share of a picture of 8000 pixels as of one of 2000."""
    heights, shares = [], []
    for side in (1000, 4000):
        references = ImageRef("a", side // 2, side), ImageRef("b", side // 2, side)
        found = replace(matches, image0=references[0], image1=references[1]).top(0)
        photo = np.full((side // 2, side, 3), 255, np.uint8)
        bar = draw_matches(photo, photo, found, max_height=side // 2)[side // 2 :]
        heights.append(len(bar) / side)
        shares.append(np.count_nonzero(bar.max(axis=2) > 140) / side**2)
    assert heights[0] == pytest.approx(heights[1], rel=0.02)
    assert shares[0] == pytest.approx(shares[1], rel=0.2)


@pytest.mark.parametrize("most", [0, 1, 10])
def test_fewer_lines_can_be_drawn(matches, most):
    full = draw_matches(*black(matches), matches)[:480]
    some = draw_matches(*black(matches), matches, max_lines=most)[:480]
    assert np.count_nonzero(some) < np.count_nonzero(full)


def test_scores_get_brighter():
    colors = score_colors(np.linspace(0, 1, 11, dtype=np.float32)).astype(int)
    assert (np.diff(colors @ (299, 587, 114)) > 0).all()


def test_tiny_images_have_room_for_the_caption(matches):
    tiny = replace(single(matches, (3, 3), (4, 4)), image0=ImageRef("a", 16, 16), image1=ImageRef("b", 16, 16))
    picture = draw_matches(np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8), tiny)
    assert picture.shape[1] >= 400


def test_another_image_is_refused(matches, photos):
    for wrong in (photos[1], photos[0][:, :, :2], photos[0].astype(np.float32)):
        with pytest.raises(MatchRTError) as caught:
            draw_matches(wrong, photos[1], matches)
        assert caught.value.code == "draw-mismatch"
        assert caught.value.remedy


@pytest.mark.parametrize("options", [{"max_lines": -1}, {"max_height": 2}])
def test_options_out_of_range(matches, photos, options):
    with pytest.raises(MatchRTError) as caught:
        draw_matches(*photos, matches, **options)
    assert caught.value.code == "draw-option"


def test_png_is_exact_and_jpeg_close(tmp_path, matches, photos):
    picture = draw_matches(*photos, matches)
    save_picture(tmp_path / "new" / "a.png", picture)
    save_picture(tmp_path / "a.jpg", np.full((50, 60, 3), (200, 100, 50), np.uint8))
    assert np.array_equal(np.asarray(PILImage.open(tmp_path / "new" / "a.png")), picture)
    assert np.abs(np.asarray(PILImage.open(tmp_path / "a.jpg")).astype(int) - (200, 100, 50)).max() < 6


def test_unknown_suffix(tmp_path):
    for name in ("a.tga", "a", "a.png.exe"):
        with pytest.raises(MatchRTError) as caught:
            save_picture(tmp_path / name, np.zeros((20, 20, 3), np.uint8))
        assert caught.value.code == "output-format"
        assert ".png" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_outlines_are_where_the_homography_puts_the_edges(matches):
    ref = ImageRef("x", 200, 300)
    # Image 1 shows image 0 at half the size, 50 px from the left and 40 px from the top.
    matrix = np.array([[0.5, 0, 50], [0, 0.5, 40], [0, 0, 1.0]])
    found = Geometry("homography", matrix, np.zeros(0, bool), 3.0, "magsac")
    pair = replace(matches.top(0), image0=ref, image1=ref, geometry=found)
    picture = draw_matches(*black(pair), pair, outline=True).astype(int)
    right = picture[:200, 306:606]
    assert right[140, 50:200].any(axis=1).all() and right[40, 50:200].any(axis=1).all()
    assert not right[45:135, 55:195].any() and not right[150:].any()
    assert not picture[:200, :300].any()  # image 1 is larger than all that image 0 shows
    plain = draw_matches(*black(pair), pair)[:200, 306:606]
    assert not plain.any()
    behind = replace(pair, geometry=replace(found, matrix=np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]])))
    assert not draw_matches(*black(behind), behind, outline=True)[:200, 306:606].any()
