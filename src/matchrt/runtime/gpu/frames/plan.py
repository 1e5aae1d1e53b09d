"""What becomes of two images in front of an engine: their fits, the network's shapes, and a resize for each input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from matchrt.manifest import EngineManifest
from matchrt.runtime.fit import Fit, fit_coarse, fit_image
from matchrt.runtime.gpu.frames.layouts import PixelLayout
from matchrt.runtime.image import check_size
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.preprocess import PreparedImage, best_side

NAMES = ("image0", "image1")


@dataclass(frozen=True)
class Resize:
    """One input of the engine that is made of an image.

    tensor: the input's name.
    size_tensor: the input that gets the resized height and width; None if there is none.
    image: 0 or 1, the image that it is made of.
    fit: how the image is resized and padded.
    """

    tensor: str
    size_tensor: str | None
    image: int
    fit: Fit


@dataclass(frozen=True, eq=False)
class FramePlan:
    """What becomes of images of two layouts.

    layouts: of both images, in the memory that the kernels read.
    images: names and sizes, without pixels. Their fits scale nothing: the GPU has led the keypoints back already.
    shapes: of the engine's inputs, by name.
    resizes: one for each input that is made of pixels.
    """

    layouts: tuple[PixelLayout, PixelLayout]
    images: tuple[PreparedImage, PreparedImage]
    shapes: Mapping[str, tuple[int, ...]]
    resizes: tuple[Resize, ...]


def plan_frames(
    layouts: tuple[PixelLayout, PixelLayout], manifest: EngineManifest, options: MatcherOptions
) -> FramePlan:
    """Plans two images of these layouts. Errors: image-too-large, image-too-small, fit-size."""
    contract, long_side = manifest.input, options.resize or best_side(manifest)
    inputs = {spec.name for spec in manifest.inputs}
    shapes: dict[str, tuple[int, ...]] = {}
    resizes: list[Resize] = []
    images: list[PreparedImage] = []
    for index, (name, layout) in enumerate(zip(NAMES, layouts, strict=True)):
        height, width = layout.height, layout.width
        check_size(height, width, name, options.max_pixels)
        fit = fit_image((height, width), contract, long_side)
        size = f"size{index}" if f"size{index}" in inputs else None
        resizes.append(Resize(name, size, index, fit))
        shapes[name] = (1, *fit.canvas_hw, contract.channels)
        if size is not None:
            shapes[size] = (1, 2)
        small = fit_coarse((height, width), contract)
        if small is not None:
            resizes.append(Resize(f"coarse{index}", None, index, small))
            shapes[f"coarse{index}"] = (1, *small.canvas_hw, contract.channels)
        led_back = replace(fit, scale_x=1.0, scale_y=1.0)
        images.append(PreparedImage(ImageRef(name, height, width), led_back, None, None, 0.0, 0.0))
    return FramePlan(layouts, (images[0], images[1]), shapes, tuple(resizes))
