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
class ChangedImage:
    """An image that is turned or placed on a canvas for the network.

    image: what the network gets.
    ref: name and size of the image as it was given.
    degrees: by how many it was turned, clockwise.
    fit: how the turned image was placed on its canvas; None if it is the whole image.
    """

    image: Image
    ref: ImageRef
    degrees: Quarter = 0
    fit: Fit | None = None

    @classmethod
    def given(cls, image: Image) -> ChangedImage:
        """The image as it was given. Raises nothing."""
        return cls(image, ImageRef(image.name, image.height, image.width, image.orientation))

    def turned(self, degrees: Quarter, manifest: EngineManifest) -> ChangedImage:
        """The given image, turned clockwise, for the second image of the engine of `manifest`.

        An engine for frames takes images of certain sizes. If the turned one has none of them, it is scaled into a
        frame, with black around it. Raises nothing.
        """
        image = turn_image(self.image, degrees)
        frames, size = manifest.input.frames, (image.height, image.width)
        if frames is None or frames.takes(size, 1):
            return replace(self, image=image, degrees=degrees)
        return replace(self, image=image, degrees=degrees)._placed(fit_letterbox(size, frames.nearest(size, 1)))

    def halved(self) -> ChangedImage:
        """The given image at half its size, on a black canvas of its own size. Raises nothing."""
        height, width = self.image.height, self.image.width
        small = max(height // 2, 1), max(width // 2, 1)
        return self._placed(Fit(width / small[1], height / small[0], *small, height, width))

    def _placed(self, fit: Fit) -> ChangedImage:
        canvas = apply_fit(self.image.pixels, fit)
        pixels = canvas[:, :, 0] if self.image.pixels.ndim == 2 else canvas
        return replace(self, image=replace(self.image, pixels=pixels, values=None), fit=fit)

    def back(self, points: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Points in pixels of the image as it was given, float32 [N, 2], and which of them are in it, bool [N].

        points: float32 [N, 2] in pixels of `image`. Raises nothing.
        """
        inside = np.ones(len(points), bool)
        if self.fit is not None:
            height, width = self.fit.original_hw
            points = self.fit.to_original(points)
            inside = ImageRef("", height, width).holds(points)
        return unturned_points(points, self.degrees, self.ref.height, self.ref.width), inside

    def seen(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) at which the network saw the image itself, without the black of the canvas.

        size: (height, width) at which it saw `image`. Raises nothing.
        """
        if self.fit is None:
            return size
        height, width = (
            max(round(side * inner / outer), 1)
            for side, inner, outer in zip(
                size, (self.fit.resized_height, self.fit.resized_width), self.fit.canvas_hw, strict=True
            )
        )
        return height, width


def matches_back(matches: MatchesT, first: ChangedImage, second: ChangedImage) -> MatchesT:
    """Matches of two changed images as matches of the images as given.

    The provenance says how the second was turned, and at which sizes the network saw the images themselves. Matches
    that end on the black around an image are left out. Raises nothing.
    """
    origin = matches.provenance
    points0, inside0 = first.back(matches.keypoints0)
    points1, inside1 = second.back(matches.keypoints1)
    kept = inside0 & inside1
    return replace(
        matches,
        keypoints0=points0[kept],
        keypoints1=points1[kept],
        scores=matches.scores[kept],
        image0=first.ref,
        image1=second.ref,
        provenance=replace(
            origin,
            network_size0=first.seen(origin.network_size0),
            network_size1=second.seen(origin.network_size1),
            turned1=second.degrees,
        ),
    )
