"""Pictures of matches, for people.

The picture shows both images side by side and one line for each match, coloured by its score. With a geometry, outliers
are thin red lines below the inliers. A bar at the foot says the verdict on the pair, what was found and what colours
mean; its letters, like lines and points, grow with the picture. Large images are scaled down for the picture; the
matches are not changed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from matchrt._util.atomic import atomic_path
from matchrt._util.text import counted
from matchrt.errors import MatchRTError
from matchrt.runtime.decoding.values import UInt8Array
from matchrt.runtime.fit import Fit, apply_fit
from matchrt.runtime.image import MAX_PIXELS, as_image
from matchrt.runtime.match_data import ImageRef, MatchData
from matchrt.runtime.verdict import shown

Color = tuple[int, int, int]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_BACKGROUND: Color = (24, 24, 27)
_TEXT: Color = (228, 228, 231)
_MUTED: Color = (161, 161, 170)
_OUTLIER: Color = (239, 68, 68)
_OUTLINE: Color = (244, 114, 182)
_VERDICTS: dict[str, Color] = {"match": (74, 222, 128), "doubtful": (250, 204, 21), "no match": _OUTLIER}
_GAP = 6
_FOOTER = 52  # two rows of text
_FONT_SIZE = 15
_PLAIN_WIDTH = 1000  # of a picture in which letters, lines and points have their plain sizes; in wider ones they grow
_MIN_PICTURE_WIDTH = 480
_MAX_ASPECT = 2.5  # widths above this many heights are scaled down as well: panoramas
_LINE_OPACITY = 0.75  # the photographs stay visible under hundreds of lines
_SHIFT = 4  # cv2 draws at 1/16 px
_FARTHEST = 1e5  # pixels of the picture; corners of an outline beyond are drawn by nobody
# The dark end of viridis cannot be seen on dark images, so scores start a third of the way in.
_COLORMAP_START = 85


@dataclass(frozen=True)
class _Panel:
    """One image in the picture: its pixels, how they were scaled, and where their left edge is."""

    pixels: UInt8Array
    fit: Fit
    left: int


def draw_matches(
    image0: Any,
    image1: Any,
    matches: MatchData,
    *,
    max_lines: int = 200,
    max_height: int = 720,
    outline: bool = False,
) -> UInt8Array:
    """Draws two images side by side, top-aligned, with matches across: uint8 RGB [h, w, 3].

    image0, image1: the originals that were matched: paths, arrays `[H, W]` or `[H, W, 1|3|4]` with colours in the order
        RGB, or `Image`, as `Matcher.match` takes them.
    max_lines: the largest number of lines. If there are more matches, this many are drawn, spread evenly over the
        ranks, so that weak ones are shown too.
    max_height: pixels; each image is scaled down to this height, never up.
    outline: with a homography, draw in each image where it puts the edges of the other one.
    Errors: draw-mismatch if an image is none, or not of the size that was matched; draw-option if an option is out of
    range; for paths those of `read_image`.
    """
    if max_lines < 0 or max_height < 16:
        raise MatchRTError(
            "draw-option",
            f"max_lines {max_lines} or max_height {max_height} is out of range.",
            "Use max_lines >= 0 and max_height >= 16.",
        )
    panel0 = _panel(_original(image0, matches.image0, matches), matches.image0, max_height, 0)
    second = _original(image1, matches.image1, matches)
    panel1 = _panel(second, matches.image1, max_height, panel0.pixels.shape[1] + _GAP)
    canvas = _canvas(panel0, panel1)
    _draw_lines(canvas, panel0, panel1, matches, spread(len(matches), max_lines))
    if outline:
        _draw_outlines(canvas, panel0, panel1, matches)
    return _caption(canvas, matches, min(max_lines, len(matches)))


def save_picture(path: str | os.PathLike[str], rgb: UInt8Array) -> None:
    """Writes uint8 RGB [H, W, 3] as .png, .jpg or .webp, atomically.

    Errors: output-format for another suffix, output-unwritable.
    """
    target = Path(path)
    if target.suffix.lower() not in PICTURE_SUFFIXES:
        raise MatchRTError(
            "output-format",
            f"'{target}' has no known suffix for pictures.",
            f"Use one of {', '.join(PICTURE_SUFFIXES)}.",
        )
    with atomic_path(target) as temporary:
        PILImage.fromarray(rgb).save(temporary, quality=92)  # PNG ignores the quality


# ------------------------------------------------------------------------------------------------------------ layout


def _original(image: Any, reference: ImageRef, matches: MatchData) -> UInt8Array:
    """The pixels to draw on. Errors: draw-mismatch, those of `read_image`."""
    most = max(MAX_PIXELS, reference.height * reference.width)
    try:
        read = as_image(image, name=reference.name, max_pixels=most, apply_exif=matches.provenance.apply_exif)
    except MatchRTError as error:
        if error.code != "image-array":
            raise
        raise MatchRTError("draw-mismatch", error.message, error.remedy) from error
    if (read.height, read.width) != (reference.height, reference.width):
        raise MatchRTError(
            "draw-mismatch",
            f"The image has {read.height} x {read.width} pixels; '{reference.name}' was matched at "
            f"{reference.height} x {reference.width}.",
            "Pass the image that was matched, in its original size.",
        )
    return read.pixels


def _panel(pixels: UInt8Array, reference: ImageRef, max_height: int, left: int) -> _Panel:
    height, width = reference.height, reference.width
    factor = min(1.0, max_height / height, max_height * _MAX_ASPECT / width)
    shown_height, shown_width = max(round(height * factor), 1), max(round(width * factor), 1)
    fit = Fit(width / shown_width, height / shown_height, shown_height, shown_width, shown_height, shown_width)
    shown = apply_fit(pixels, fit)
    return _Panel(np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown, fit, left)


def _canvas(panel0: _Panel, panel1: _Panel) -> UInt8Array:
    width = max(panel1.left + panel1.pixels.shape[1], _MIN_PICTURE_WIDTH)
    height = max(panel0.pixels.shape[0], panel1.pixels.shape[0]) + _footer(width)
    canvas = np.full((height, width, 3), _BACKGROUND, np.uint8)
    for panel in (panel0, panel1):
        rows, columns = panel.pixels.shape[:2]
        canvas[:rows, panel.left : panel.left + columns] = panel.pixels
    return canvas


def _footer(width: int) -> int:
    """Height in pixels of the bar at the foot of a picture."""
    return round(_FOOTER * _scale(width))


# ------------------------------------------------------------------------------------------------------------- lines


def spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """Which of `count` matches to draw: int64 indices of all, or of `most`, spread evenly over the ranks.

    Raises nothing.
    """
    if count <= most:
        return np.arange(count)
    ranks: npt.NDArray[np.int64] = np.linspace(0, count - 1, most).round().astype(np.int64)
    return ranks


def _draw_lines(
    canvas: UInt8Array, panel0: _Panel, panel1: _Panel, matches: MatchData, chosen: npt.NDArray[np.int64]
) -> None:
    starts = _positions(panel0, matches.keypoints0[chosen])
    ends = _positions(panel1, matches.keypoints1[chosen])
    colors = score_colors(matches.scores[chosen])
    inliers = np.ones(len(chosen), bool) if matches.geometry is None else matches.inliers[chosen]
    order = np.concatenate([np.flatnonzero(~inliers), np.flatnonzero(inliers)[::-1]])  # the best last, on top
    strokes = {int(i): (starts[i], ends[i], _rgb(colors[i]) if inliers[i] else _OUTLIER) for i in order}
    photos, scale = canvas.copy(), _scale(canvas.shape[1])
    outer, inner = round(3 * scale * (1 << _SHIFT)), round(2 * scale * (1 << _SHIFT))
    for start, end, color in strokes.values():
        cv2.line(canvas, start, end, color, max(round(scale), 1), cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(canvas, _LINE_OPACITY, photos, 1 - _LINE_OPACITY, 0, dst=canvas)
    for i, (start, end, color) in strokes.items():
        for centre in (start, end) if inliers[i] else ():
            cv2.circle(canvas, centre, outer, _BACKGROUND, -1, cv2.LINE_AA, _SHIFT)
            cv2.circle(canvas, centre, inner, color, -1, cv2.LINE_AA, _SHIFT)


def _draw_outlines(canvas: UInt8Array, panel0: _Panel, panel1: _Panel, matches: MatchData) -> None:
    """The edges of each image in the panel of the other one."""
    found = matches.geometry
    if found is None or found.kind != "homography" or found.matrix is None or np.linalg.det(found.matrix) == 0:
        return
    _draw_outline(canvas, panel1, matches.image0, found.matrix)
    _draw_outline(canvas, panel0, matches.image1, np.asarray(np.linalg.inv(found.matrix), np.float64))


def _draw_outline(canvas: UInt8Array, panel: _Panel, other: ImageRef, matrix: npt.NDArray[np.float64]) -> None:
    """The edges of an image that a homography puts into a panel; none if a corner lies behind the camera."""
    right, bottom = other.width - 0.5, other.height - 0.5
    corners = np.array([(-0.5, -0.5, 1), (right, -0.5, 1), (right, bottom, 1), (-0.5, bottom, 1)]) @ matrix.T
    depths = corners[:, 2:] * np.sign(corners[0, 2])  # a matrix has no sign of its own
    if not (depths > 0).all():
        return
    points = panel.fit.to_network(corners[:, :2] / corners[:, 2:])
    if np.abs(points).max() > _FARTHEST:
        return
    rows, columns = panel.pixels.shape[:2]
    # cv2 clips lines at the edges of the array: the other panel and the bar stay as they are.
    shown = canvas[:rows, panel.left : panel.left + columns].copy()
    drawn = np.rint(points * (1 << _SHIFT)).astype(np.int32)
    width = max(round(2 * _scale(canvas.shape[1])), 1)
    cv2.polylines(shown, [drawn], True, _OUTLINE, width, cv2.LINE_AA, _SHIFT)
    canvas[:rows, panel.left : panel.left + columns] = shown


def _rgb(color: UInt8Array) -> Color:
    return int(color[0]), int(color[1]), int(color[2])


def _positions(panel: _Panel, keypoints: npt.NDArray[np.float32]) -> list[tuple[int, int]]:
    """Keypoints [N, 2] of an original in 1/16 px of the canvas, as cv2 takes them."""
    points = panel.fit.to_network(keypoints.astype(np.float64))
    points[:, 0] += panel.left
    return [(int(x), int(y)) for x, y in np.rint(points * (1 << _SHIFT))]


def score_colors(scores: npt.NDArray[np.float32]) -> UInt8Array:
    """Scores [N] in 0..1 to uint8 RGB [N, 3]: viridis from teal (0) to yellow (1). Raises nothing."""
    ramp = np.arange(_COLORMAP_START, 256, dtype=np.uint8)
    table = cv2.applyColorMap(ramp[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return np.asarray(table[np.rint(np.asarray(scores) * (len(ramp) - 1)).astype(np.int64)], np.uint8)


# ----------------------------------------------------------------------------------------------------------- caption


@dataclass(frozen=True)
class _Bar:
    """The bar at the picture's foot: where to draw, and in which size.

    scale: how much larger than in a picture 1000 pixels wide; so letters keep their share of the picture.
    """

    picture: PILImage.Image
    pen: ImageDraw.ImageDraw
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    scale: float

    def write(self, x: float, y: float, text: str, color: Color) -> float:
        """Writes with the middle of the line at y; gives the text's right end."""
        self.pen.text((x, y), text, color, self.font, anchor="lm")
        return x + self.pen.textlength(text, self.font)


def _scale(width: int) -> float:
    return max(1.0, width / _PLAIN_WIDTH)


def _caption(canvas: UInt8Array, matches: MatchData, drawn: int) -> UInt8Array:
    """The canvas with the bar at its foot: what was found in the first row, what the colours mean in the second."""
    picture, scale = PILImage.fromarray(canvas), _scale(canvas.shape[1])
    bar = _Bar(picture, ImageDraw.Draw(picture), ImageFont.load_default(_FONT_SIZE * scale), scale)
    row = _footer(canvas.shape[1]) / 2
    _write_parts(bar, picture.height - 1.45 * row, _caption_parts(matches, drawn))
    _draw_legend(bar, picture.height - 0.55 * row, matches, drawn)
    return np.array(picture)


def _write_parts(bar: _Bar, y: float, parts: list[tuple[str, Color]]) -> None:
    x, gap = 10.0 * bar.scale, "  ·  "
    for number, (part, color) in enumerate(parts):
        between = gap if number else ""
        if x + bar.pen.textlength(between + part, bar.font) > bar.picture.width - 10:
            break  # narrow pictures keep the first parts
        x = bar.write(bar.write(x, y, between, _MUTED), y, part, color)


def _caption_parts(matches: MatchData, drawn: int) -> list[tuple[str, Color]]:
    first, judged = [(matches.provenance.model, _TEXT)], matches.judgement
    if judged is not None:
        first.append((f"{judged.verdict} ({shown(judged.probability)})", _VERDICTS[judged.verdict]))
    return first + [(part, _MUTED) for part in _facts(matches, drawn)]


def _facts(matches: MatchData, drawn: int) -> list[str]:
    parts = [counted(len(matches), "match", "matches")]
    geometry = matches.geometry
    if geometry is not None:
        parts.append(
            f"{counted(geometry.num_inliers, 'inlier')} ({geometry.kind})" if geometry.found else f"no {geometry.kind}"
        )
    if turned := matches.provenance.turned1:
        parts.append(f"second turned by {turned} degrees")
    if drawn < len(matches):
        parts.append(f"{drawn} drawn")
    if len(matches):
        parts.append(f"scores {matches.scores[-1]:.2f} to {matches.scores[0]:.2f}")
    total = matches.timings.get("total", sum(matches.timings.values()))
    if total > 0:
        parts.append(f"{total:.1f} ms" if total < 1000 else f"{total / 1000:.1f} s")
    return parts


def _draw_legend(bar: _Bar, y: float, matches: MatchData, drawn: int) -> None:
    """`one line a match, by score 0 [colours] 1`, and what red means where outliers are drawn."""
    gap, width, height = 6 * bar.scale, round(80 * bar.scale), max(round(8 * bar.scale), 1)
    geometry = matches.geometry
    inlier = "inlier" if geometry is not None and geometry.found else "match"
    x = bar.write(10.0 * bar.scale, y, f"one line: one {inlier}, coloured by score  0", _MUTED) + gap
    colors = score_colors(np.linspace(0, 1, width, dtype=np.float32))
    bar.picture.paste(PILImage.fromarray(np.repeat(colors[None], height, axis=0)), (round(x), round(y - height / 2)))
    x = bar.write(x + width + gap, y, "1", _MUTED) + 3 * gap
    if geometry is not None and drawn and not matches.inliers.all():
        text = "outlier" if geometry.found else "no geometry: all are outliers"
        if x + 30 * bar.scale + bar.pen.textlength(text, bar.font) > bar.picture.width:
            return
        bar.pen.line((x, y, x + 20 * bar.scale, y), _OUTLIER, max(round(2 * bar.scale), 1))
        bar.write(x + 20 * bar.scale + gap, y, text, _MUTED)
