"""What Pillow does here: it decodes one format from bytes, and its modes become values.

Not `PIL.Image.open`: its guard against huge images is a global of the process, warns on stderr, and would overrule a
larger cap that the user asked for. No file name is given to Pillow either, because it would map that file.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageChops, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from matchrt.runtime.decoding.failures import DamagedError, TooLargeError, UnreadError
from matchrt.runtime.decoding.values import Values

_ORIENTATION_TAG = 0x0112


def supported(format_name: str) -> bool:
    """Whether this build of Pillow has the codec. Raises nothing."""
    PILImage.init()
    return format_name in PILImage.OPEN


def accepts(format_name: str, prefix: bytes) -> bool:
    """Whether a file that starts with these 16 bytes is of that format. Raises nothing."""
    if not supported(format_name):
        return False
    accept = PILImage.OPEN[format_name][1]
    return accept is None or accept(prefix) is True


def opened(format_name: str, data: bytes) -> PILImage.Image:
    """The header of a file; no pixel is decoded. Errors: DamagedError, TooLargeError."""
    PILImage.init()
    try:
        if format_name == "JPEG":  # not its factory, which looks for further pictures behind the first
            return JpegImageFile(io.BytesIO(data), "")
        return PILImage.OPEN[format_name][0](io.BytesIO(data), "")
    except Exception as error:  # whatever plugins raise at damaged headers
        raise _failure(error) from error


def lenient() -> bool:
    """Whether the program has told Pillow to take images that are cut off for whole ones. Raises nothing."""
    return bool(ImageFile.LOAD_TRUNCATED_IMAGES)


def decoded(format_name: str, data: bytes, fill: int | None = None) -> PILImage.Image:
    """The decoded image. fill: what stands where the decoder writes nothing. Errors: DamagedError, TooLargeError."""
    picture = opened(format_name, data)
    if fill is not None:
        picture.im = PILImage.new(picture.mode, picture.size, fill).im
    load(picture)
    return picture


def load(picture: PILImage.Image) -> None:
    """Decodes the pixels of an opened image. Errors: DamagedError, TooLargeError."""
    try:
        picture.load()
    except Exception as error:  # whatever decoders raise at damaged data
        raise _failure(error) from error


def decoded_whole(format_name: str, data: bytes) -> PILImage.Image:
    """The decoded image of a format whose decoder writes rows into memory that is black before.

    Rows without data stay black. So if a row is black, the image is decoded once more over another colour. Errors:
    DamagedError also if a row has no data; TooLargeError.
    """
    picture = decoded(format_name, data)
    raw = np.asarray(picture)
    if not raw.reshape(len(raw), -1).any(axis=1).all():
        again = np.asarray(decoded(format_name, data, 1))
        if again.shape != raw.shape or not np.array_equal(again, raw):
            rows = np.count_nonzero((again != raw).reshape(len(raw), -1).any(axis=1))
            raise DamagedError(f"{rows} of its {len(raw)} rows have no data")
    return picture


def orientation_of(picture: PILImage.Image) -> int:
    """The EXIF orientation, 1..8; 1 if there is none or it is not valid. Raises nothing."""
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # viewers show a photo whose metadata are damaged; so do we
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def orientation_in(info: dict[Any, Any]) -> int:
    """The orientation that metadata hold, under Pillow's names of them: 1..8; 1 if there is none. Raises nothing.

    No pixel is looked at: a PNG that is asked for its orientation would decode itself.
    """
    holder = PILImage.new("L", (1, 1))
    holder.info = info
    return orientation_of(holder)


def values_of(picture: PILImage.Image) -> Values:
    """The values of a decoded image, [H, W] or [H, W, 3]; alpha is ignored. Error: UnreadError for its colours.

    The array may be read-only.
    """
    mode = picture.mode
    if mode in ("L", "RGB"):  # `convert` would copy them
        return Values(np.asarray(picture), 255)
    if mode in ("1", "LA", "La"):
        grey = picture.convert("LA").getchannel(0) if mode == "La" else picture.convert("L")
        return Values(np.array(grey), 255)
    if mode.startswith("I"):
        return Values(np.asarray(picture), 65535)
    if mode == "F":
        return Values(np.asarray(picture), 1.0)
    if mode in ("P", "PA", "RGBa"):  # through RGBA, else Pillow warns about transparency
        picture = picture.convert("RGBA")
    try:
        return Values(np.asarray(picture.convert("RGB")), 255)
    except ValueError as error:
        raise UnreadError(f"an image in the colour mode {mode}") from error


def equal(one: PILImage.Image, other: PILImage.Image) -> bool:
    """Whether two decoded images have equal pixels. Raises nothing."""
    if one.mode != other.mode or one.size != other.size:
        return False
    return ImageChops.difference(one, other).getbbox() is None  # three times as fast as comparing their bytes


def _failure(error: Exception) -> Exception:
    if isinstance(error, PILImage.DecompressionBombError):
        return TooLargeError("a frame or tiles that are too large to decode")
    if isinstance(error, MemoryError):
        return TooLargeError("more pixels than this machine has memory for")
    return DamagedError(str(error).strip().rstrip(".") or type(error).__name__)
