"""Reads images: files and arrays become uint8 RGB or grey, or an error says what is wrong with them.

Files are opened by Pillow from a fixed list of formats (`FORMATS`). The header is read first, and its size checked
before a single pixel is decoded. What is stored becomes 8 bits a channel like this:

| stored                         | becomes                                                                 |
| ------------------------------ | ----------------------------------------------------------------------- |
| 1 bit, 8-bit grey              | grey                                                                    |
| 16-bit grey, uint16 arrays     | grey or RGB, value / 257 rounded                                        |
| 16-bit RGB files               | RGB; Pillow keeps the high byte, within one level of value / 257        |
| palette, CMYK, YCbCr           | RGB                                                                     |
| alpha (LA, RGBA, P with alpha) | alpha is ignored: the stored colours are used, nothing is composited    |
| float (TIFF, arrays)           | value * 255 rounded; must be finite and in 0..1                         |
| animation, multi-page          | the first frame                                                         |

Errors:

| code             | meaning                                                                     |
| ---------------- | --------------------------------------------------------------------------- |
| image-missing    | no such file                                                                |
| image-unreadable | it exists but cannot be opened: permission, a directory, not a regular file |
| image-format     | not an image, or an image of a kind that is not read                        |
| image-truncated  | starts as an image, but header or pixels are cut off or damaged             |
| image-too-large  | more pixels than the cap                                                    |
| image-too-small  | a side below MIN_SIDE                                                       |
| image-array      | an array of the wrong shape, type or range                                  |
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from matchrt.errors import MatchRTError
from matchrt.runtime.orientation import UPRIGHT, turn_pixels, turn_size

MAX_PIXELS = 50_000_000
MIN_SIDE = 16
# This is an allow list, because Pillow also reads formats that run other programs (EPS) or that no camera writes.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")

UInt8Array = npt.NDArray[np.uint8]
ChannelOrder = Literal["rgb", "bgr"]

_ORIENTATION_TAG = 0x0112
# Pillow's decoders raise these on damaged data. Any other exception is a bug and is not caught.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError, OverflowError)
_DECODE_DAMAGE = (*_DAMAGE, zlib.error)
_CONVERT_REMEDY = "Convert it to an 8-bit PNG or JPEG."


@dataclass(frozen=True, eq=False)
class Image:
    """A decoded image.

    pixels: uint8, contiguous, [H, W, 3] RGB or [H, W] grey.
    name: the path as it was given (with forward slashes), or what the caller called the array.
    orientation: the EXIF orientation, 1..8, by which the stored pixels were turned to `pixels`; 1 if they were not.
    """

    pixels: UInt8Array
    name: str
    orientation: int = UPRIGHT

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])

    def grey(self) -> UInt8Array:
        """Grey pixels, uint8 [H, W]: ITU-R 601 luma, the same integers as Pillow's convert('L'). Raises nothing.

        If the image is grey, this is `pixels` itself and not a copy.
        """
        if self.pixels.ndim == 2:
            return self.pixels
        return np.array(PILImage.fromarray(self.pixels).convert("L"))

    def rgb(self) -> UInt8Array:
        """RGB pixels, uint8 [H, W, 3]; grey is repeated. Raises nothing.

        If the image has colours, this is `pixels` itself and not a copy.
        """
        if self.pixels.ndim == 3:
            return self.pixels
        return np.repeat(self.pixels[:, :, None], 3, axis=2)


# ----------------------------------------------------------------------------------------------- files


def read_image(path: str | os.PathLike[str], *, apply_exif: bool = True, max_pixels: int = MAX_PIXELS) -> Image:
    """Reads one image file to uint8 [H, W, 3] RGB or [H, W] grey.

    apply_exif: turn the image as its EXIF orientation says. (TIFF is always turned: Pillow does it while decoding.)
    max_pixels: the largest height * width, checked on the header.
    Errors: every image-* code of the module's table but image-array.
    """
    with _open_file(Path(path)) as stream:
        return _decode(stream, _display_name(path), apply_exif, max_pixels)


def decode_image(data: bytes, name: str, *, apply_exif: bool = True, max_pixels: int = MAX_PIXELS) -> Image:
    """Reads an image as `read_image` does, from the bytes of a file that is in memory.

    name: what errors and `Image.name` call it.

    Returns uint8 [H, W, 3] RGB or [H, W] grey. Errors: image-format, image-truncated, image-too-large, image-too-small.
    """
    return _decode(io.BytesIO(data), name, apply_exif, max_pixels)


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) in pixels from the header, with the EXIF orientation applied.

    No pixel is decoded, and the size is not limited. Errors: image-missing, image-unreadable, image-format,
    image-truncated.
    """
    name = _display_name(path)
    with _open_file(Path(path)) as stream, _open_header(stream, name) as picture:
        width, height = picture.size
        return turn_size(height, width, _orientation(picture))


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


def _open_header(stream: IO[bytes], name: str) -> PILImage.Image:
    """Opens the header only.

    Not PIL.Image.open: its guard against huge images is a global of the process, warns on stderr, and would overrule a
    larger cap that the user asked for.
    """
    prefix = stream.read(16)
    if not prefix:
        raise MatchRTError("image-truncated", f"'{name}' is empty (0 bytes).", "Copy or export the image again.")
    PILImage.init()
    looked_like: str | None = None
    for format_name in FORMATS:
        if format_name not in PILImage.OPEN:  # this build of Pillow lacks the codec
            continue
        factory, accept = PILImage.OPEN[format_name]
        if accept is not None and accept(prefix) is not True:
            continue
        stream.seek(0)
        try:
            return factory(stream, name)
        except _DAMAGE:
            looked_like = format_name
    if looked_like:
        raise MatchRTError(
            "image-truncated",
            f"'{name}' starts like {looked_like}, but its header is cut off or damaged.",
            "Copy or export the image again.",
        )
    raise MatchRTError(
        "image-format", f"'{name}' is not an image of a known format.", f"Use one of {', '.join(FORMATS)}."
    )


def _decode(stream: IO[bytes], name: str, apply_exif: bool, max_pixels: int) -> Image:
    with _open_header(stream, name) as picture:
        width, height = picture.size
        _check_size(height, width, name, max_pixels)
        orientation = _orientation(picture) if apply_exif else 1
        try:
            _verify_checksums(picture, stream, name)
            picture.load()
        except PILImage.DecompressionBombError as error:  # a TIFF whose tiles are larger than the image
            raise MatchRTError(
                "image-too-large", f"'{name}' has tiles too large to decode.", _CONVERT_REMEDY
            ) from error
        except _DECODE_DAMAGE as error:
            raise MatchRTError(
                "image-truncated",
                f"'{name}' ({width} x {height}) is cut off or damaged: {error}.",
                "Copy or export the image again.",
            ) from error
        return Image(turn_pixels(_to_uint8(picture, name), orientation), name, orientation)


def _verify_checksums(picture: PILImage.Image, stream: IO[bytes], name: str) -> None:
    """PNG carries checksums of its pixel data, which Pillow does not look at while decoding."""
    if picture.format == "PNG":
        position = stream.tell()
        stream.seek(0)
        _open_header(stream, name).verify()
        stream.seek(position)


def _check_size(height: int, width: int, name: str, max_pixels: int) -> None:
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


def _orientation(picture: PILImage.Image) -> int:
    """The EXIF orientation, 1..8; 1 if there is none or it is not valid, and for TIFF, which Pillow turns."""
    if picture.format == "TIFF":
        return 1
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGE:  # viewers show a photo whose metadata is damaged; so do we
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_uint8(picture: PILImage.Image, name: str) -> UInt8Array:
    """A decoded Pillow image to uint8 [H, W] or [H, W, 3]."""
    mode = picture.mode
    if mode in ("1", "L", "LA", "La"):
        return np.array(picture.convert("LA").getchannel(0) if mode == "La" else picture.convert("L"))
    if mode.startswith("I"):
        return _wide_file_to_uint8(np.asarray(picture), name)
    if mode == "F":
        return _float_to_uint8(np.asarray(picture), name, "image-format")
    if mode in ("P", "PA", "RGBa"):  # through RGBA, else Pillow warns about transparency
        picture = picture.convert("RGBA")
    try:
        return np.array(picture.convert("RGB"))
    except ValueError as error:
        raise MatchRTError(
            "image-format", f"'{name}' has the colour mode {mode}, which cannot be read.", _CONVERT_REMEDY
        ) from error


def _wide_file_to_uint8(values: npt.NDArray[Any], name: str) -> UInt8Array:
    """Pillow's integer modes (I;16 in either byte order, and I, 32 bits, which holds 16-bit PGM) to uint8."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise MatchRTError(
            "image-format", f"'{name}' has integer values {low}..{high}; 0..65535 can be read.", _CONVERT_REMEDY
        )
    return _uint16_to_uint8(values)


# ---------------------------------------------------------------------------------------------- arrays


def as_image(
    value: object,
    *,
    channel_order: ChannelOrder = "rgb",
    name: str = "array",
    max_pixels: int = MAX_PIXELS,
    apply_exif: bool = True,
) -> Image:
    """A path, an `Image`, a Pillow image or an array to an `Image`.

    value: arrays (and objects with `__array__`) are [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (alpha is ignored) in
        uint8, uint16 (value / 257), bool, or float in 0..1.
    channel_order: of colour arrays; OpenCV's is 'bgr'.
    name: what errors and `Image.name` call an array.
    max_pixels: the largest height * width.
    apply_exif: turn files and Pillow images as their EXIF orientation says.
    Errors: image-array, image-too-large, image-too-small; for paths those of `read_image`; image-truncated and
    image-format for Pillow images.
    """
    if channel_order not in ("rgb", "bgr"):
        raise MatchRTError("image-array", f"channel_order is {channel_order!r}.", "Use 'rgb' or 'bgr'.")
    if not isinstance(value, np.ndarray):
        if isinstance(value, Image):
            _check_size(value.height, value.width, value.name, max_pixels)
            return value
        if isinstance(value, (str, os.PathLike)):
            return read_image(value, apply_exif=apply_exif, max_pixels=max_pixels)
        if isinstance(value, PILImage.Image):
            return _from_pillow(value, name, max_pixels, apply_exif)
    array = _drop_extra_channels(_as_array(value, name), name)
    _check_size(array.shape[0], array.shape[1], name, max_pixels)
    if array.ndim == 3 and channel_order == "bgr":
        array = array[:, :, ::-1]
    return Image(np.ascontiguousarray(_array_to_uint8(array, name)), name)


def _from_pillow(picture: PILImage.Image, name: str, max_pixels: int, apply_exif: bool) -> Image:
    _check_size(picture.height, picture.width, name, max_pixels)
    try:
        picture.load()
    except _DECODE_DAMAGE as error:
        raise MatchRTError(
            "image-truncated", f"'{name}' is cut off or damaged: {error}.", "Copy or export the image again."
        ) from error
    orientation = _orientation(picture) if apply_exif else UPRIGHT
    return Image(turn_pixels(_to_uint8(picture, name), orientation), name, orientation)


def _array_error(name: str, message: str, remedy: str) -> MatchRTError:
    return MatchRTError("image-array", f"'{name}' {message}.", remedy)


def _as_array(value: object, name: str) -> npt.NDArray[Any]:
    if not isinstance(value, np.ndarray) and not hasattr(value, "__array__"):
        raise _array_error(
            name, f"is a {type(value).__name__}, not an image", "Pass a path, a numpy array or a Pillow image."
        )
    try:
        return np.asarray(value)
    except Exception as error:  # a foreign __array__, such as that of a tensor on a GPU, may raise anything
        raise _array_error(
            name, f"cannot become a numpy array: {error}", "Convert it first, for example tensor.cpu().numpy()."
        ) from error


def _drop_extra_channels(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """[H, W], [H, W, 1], [H, W, 3] or [H, W, 4] to [H, W] or [H, W, 3]; any other shape is an error."""
    if array.ndim == 2 and array.size:
        return array
    shape = "x".join(map(str, array.shape)) or "scalar"
    if array.size == 0:
        raise _array_error(name, f"is empty (shape {shape})", "Pass an image of shape [H,W] or [H,W,3].")
    if array.ndim == 4:
        raise _array_error(name, f"has shape {shape}, a batch", "Pass one image at a time: batch[0].")
    if array.ndim != 3:
        raise _array_error(name, f"has shape {shape}", "Pass an image of shape [H,W], [H,W,1], [H,W,3] or [H,W,4].")
    channels = array.shape[2]
    if channels == 1:
        return array[:, :, 0]
    if channels in (3, 4):
        return array[:, :, :3]
    if array.shape[0] in (1, 3, 4):
        raise _array_error(
            name, f"has shape {shape}, channels first", "Put the channels last: array.transpose(1, 2, 0)."
        )
    raise _array_error(name, f"has {channels} channels (shape {shape})", "Pass 1, 3 or 4 channels, last axis.")


def _array_to_uint8(array: npt.NDArray[Any], name: str) -> UInt8Array:
    if array.dtype == np.uint8:
        return array.view(np.uint8)
    if array.dtype == np.uint16:
        return _uint16_to_uint8(array)
    if array.dtype == np.bool_:
        return np.asarray(np.multiply(array, 255, dtype=np.uint8), np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        return _float_to_uint8(array, name, "image-array")
    raise _array_error(name, f"has the type {array.dtype}", "Use uint8, uint16, bool, or float in 0..1.")


def _uint16_to_uint8(values: npt.NDArray[Any]) -> UInt8Array:
    rounded = (values.astype(np.uint32) + 128) // 257  # 257 = 65535 / 255
    return rounded.astype(np.uint8)


def _float_to_uint8(values: npt.NDArray[Any], name: str, code: str) -> UInt8Array:
    if not np.isfinite(values).all():
        raise MatchRTError(code, f"'{name}' holds NaN or infinite values.", "Replace them before matching.")
    low, high = float(values.min()), float(values.max())
    if low < 0.0 or high > 1.0:
        raise MatchRTError(
            code, f"'{name}' holds floats from {low:g} to {high:g}, not 0..1.", "Scale it to 0..1, or use uint8."
        )
    scaled = np.rint(values * 255.0)
    return scaled.astype(np.uint8)
