"""What notebooks show of results: a picture of matches, a sketch of their points, a map of certainties.

Matches hold no images, so that keeping thousands of them costs little. What is shown of them alone is a sketch in SVG,
of bounded size; `Matches.show` draws on the images, which the caller still has.

Coordinates: pixels of the original images, x right, y down, the centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

import html
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from matchrt._util.text import counted
from matchrt.runtime.draw import save_picture, score_colors, spread
from matchrt.runtime.match_data import ImageRef, MatchData

UInt8Array = npt.NDArray[np.uint8]
# Of a sketch: its largest number of lines, the height of the taller image in it, and the largest width, pixels.
# Notebooks would shrink wider ones, panoramas for instance, until no line is seen.
SKETCH_LINES, SKETCH_HEIGHT, SKETCH_WIDTH = 100, 240, 960
_GAP = 6
# Characters of an image's name in a line.
_NAME = 80
_CERTAINTY_SIDE = 480


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """A picture that notebooks show: uint8 RGB `[H, W, 3]`.

    pixels: the picture.
    """

    pixels: UInt8Array

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"Picture({width}x{height})"

    def _repr_png_(self) -> bytes:
        return png(self.pixels)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes .png, .jpg or .webp, atomically. Errors: output-format, output-unwritable."""
        save_picture(path, self.pixels)


def png(pixels: UInt8Array) -> bytes:
    """The bytes of a PNG file of uint8 RGB `[H, W, 3]`. Raises nothing."""
    stream = io.BytesIO()
    PILImage.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def matches_line(matches: MatchData) -> str:
    """The matches in a line of text: how many, of what, by what. Raises nothing."""
    parts = [f"{counted(len(matches), 'match', 'matches')} of {_image(matches.image0)} and {_image(matches.image1)}"]
    geometry = matches.geometry
    if geometry is not None:
        found = counted(geometry.num_inliers, "inlier") if geometry.found else "no geometry found"
        parts.append(f"{found} ({geometry.kind})")
    if matches.judgement is not None:
        parts.append(f"verdict: {matches.judgement}")
    origin = matches.provenance
    parts.append(f"{origin.model}, {origin.precision}, {origin.backend}")
    if origin.turned1:
        parts.append(f"the second turned by {origin.turned1} degrees clockwise")
    return ", ".join(parts)


def _image(image: ImageRef) -> str:
    # The end of a long path says more than its beginning.
    name = image.name if len(image.name) <= _NAME else f"…{image.name[-_NAME:]}"
    return f"{name!r} ({image.width}x{image.height})"


def matches_html(matches: MatchData) -> str:
    """HTML for a notebook: the line of `matches_line`, warnings, advice, and the sketch. Raises nothing."""
    said = [matches_line(matches), *matches.warnings, *matches.advice]
    lines = "".join(f"<div>{html.escape(line)}</div>" for line in said)
    return f"<div>{lines}{_sketch(matches)}</div>"


def _sketch(matches: MatchData) -> str:
    """Both images as rectangles of equal scale, side by side, with lines between the points, in colours of scores."""
    images = matches.image0, matches.image1
    widths, heights = zip(*((image.width, image.height) for image in images), strict=True)
    scale = min(SKETCH_HEIGHT / max(heights), (SKETCH_WIDTH - _GAP) / sum(widths))
    height = max(heights) * scale
    left = images[0].width * scale + _GAP
    chosen = spread(len(matches), SKETCH_LINES)
    starts = (matches.keypoints0[chosen] + 0.5) * scale
    ends = (matches.keypoints1[chosen] + 0.5) * scale + np.array([left, 0.0])
    colours = score_colors(matches.scores[chosen])
    width = left + images[1].width * scale
    frames = (
        f'<rect x="{x:.1f}" y="0" width="{image.width * scale:.1f}" height="{image.height * scale:.1f}"/>'
        for x, image in zip((0.0, left), images, strict=True)
    )
    size = f'viewBox="0 0 {width:.1f} {height:.1f}" width="{width:.0f}" style="max-width:100%;height:auto"'
    # The best last, on top.
    lines = reversed(list(map(_line, starts, ends, colours)))
    label = f'role="img" aria-label="{len(chosen)} of {len(matches)} matches"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>'
        f'<g fill="#18181b">{"".join(frames)}</g><g stroke-opacity="0.7">{"".join(lines)}</g></svg>'
    )


def _line(start: Iterable[Any], end: Iterable[Any], colour: Iterable[Any]) -> str:
    (x0, y0), (x1, y1) = start, end
    red, green, blue = (int(value) for value in colour)
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="#{red:02x}{green:02x}{blue:02x}"/>'


def certainty_picture(certainty: npt.NDArray[Any]) -> UInt8Array:
    """A map of certainties `[H, W]` in 0..1 as uint8 RGB, at most 480 pixels a side. Raises nothing."""
    height, width = certainty.shape
    factor = min(1.0, _CERTAINTY_SIDE / max(height, width))
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    shown = cv2.resize(np.clip(certainty, 0, 1).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return score_colors(shown.reshape(-1)).reshape(size[1], size[0], 3)
