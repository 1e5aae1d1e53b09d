"""Quarter turns: an image that is turned before it is matched, and the way of its points back.

A turn is in degrees clockwise: 0, 90, 180 or 270. Quarter turns move pixels and interpolate nothing, so points come
back exactly. Points are x, y; the centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from matchrt.manifest import EngineManifest
from matchrt.runtime.fit import Fit, apply_fit, fit_letterbox
from matchrt.runtime.image import Image
from matchrt.runtime.match_data import QUARTERS, ImageRef, MatchesT, Quarter
from matchrt.runtime.orientation import UPRIGHT, stored_points, turn_pixels, turn_size

# The EXIF orientation that turns stored pixels by so many degrees.
_ORIENTATIONS: dict[Quarter, int] = dict(zip(QUARTERS, (UPRIGHT, 6, 3, 8), strict=True))


def turn_image(image: Image, degrees: Quarter) -> Image:
    """The image, turned clockwise: its pixels, uint8 `[H, W]` or `[H, W, 3]`, and the values they were made of.

    Raises nothing.
    """
    orientation = _ORIENTATIONS[degrees]
    values = image.values and replace(image.values, pixels=turn_pixels(image.values.pixels, orientation))
    return replace(image, pixels=turn_pixels(image.pixels, orientation), values=values)


def unturned_points(
    points: npt.NDArray[np.float32], degrees: Quarter, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Points of a turned image in pixels of the image before the turn, float32 [N, 2]. Raises nothing.

    points: float32 [N, 2] in pixels of the turned image. height, width: of the image before the turn, pixels.
    """
    orientation = _ORIENTATIONS[degrees]
    return stored_points(points, orientation, *turn_size(height, width, orientation))


@dataclass(frozen=True, eq=False)
class TurnedImage:
    """An image 1 that is turned for the network.

    image: what the network gets.
    degrees: by how many it was turned, clockwise.
    ref: name and size of the image before the turn.
    fit: how the turned image was placed on a frame; None if it is the whole image.
    """

    image: Image
    degrees: Quarter
    ref: ImageRef
    fit: Fit | None = None

    @classmethod
    def of(cls, image: Image, degrees: Quarter, manifest: EngineManifest) -> TurnedImage:
        """Turns image 1 for the engine of `manifest`.

        An engine for frames takes images of certain sizes. If the turned one has none of them, it is scaled into a
        frame, with black around it. Raises nothing.
        """
        turned = turn_image(image, degrees)
        ref = ImageRef(image.name, image.height, image.width, image.orientation)
        frames, size = manifest.input.frames, (turned.height, turned.width)
        if frames is None or frames.takes(size, 1):
            return cls(turned, degrees, ref)
        fit = fit_letterbox(size, frames.nearest(size, 1))
        placed = apply_fit(turned.pixels, fit)
        pixels = placed[:, :, 0] if turned.pixels.ndim == 2 else placed
        return cls(replace(turned, pixels=pixels, values=None), degrees, ref, fit)

    def back(self, matches: MatchesT) -> MatchesT:
        """Matches of the turned image 1 as matches of the image before the turn, which their provenance says.

        Matches that end on the frame around the image are left out. Raises nothing.
        """
        kept: MatchesT = matches
        points = matches.keypoints1
        if self.fit is not None:
            height, width = self.fit.original_hw
            points = self.fit.to_original(points)
            inside = ImageRef("", height, width).holds(points)
            points, kept = points[inside], _only(matches, inside)
        return replace(
            kept,
            keypoints1=unturned_points(points, self.degrees, self.ref.height, self.ref.width),
            image1=self.ref,
            provenance=replace(matches.provenance, turned1=self.degrees),
        )


def _only(matches: MatchesT, kept: npt.NDArray[np.bool_]) -> MatchesT:
    return replace(
        matches,
        keypoints0=matches.keypoints0[kept],
        keypoints1=matches.keypoints1[kept],
        scores=matches.scores[kept],
    )
