"""The preprocessing of one image: it is decoded and resized as the manifest says, and its fit leads back to its pixels.

This is apart from `Matcher`, because an image that is part of many pairs is prepared once, and because images can be
decoded without an engine. Callers use `PairAdapter.prepare`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, Kernel
from matchrt.runtime.colours import Order, to_grey, to_rgb
from matchrt.runtime.decoding.values import UInt8Array
from matchrt.runtime.filters import Job
from matchrt.runtime.fit import Fit, fit_coarse, fit_image
from matchrt.runtime.image import Frame, Image, as_frame, as_image
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.resize import resize_all
from matchrt.runtime.workspace import Workspace


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


@dataclass(frozen=True, eq=False)
class PlannedImage:
    """An image of which it is known how it fits into the engine's input, before a pixel is written.

    frame: the image as it stands in memory.
    fit: how it is resized and padded.
    small: the same for the smaller copy that some engines take; None for other engines.
    channels: of the engine's images, 1 (grey) or 3 (RGB).
    kernel: the filter of the resize.
    decode_ms: milliseconds of decoding.
    """

    frame: Frame
    fit: Fit
    small: Fit | None
    channels: int
    kernel: Kernel
    decode_ms: float

    def write(self, workspace: Workspace) -> PreparedImage:
        """Converts the colours, resizes and pads, into memory of the image's own.

        workspace: for intermediate results. The result has no notice yet (`told`). Raises nothing.
        """
        return _write([self], [(None, None)], workspace)[0]

    def told(self, prepared: PreparedImage) -> PreparedImage:
        """What `write` returned, with the notice. It may be asked for while the engine works. Raises nothing."""
        notice = self.frame.notice()
        return prepared if notice is None else replace(prepared, notice=notice)

    def is_ready(self) -> bool:
        """Whether the image is just as the engine wants it, so that nothing needs to be written. Raises nothing."""
        return self.fit.changes_nothing and self.frame.order == ("grey" if self.channels == 1 else "rgb")

    def prepared(self, pixels: UInt8Array, coarse: UInt8Array | None, resize_ms: float) -> PreparedImage:
        """The image with what was written of it, uint8 `[H, W, C]`. Raises nothing."""
        height, width = self.frame.pixels.shape[:2]
        ref = ImageRef(self.frame.name, height, width, self.frame.orientation)
        return PreparedImage(ref, self.fit, pixels, coarse, self.decode_ms, resize_ms, self.kernel)


class _Filling:
    """One image on its way into one canvas. Colours are converted after a resize where there are fewer pixels then.

    job: the resize that is left to do; None if there is none.
    """

    def __init__(self, frame: Frame, fit: Fit, out: UInt8Array, key: str, workspace: Workspace) -> None:
        self._fit, self._out, self._inner = fit, out, fit.inside(out)
        self._later: tuple[UInt8Array, Order] | None = None
        self.job: Job | None = None
        pixels, order = fit.padded(frame.pixels), frame.order
        size = pixels.shape[:2]
        if self._inner.shape[:2] == size:
            self._later = pixels, order
        elif out.shape[2] == 1:
            if order != "grey":
                grey = workspace.take(f"grey {key}", size)
                to_grey(pixels, order, grey)
                pixels = grey
            self.job = Job(pixels, self._inner[:, :, 0])
        elif order == "rgb":
            self.job = Job(pixels, self._inner)
        else:
            if pixels.ndim == 3 and pixels.shape[2] == 4:
                colours = workspace.take(f"colours {key}", (*size, 3))
                to_rgb(pixels, order, colours)
                pixels, order = colours, "rgb"
            small = workspace.take(f"small {key}", (*self._inner.shape[:2], *pixels.shape[2:]))
            self.job, self._later = Job(pixels, small), (small, order)

    def finish(self) -> UInt8Array:
        """What follows the resize; returns the canvas. Raises nothing."""
        if self._later is not None:
            if self._out.shape[2] == 1:
                to_grey(*self._later, self._inner[:, :, 0])
            else:
                to_rgb(*self._later, self._inner)
        self._fit.clear_padding(self._out)
        return self._out


def _write(
    images: Sequence[PlannedImage],
    places: Sequence[tuple[UInt8Array | None, UInt8Array | None]],
    workspace: Workspace,
) -> list[PreparedImage]:
    """Writes images to their places: the image, and the smaller copy; None for memory of its own."""
    start = time.perf_counter()
    fillings: dict[tuple[int, int], _Filling] = {}
    for index, (image, place) in enumerate(zip(images, places, strict=True)):
        for which, (fit, out) in enumerate(zip((image.fit, image.small), place, strict=True)):
            if fit is not None and not (which == 0 and image.is_ready()):
                canvas = np.empty((*fit.canvas_hw, image.channels), np.uint8) if out is None else out
                fillings[index, which] = _Filling(image.frame, fit, canvas, f"{index} {which}", workspace)
    jobs = [filling.job for filling in fillings.values() if filling.job is not None]
    if jobs:
        resize_all(jobs, images[0].kernel, workspace)
    written = {key: filling.finish() for key, filling in fillings.items()}
    spent = (time.perf_counter() - start) * 1e3 / len(images)
    return [
        image.prepared(
            written[index, 0] if (index, 0) in written else _whole(image.frame), written.get((index, 1)), spent
        )
        for index, image in enumerate(images)
    ]


def _whole(frame: Frame) -> UInt8Array:
    """An image that is as the engine wants it, [H, W, C]; a copy only where its rows are apart."""
    pixels = np.ascontiguousarray(frame.pixels)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


@dataclass(frozen=True, eq=False)
class PlannedPair:
    """Two images of which it is known how they fit into the engine's input, or that are prepared already.

    first, second: image 0 and image 1.
    """

    first: PlannedImage | PreparedImage
    second: PlannedImage | PreparedImage

    def written(self) -> tuple[PreparedImage, PreparedImage] | None:
        """Both images if they were prepared before, so that nothing needs to be written. Raises nothing."""
        if isinstance(self.first, PreparedImage) and isinstance(self.second, PreparedImage):
            return self.first, self.second
        return None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes `[1, H, W, C]` of the engine's images, and of their smaller copies, by name. Raises nothing."""
        found: dict[str, tuple[int, ...]] = {}
        for index, image in enumerate((self.first, self.second)):
            if isinstance(image, PreparedImage):
                written = {"image": image.pixels, "coarse": image.coarse}
                found |= {f"{name}{index}": (1, *array.shape) for name, array in written.items() if array is not None}
                continue
            found[f"image{index}"] = (1, *image.fit.canvas_hw, image.channels)
            if image.small is not None:
                found[f"coarse{index}"] = (1, *image.small.canvas_hw, image.channels)
        return found

    def write(
        self, workspace: Workspace, lent: Mapping[str, npt.NDArray[Any]] | None
    ) -> tuple[PreparedImage, PreparedImage]:
        """Converts, resizes and pads both images; those that were prepared before stay as they are.

        workspace: for intermediate results.
        lent: the arrays of `shapes` into which the results are written; None for memory of their own.

        The results have no notices yet (`told`). Raises nothing.
        """
        arrays = {} if lent is None else lent
        images = dict(enumerate((self.first, self.second)))
        planned = {index: image for index, image in images.items() if isinstance(image, PlannedImage)}
        places = [(_row(arrays.get(f"image{index}")), _row(arrays.get(f"coarse{index}"))) for index in planned]
        done = dict(zip(planned, _write(list(planned.values()), places, workspace), strict=True)) if planned else {}
        first, second = (image if isinstance(image, PreparedImage) else done[index] for index, image in images.items())
        return first, second

    def told(self, prepared: tuple[PreparedImage, PreparedImage]) -> tuple[PreparedImage, PreparedImage]:
        """What `write` returned, with the notices. It may be asked for while the engine works. Raises nothing."""
        first, second = (
            written if isinstance(image, PreparedImage) else image.told(written)
            for image, written in zip((self.first, self.second), prepared, strict=True)
        )
        return first, second


def _row(array: npt.NDArray[Any] | None) -> UInt8Array | None:
    return None if array is None else array[0]


def plan_image(value: Any, name: str, manifest: EngineManifest, options: MatcherOptions) -> PlannedImage:
    """Decodes one image and fits it to the engine of `manifest`.

    name: what messages and `Matches` call an array. Errors: image-* of `as_image`, fit-size.
    """
    start = time.perf_counter()
    frame = as_frame(
        value,
        channel_order=options.channel_order,
        name=name,
        max_pixels=options.max_pixels,
        apply_exif=options.apply_exif,
        stretch=options.stretch,
    )
    contract, size = manifest.input, (frame.pixels.shape[0], frame.pixels.shape[1])
    fit = fit_image(size, contract, options.resize or best_side(manifest))
    decode_ms = (time.perf_counter() - start) * 1e3
    return PlannedImage(frame, fit, fit_coarse(size, contract), contract.channels, contract.kernel, decode_ms)


def prepare_image(value: Any, name: str, manifest: EngineManifest, options: MatcherOptions) -> PreparedImage:
    """Decodes and resizes one image for the engine of `manifest`, to uint8 `[H, W, C]`.

    name: what messages and `Matches` call an array. Errors: image-* of `as_image`, fit-size.
    """
    planned = plan_image(value, name, manifest, options)
    return planned.told(planned.write(Workspace()))


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
