"""Images: files and arrays become uint8 RGB or grey, or an error says what is wrong with them.

Files are of a fixed list of formats (`decoding.formats`). The header is read first, and its size is checked before a
single pixel is decoded. All rows have data, or the image is refused. What is stored becomes 8 bits a channel like this:

| stored                         | becomes                                                                 |
| ------------------------------ | ----------------------------------------------------------------------- |
| 1 bit, 8-bit grey              | grey                                                                    |
| 2 to 16 bits, uint16 arrays    | grey or RGB, value * 255 / the largest value, rounded                   |
| 16-bit RGB PNG                 | RGB; Pillow keeps the high byte, within one level of value / 257        |
| 16 bits signed (TIFF)          | value * 255 / 32767; the values must not be negative                    |
| 32 and 64 bits (TIFF)          | as 16 bits; the values must be in 0..65535                              |
| float (TIFF, PFM, arrays)      | value * 255 rounded; must be finite and in 0..1, see below              |
| palette, CMYK, YCbCr           | RGB                                                                     |
| alpha (LA, RGBA, P with alpha) | alpha is ignored: the stored colours are used, nothing is composited    |
| bands beyond RGB (TIFF)        | ignored; several bands that are not RGB are refused                     |
| animation, multi-page          | the first frame                                                         |

Floats beyond 0..1 are clipped if they leave it by half a level of 255 or less, as rounding does, or by 0.25 or less in
a tenth of the values or fewer, as bicubic and Lanczos resizing do. With `stretch`, the percentiles 1 and 99 become
black and white instead, and any finite values are read.

Errors:

| code             | meaning                                                                     |
| ---------------- | --------------------------------------------------------------------------- |
| image-missing    | no such file                                                                |
| image-unreadable | it exists but cannot be read: permission, a directory, not a regular file   |
| image-format     | not an image, or an image of a kind that is not read                        |
| image-truncated  | starts as an image, but header or pixels are cut off or damaged             |
| image-too-large  | more pixels than the cap, or more work than one image may be                |
| image-too-small  | a side below MIN_SIDE                                                       |
| image-array      | an array of the wrong shape, type or range                                  |
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image as PILImage

from matchrt.errors import MatchRTError
from matchrt.runtime.colours import ChannelOrder, Order, in_memory_order, to_grey
from matchrt.runtime.decoding import pillow
from matchrt.runtime.decoding.arrays import as_array, with_alpha
from matchrt.runtime.decoding.arrays import values_of as values_of_array
from matchrt.runtime.decoding.file import naming, open_stored
from matchrt.runtime.decoding.source import Source
from matchrt.runtime.decoding.values import (
    Span,
    Stretch,
    UInt8Array,
    Values,
    stretch_to_uint8,
    to_uint8,
)
from matchrt.runtime.nv12 import Nv12
from matchrt.runtime.orientation import UPRIGHT, inverse, turn_pixels, turn_size

MAX_PIXELS = 50_000_000
MIN_SIDE = 16


@dataclass(frozen=True, eq=False)
class Image:
    """A decoded image.

    pixels: uint8, contiguous, [H, W, 3] RGB or [H, W] grey.
    name: the path as it was given (with forward slashes), or what the caller called the array.
    orientation: the EXIF orientation, 1..8, by which the stored pixels were turned to `pixels`; 1 if they were not.
    notice: what a person should know about it, such as that it uses little of its range; None for nothing.
    values: what `pixels` were made of, upright; kept only for `stretch_together`, and None otherwise.
    """

    pixels: UInt8Array
    name: str
    orientation: int = UPRIGHT
    notice: str | None = None
    values: Values | None = None

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])

    def grey(self) -> UInt8Array:
        """Grey pixels, uint8 [H, W]: ITU-R 601 luma with OpenCV's integers (`colours.to_grey`). Raises nothing.

        If the image is grey, this is `pixels` itself and not a copy.
        """
        if self.pixels.ndim == 2:
            return self.pixels
        grey = np.empty(self.pixels.shape[:2], np.uint8)
        to_grey(self.pixels, "rgb", grey)
        return grey

    def rgb(self) -> UInt8Array:
        """RGB pixels, uint8 [H, W, 3]; grey is repeated. Raises nothing.

        If the image has colours, this is `pixels` itself and not a copy.
        """
        if self.pixels.ndim == 3:
            return self.pixels
        return np.repeat(self.pixels[:, :, None], 3, axis=2)


@dataclass(frozen=True, eq=False)
class Frame:
    """An image as it stands in memory: of an array of bytes, no pixel is copied.

    pixels: uint8, [H, W], [H, W, 3] or [H, W, 4].
    order: what the channels are.
    name, orientation: as in `Image`.
    told: what a person should know about it; None for nothing, or if it has not been looked at yet.
    seen: whether it has been looked at.
    """

    pixels: UInt8Array
    order: Order
    name: str
    orientation: int = UPRIGHT
    told: str | None = None
    seen: bool = True

    def notice(self) -> str | None:
        """What a person should know about it; None for nothing. Raises nothing.

        An array is looked at when this is called, which can be while an engine works already.
        """
        if self.seen:
            return self.told
        colours = self.pixels if self.pixels.ndim == 2 else self.pixels[:, :, :3]
        return _notice(Values(colours, 255.0), self.name)


# ----------------------------------------------------------------------------------------------- files


def read_image(
    path: str | os.PathLike[str],
    *,
    apply_exif: bool = True,
    max_pixels: int = MAX_PIXELS,
    stretch: Stretch = "none",
) -> Image:
    """Reads one image file to uint8 [H, W, 3] RGB or [H, W] grey.

    apply_exif: turn the image as its EXIF orientation says.
    max_pixels: the largest height * width, checked on the header.
    stretch: `each` makes the percentiles 1 and 99 black and white; `same` does so too, and keeps the values for
        `stretch_together`.
    Errors: every image-* code of the module's table but image-array.
    """
    return _owned(_read_file(path, apply_exif, max_pixels, stretch))


def _read_file(path: str | os.PathLike[str], apply_exif: bool, max_pixels: int, stretch: Stretch) -> Image:
    """As `read_image`; the pixels may be read-only."""
    name = _display_name(path)
    with _open_file(Path(path)) as stream:
        return _decode(Source(stream, name), name, apply_exif, max_pixels, stretch)


def _owned(image: Image) -> Image:
    """The image with pixels that its owner may write to."""
    return image if image.pixels.flags.writeable else replace(image, pixels=image.pixels.copy())


def decode_image(
    data: bytes, name: str, *, apply_exif: bool = True, max_pixels: int = MAX_PIXELS, stretch: Stretch = "none"
) -> Image:
    """Reads an image as `read_image` does, from the bytes of a file that is in memory.

    name: what errors and `Image.name` call it.

    Returns uint8 [H, W, 3] RGB or [H, W] grey. Errors: image-format, image-truncated, image-too-large, image-too-small.
    """
    return _owned(_decode(Source.of(data, name), name, apply_exif, max_pixels, stretch))


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) in pixels from the header, with the EXIF orientation applied.

    No pixel is decoded, and the size is not limited. Errors: image-missing, image-unreadable, image-format,
    image-truncated, image-too-large.
    """
    name = _display_name(path)
    with _open_file(Path(path)) as stream, naming(name):
        stored = open_stored(Source(stream, name), name, MAX_PIXELS)
    return turn_size(stored.height, stored.width, stored.orientation)


def _display_name(path: str | os.PathLike[str]) -> str:
    return Path(path).as_posix()


def _open_file(path: Path) -> IO[bytes]:
    try:
        if not path.exists():
            raise MatchRTError("image-missing", f"There is no file '{path}'.", "Check the path and its spelling.")
        if not path.is_file():  # a directory, or a pipe or device that might never end
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise MatchRTError("image-unreadable", f"'{path}' is {kind}.", "Name an image file.")
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        detail = getattr(error, "strerror", None) or str(error)
        raise MatchRTError(
            "image-unreadable", f"Cannot open '{path}': {detail}.", "Make the file readable for this user."
        ) from error


def _decode(source: Source, name: str, apply_exif: bool, max_pixels: int, stretch: Stretch) -> Image:
    with naming(name):
        stored = open_stored(source, name, max_pixels)
        check_size(stored.height, stored.width, name, max_pixels)
        values = stored.read()
        orientation = stored.orientation if apply_exif else UPRIGHT
        return _to_image(values, name, orientation, stretch, "image-format")


def check_size(height: int, width: int, name: str, max_pixels: int) -> None:
    """Refuses images that are not matched. height, width: in pixels. Errors: image-too-large, image-too-small."""
    if height * width > max_pixels:
        raise MatchRTError(
            "image-too-large",
            f"'{name}' is {width} x {height} = {height * width / 1e6:.1f} megapixels; "
            f"the limit is {max_pixels / 1e6:g}.",
            "Raise --max-megapixels (max_pixels) or shrink the image.",
        )
    if min(height, width) < MIN_SIDE:
        raise MatchRTError(
            "image-too-small",
            f"'{name}' is {width} x {height} pixels; at least {MIN_SIDE} on each side are needed.",
            "Use a larger image; a few hundred pixels a side is where matching begins to work.",
        )


# ------------------------------------------------------------------------------------------- to 8 bits


def _to_image(values: Values, name: str, orientation: int, stretch: Stretch, code: str) -> Image:
    upright = Values(turn_pixels(values.pixels, orientation), values.white)
    if stretch == "none":
        return Image(to_uint8(upright, name, code), name, orientation, _notice(upright, name))
    pixels = stretch_to_uint8(upright, upright.span(), name, code)
    return Image(pixels, name, orientation, None, upright if stretch == "same" else None)


def stretch_together(first: Image, second: Image) -> tuple[Image, Image]:
    """Two images that were read with `stretch="same"`, stretched by the span of both: equal values become equal pixels.

    Error: image-array if one of them was read without, because its own values are gone.
    """
    images = (first, second)
    for image in images:
        if image.values is None:
            raise MatchRTError(
                "image-array",
                f"'{image.name}' is 8 bits already and cannot be stretched together with another image.",
                "Pass paths or arrays, or read images under MatcherOptions(stretch='same').",
            )
    spans = [image.values.span() for image in images if image.values is not None]
    return _stretched(first, spans[0].join(spans[1])), _stretched(second, spans[1].join(spans[0]))


def _stretched(image: Image, span: Span) -> Image:
    assert image.values is not None
    return replace(image, pixels=stretch_to_uint8(image.values, span, image.name, "image-format"))


def _notice(values: Values, name: str) -> str | None:
    if values.has_contrast():
        return None
    span = values.span()
    return (
        f"'{name}' uses {span.contrast:.1%} of its range: most values are {span.low:.6g}..{span.high:.6g} "
        f"of 0..{span.white:.6g}. To use all of it: --stretch each or same (MatcherOptions(stretch='each'))."
    )


# ---------------------------------------------------------------------------------------------- arrays


def as_image(
    value: object,
    *,
    channel_order: ChannelOrder = "rgb",
    name: str = "array",
    max_pixels: int = MAX_PIXELS,
    apply_exif: bool = True,
    stretch: Stretch = "none",
) -> Image:
    """A path, an `Image`, a Pillow image, an `Nv12` frame or an array to an `Image`.

    value: arrays (memoryviews, tensors in host memory, objects with `__array__` or `__array_interface__`) are [H, W],
        [H, W, 1], [H, W, 3] or [H, W, 4] (alpha is ignored) in uint8, uint16 (value / 257), bool, or float in 0..1 with
        the tolerance of the module, in any byte order.
    channel_order: of colour arrays; OpenCV's is 'bgr'.
    name: what errors and `Image.name` call an array.
    max_pixels: the largest height * width.
    apply_exif: turn files and Pillow images as their EXIF orientation says.
    stretch: as in `read_image`; an `Image` is taken as it is.
    Errors: image-array, image-too-large, image-too-small; for paths those of `read_image`; image-truncated and
    image-format for Pillow images.
    """
    if channel_order not in ("rgb", "bgr"):
        raise MatchRTError("image-array", f"channel_order is {channel_order!r}.", "Use 'rgb' or 'bgr'.")
    if not isinstance(value, np.ndarray):
        if isinstance(value, Image):
            check_size(value.height, value.width, value.name, max_pixels)
            return value
        if isinstance(value, (str, os.PathLike)):
            return read_image(value, apply_exif=apply_exif, max_pixels=max_pixels, stretch=stretch)
        if isinstance(value, Nv12):
            check_size(value.height, value.width, name, max_pixels)
            value, channel_order = value.to_rgb(name), "rgb"
        if isinstance(value, PILImage.Image):
            return _from_pillow(value, name, max_pixels, apply_exif, stretch)
    array = as_array(value, name)
    check_size(array.shape[0], array.shape[1], name, max_pixels)
    if array.ndim == 3 and channel_order == "bgr":
        array = array[:, :, ::-1]
    with naming(name):
        return _to_image(values_of_array(array, name), name, UPRIGHT, stretch, "image-array")


def as_frame(
    value: object,
    *,
    channel_order: ChannelOrder = "rgb",
    name: str = "array",
    max_pixels: int = MAX_PIXELS,
    apply_exif: bool = True,
    stretch: Stretch = "none",
) -> Frame:
    """What `as_image` takes, without a copy of what is an array of bytes already.

    Arguments and errors are those of `as_image`. The frame looks at the caller's array, as long as that lives.
    """
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and stretch == "none":
        array = with_alpha(value, name)
        check_size(array.shape[0], array.shape[1], name, max_pixels)
        return Frame(*in_memory_order(array, channel_order), name, seen=False)
    if isinstance(value, (str, os.PathLike)):
        image = _read_file(value, apply_exif, max_pixels, stretch)
    else:
        image = as_image(
            value, channel_order=channel_order, name=name, max_pixels=max_pixels, apply_exif=apply_exif, stretch=stretch
        )
    return Frame(image.pixels, "grey" if image.pixels.ndim == 2 else "rgb", image.name, image.orientation, image.notice)


def _from_pillow(picture: PILImage.Image, name: str, max_pixels: int, apply_exif: bool, stretch: Stretch) -> Image:
    check_size(picture.height, picture.width, name, max_pixels)
    orientation = pillow.orientation_of(picture)
    with naming(name):
        pillow.load(picture)
        values = pillow.values_of(picture)
        if (
            pillow.orientation_of(picture) != orientation
        ):  # Pillow turns a TIFF when it loads it, and takes the tag away
            values = replace(values, pixels=turn_pixels(values.pixels, inverse(orientation)))
        return _owned(_to_image(values, name, orientation if apply_exif else UPRIGHT, stretch, "image-format"))
