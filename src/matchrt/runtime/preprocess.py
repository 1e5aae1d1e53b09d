"""One image on its way into an engine: decoded, resized as the manifest says, and the way back to its pixels.

Apart from `Matcher`, because an image that stands in many pairs is prepared once, and where images are decoded there
need not be an engine. Callers use `PairAdapter.prepare`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from matchrt.manifest import EngineManifest
from matchrt.runtime.fit import Fit, apply_fit, fit_coarse, fit_image
from matchrt.runtime.image import Image, UInt8Array, as_image
from matchrt.runtime.matches import ImageRef
from matchrt.runtime.options import MatcherOptions


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image in the engine's layout, and the way back. pixels: None where they are on the GPU."""

    ref: ImageRef
    fit: Fit
    pixels: UInt8Array | None
    coarse: UInt8Array | None
    decode_ms: float
    resize_ms: float

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels."""
        return sum(array.nbytes for array in (self.pixels, self.coarse) if array is not None)


def read_as(value: Any, name: str, options: MatcherOptions) -> Image:
    """Decodes a path or array as `Matcher.match` would under these options. Errors: image-* of `as_image`."""
    return as_image(
        value,
        channel_order=options.channel_order,
        name=name,
        max_pixels=options.max_pixels,
        apply_exif=options.apply_exif,
    )


def prepare_image(value: Any, name: str, manifest: EngineManifest, options: MatcherOptions) -> PreparedImage:
    """Decodes and resizes one image for the engine of `manifest`. Errors: image-* of `as_image`."""
    start = time.perf_counter()
    image = read_as(value, name, options)
    decoded = time.perf_counter()
    pixels = image.grey() if manifest.input.channels == 1 else image.rgb()
    size = image.height, image.width
    fit = fit_image(size, manifest.input, options.resize or best_side(manifest))
    resized = apply_fit(pixels, fit, manifest.input.kernel)
    small = fit_coarse(size, manifest.input)
    coarse = None if small is None else apply_fit(pixels, small, manifest.input.kernel)
    end = time.perf_counter()
    ref = ImageRef(image.name, image.height, image.width)
    return PreparedImage(ref, fit, resized, coarse, (decoded - start) * 1e3, (end - decoded) * 1e3)


def best_side(manifest: EngineManifest) -> int:
    """The long side in pixels at which the engine works best."""
    profile = manifest.input.profile
    return max(profile.optimum) if profile is not None else max(manifest.input.height or 0, manifest.input.width or 0)
