"""The preprocessing of one image: it is decoded and resized as the manifest says, and its fit leads back to its pixels.

This is apart from `Matcher`, because an image that is part of many pairs is prepared once, and because images can be
decoded without an engine. Callers use `PairAdapter.prepare`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, Kernel
from matchrt.runtime.decoding.values import UInt8Array
from matchrt.runtime.fit import Fit, apply_fit, fit_coarse, fit_image
from matchrt.runtime.image import Image, as_image
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.options import MatcherOptions


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image in the engine's layout, and the way back to its own pixels.

    ref: name and size of the original.
    fit: how the original was resized and padded.
    pixels: uint8 `[H, W, C]`, the engine's image without its first dimension; None if the pixels are on the GPU.
    coarse: uint8 `[h, w, C]`, the smaller copy that some engines take too; None for other engines.
    decode_ms: milliseconds of decoding.
    resize_ms: milliseconds of resizing.
    kernel: the filter of the resize; None if the pixels are on the GPU.
    notice: what a person should know about the original, such as that it uses little of its range; None for nothing.
    """

    ref: ImageRef
    fit: Fit
    pixels: UInt8Array | None
    coarse: UInt8Array | None
    decode_ms: float
    resize_ms: float
    kernel: Kernel | None = None
    notice: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels in host memory, the smaller copy included."""
        return sum(array.nbytes for array in (self.pixels, self.coarse) if array is not None)


def read_as(value: Any, name: str, options: MatcherOptions) -> Image:
    """Decodes a path or an array as `Matcher.match` would under these options, to uint8 `[H, W, 3]` or `[H, W]`.

    name: what messages and `Image.name` call an array. Errors: image-* of `as_image`.
    """
    return as_image(
        value,
        channel_order=options.channel_order,
        name=name,
        max_pixels=options.max_pixels,
        apply_exif=options.apply_exif,
        stretch=options.stretch,
    )


def prepare_image(value: Any, name: str, manifest: EngineManifest, options: MatcherOptions) -> PreparedImage:
    """Decodes and resizes one image for the engine of `manifest`, to uint8 `[H, W, C]`.

    name: what messages and `Matches` call an array. Errors: image-* of `as_image`, fit-size.
    """
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
    ref = ImageRef(image.name, image.height, image.width, image.orientation)
    kernel = manifest.input.kernel
    return PreparedImage(
        ref, fit, resized, coarse, (decoded - start) * 1e3, (end - decoded) * 1e3, kernel, image.notice
    )


def require_prepared(image: PreparedImage, manifest: EngineManifest, options: MatcherOptions) -> None:
    """Raises `image-prepared` unless the engine of `manifest` would have got the same pixels of the image."""
    contract, size = manifest.input, (image.ref.height, image.ref.width)
    coarse = None if image.coarse is None else image.coarse.shape[:2]
    wanted = (
        fit_image(size, contract, options.resize or best_side(manifest)),
        contract.channels,
        contract.kernel,
        contract.coarse,
    )
    if image.pixels is not None and wanted != (image.fit, image.pixels.shape[2], image.kernel, coarse):
        raise MatchRTError(
            "image-prepared",
            f"'{image.ref.name}' was prepared for another engine or another size: "
            f"{_words(image.fit, image.pixels.shape[2])}. {manifest.model} takes {_words(wanted[0], wanted[1])}.",
            "Prepare it with this matcher's prepare_image, or pass the image itself.",
        )


def _words(fit: Fit, channels: int) -> str:
    inside = f"{fit.resized_height}x{fit.resized_width} in {fit.canvas_height}x{fit.canvas_width} pixels"
    return f"{inside}, {'grey' if channels == 1 else 'RGB'}"


def best_side(manifest: EngineManifest) -> int:
    """The long side, in pixels, of the images with which the engine works best. Raises nothing."""
    if manifest.input.frames is not None:
        return max(map(max, manifest.input.frames.largest))
    profile = manifest.input.profile
    return max(profile.optimum) if profile is not None else max(manifest.input.height or 0, manifest.input.width or 0)
