"""HEIF (HEIC), by the package pillow-heif where it is installed.

A HEIF file says itself how its picture is turned, and libheif obeys. The EXIF orientation says the same once more, and
is ignored.
"""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np
from PIL import Image as PILImage

from matchrt.runtime.decoding.failures import DamagedError, TooLargeError
from matchrt.runtime.decoding.values import Values

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif", b"mif1", b"msf1")


def accepts(prefix: bytes) -> bool:
    """Whether a file that starts with these 32 bytes is HEIF and not AVIF. Raises nothing."""
    if prefix[4:8] != b"ftyp" or prefix[8:12] not in _BRANDS:
        return False
    return b"avif" not in prefix[16:] and b"avis" not in prefix[16:]


def installed() -> bool:
    """Whether pillow-heif is installed. Raises nothing."""
    return find_spec("pillow_heif") is not None


def opened(data: bytes) -> PILImage.Image:
    """The first picture of a file, not decoded yet. Error: DamagedError."""
    from pillow_heif import HeifImageFile

    try:
        picture: PILImage.Image = HeifImageFile(io.BytesIO(data))
        return picture
    except Exception as error:  # whatever libheif says
        raise DamagedError(" ".join(str(error).split())) from error


def values_of(picture: PILImage.Image) -> Values:
    """Its pixels, uint8 [H, W, 3]. Errors: DamagedError, TooLargeError."""
    try:
        picture.load()
        return Values(np.array(picture.convert("RGB")), 255)
    except MemoryError as error:
        raise TooLargeError("more pixels than this machine has memory for") from error
    except Exception as error:  # whatever libheif says
        raise DamagedError(" ".join(str(error).split())) from error
