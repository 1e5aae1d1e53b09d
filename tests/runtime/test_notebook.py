"""What notebooks and interpreters show of results."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image as PILImage

from matchrt.runtime.dense import DenseMatches
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.notebook import SKETCH_HEIGHT, SKETCH_LINES, SKETCH_WIDTH

SVG = "{http://www.w3.org/2000/svg}"


def test_the_repr_is_one_short_line(matches: Any, no_matches: Any) -> None:
    assert repr(matches) == (
        "Matches(120 matches of 'db/left.jpg' (640x480) and 'query/right.jpg' (800x600), loftr-outdoor, fp16, tensorrt)"
    )
    verified = matches.verify("homography")
    assert f"{verified.geometry.num_inliers} inliers (homography)" in repr(verified)
    assert repr(no_matches).startswith("Matches(0 matches of ")
    assert repr(matches.top(1)).startswith("Matches(1 match of ")


def test_a_turn_and_advice_are_said(matches: Any) -> None:
    assert "turned" not in repr(matches)
    turned = replace(matches, provenance=replace(matches.provenance, turned1=90), advice=("Try <this>.",))
    assert repr(turned).endswith("tensorrt, the second turned by 90 degrees clockwise)")
    assert "Try &lt;this&gt;." in turned._repr_html_()


def test_the_sketch_has_a_line_for_each_match_between_both_frames(matches: Any) -> None:
    page = ElementTree.fromstring(matches._repr_html_())
    frames, lines = page.findall(f".//{SVG}rect"), page.findall(f".//{SVG}line")
    assert len(lines) == SKETCH_LINES < len(matches)
    scale = SKETCH_HEIGHT / 600
    assert [float(frame.get("width", 0)) for frame in frames] == pytest.approx([640 * scale, 800 * scale], abs=0.1)
    best = lines[-1]  # on top
    expected = (matches.keypoints0[0] + 0.5) * scale
    assert [float(best.get(name, 0)) for name in ("x1", "y1")] == pytest.approx(expected.tolist(), abs=0.06)
    shifted = (matches.keypoints1[0] + 0.5) * scale + [640 * scale + 6, 0]
    assert [float(best.get(name, 0)) for name in ("x2", "y2")] == pytest.approx(shifted.tolist(), abs=0.06)


def test_names_of_strangers_are_text(matches: Any) -> None:
    hostile = replace(matches, image0=ImageRef("<script>alert(1)</script>&.jpg", 480, 640), warnings=("<b>low",))
    text = hostile._repr_html_()
    assert "<script" not in text and "<b>" not in text and "&lt;b&gt;low" in text
    ElementTree.fromstring(text)


def test_no_matches_are_shown_too(no_matches: Any) -> None:
    page = ElementTree.fromstring(no_matches._repr_html_())
    assert page.findall(f".//{SVG}line") == [] and len(page.findall(f".//{SVG}rect")) == 2


def test_the_size_of_what_is_shown_is_bounded(matches: Any) -> None:
    many = np.repeat(matches.keypoints0, 100, 0), np.repeat(matches.keypoints1, 100, 0)
    large = replace(matches, keypoints0=many[0], keypoints1=many[1], scores=np.repeat(matches.scores, 100))
    assert len(large) == 12000 and len(large._repr_html_()) < 20_000


def test_long_names_and_wide_images_are_shown_small(matches: Any) -> None:
    folder = "/long" * 1000
    wide = replace(matches, image0=ImageRef(f"{folder}/left.jpg", 480, 20_000))
    assert len(repr(wide)) < 300 and "/left.jpg' (20000x480)" in repr(wide)
    page = ElementTree.fromstring(wide._repr_html_())
    sketch, frames = page.find(f".//{SVG}svg"), page.findall(f".//{SVG}rect")
    assert sketch is not None and float(sketch.get("width", 0)) <= SKETCH_WIDTH
    box = [float(value) for value in sketch.get("viewBox", "").split()]
    sizes = [(float(frame.get("width", 0)), float(frame.get("height", 0))) for frame in frames]
    assert sizes[0][0] + sizes[1][0] + 6 == pytest.approx(box[2], abs=0.2) and sizes[1][1] == pytest.approx(
        box[3], abs=0.1
    )
    assert sizes[0][0] / sizes[0][1] == pytest.approx(20_000 / 480, rel=0.01)


def test_show_is_the_drawn_picture(matches: Any, photos: Any, tmp_path: Path) -> None:
    picture = matches.show(*photos, max_lines=50, max_height=200)
    drawn = matches.draw(*photos, max_lines=50, max_height=200)
    assert np.array_equal(np.asarray(PILImage.open(io.BytesIO(picture._repr_png_()))), drawn)
    assert re.fullmatch(r"Picture\(\d+x\d+\)", repr(picture))
    picture.save(tmp_path / "picture.png")
    assert np.array_equal(np.asarray(PILImage.open(tmp_path / "picture.png")), drawn)


def test_dense_matches_show_their_certainty() -> None:
    certainty = np.zeros((560, 1120), np.float32)
    certainty[:, :560] = 1.0
    images = ImageRef("a.jpg", 100, 100), ImageRef("b.jpg", 100, 100)
    dense = DenseMatches(np.zeros((560, 1120, 4), np.float32), certainty, *images)
    assert repr(dense) == "DenseMatches(560x1120 of 'a.jpg' and 'b.jpg', 50% above 0.05)"
    shown = np.asarray(PILImage.open(io.BytesIO(dense._repr_png_())))
    assert shown.shape == (240, 480, 3)
    assert shown[120, 100, 0] > 200 > shown[120, 400, 0]
