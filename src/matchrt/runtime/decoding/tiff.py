"""TIFF: the pixels of the first page, from its strips or tiles.

Pillow reads few of the kinds of pixels that TIFF has, and some of them wrongly (16 bits in planes, 16 bits with white
as zero). So the pixels are put together here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from matchrt.runtime.decoding.failures import DamagedError, TooLargeError, UnreadError
from matchrt.runtime.decoding.source import Source
from matchrt.runtime.decoding.tiff_parts import BYTES, JPEG, DecodeBytes, Part, stored_parts, unpacked_parts
from matchrt.runtime.decoding.tiff_tags import Page
from matchrt.runtime.decoding.values import Values

Array = npt.NDArray[Any]
# A JPEG file as uint8 [H, W] or [H, W, C].
DecodeJpeg = Callable[[bytes], npt.NDArray[np.uint8]]

_MOST_PIXEL_BYTES = 64
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INKS, _YCBCR = 0, 1, 2, 3, 5, 6
_UINTS = {8: "u1", 16: "u2", 32: "u4", 64: "u8"}


def is_read_here(page: Page) -> bool:
    """Whether `read_pixels` knows these pixels or has a name for them. The rest (fax, old JPEG) is Pillow's."""
    return page.compression not in (2, 3, 4, 6)


def read_pixels(source: Source, page: Page, decode_jpeg: DecodeJpeg, decode_bytes: DecodeBytes) -> Values:
    """The pixels of a page. Errors: DamagedError, UnreadError, TooLargeError, image-unreadable."""
    _require_known(page)
    if page.compression == JPEG:
        # The decoder makes RGB of YCbCr.
        parts = stored_parts(source, page)
        stored = _assemble(page, parts, np.dtype(np.uint8), lambda data, _: _jpeg(data, page, decode_jpeg))
        return _meaning(stored, page, _RGB if page.photometric == _YCBCR else page.photometric)
    dtype = _dtype(page)
    unpacked = unpacked_parts(source, page, decode_bytes)
    stored = _assemble(page, unpacked, dtype, lambda rows, part: _block(rows, part, page, dtype))
    return _meaning(stored, page, page.photometric)


def _require_known(page: Page) -> None:
    bits, bands, kind, photometric = page.bits, page.bands, page.sample_format, page.photometric
    extra = page.values.get(338, ())
    colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _PALETTE: 1, _RGB: 3, _INKS: 4, _YCBCR: 3}.get(photometric)
    known = (
        colours is not None
        and bands >= colours
        and (photometric == _RGB or bands == colours or (bands == colours + 1 and extra[:1] in ((1,), (2,))))
        and page.compression in (*BYTES, JPEG)
        and page.one(284, 1) in (1, 2)
    )
    if page.compression == JPEG:
        known = known and bits == 8 and kind == 1 and page.one(284, 1) == 1 and photometric != _PALETTE
        known = known and bands != 2 and photometric != _WHITE_IS_ZERO
    elif kind in (2, 3):
        known = known and bits in (16, 32, 64) and photometric in (_BLACK_IS_ZERO, _RGB)
    else:
        known = known and kind == 1 and (1 <= bits <= 16 or bits in (32, 64))
        known = known and (bits == 8 or photometric not in (_INKS, _YCBCR))
        known = known and (bits <= 16 or photometric in (_BLACK_IS_ZERO, _RGB))
        known = known and (photometric != _YCBCR or page.values.get(530) == (1, 1))
    if not known:
        raise UnreadError(page.describe())
    predictor = page.one(317, 1)
    if predictor not in (1, 2, 3) or (predictor == 2 and bits not in _UINTS) or (predictor == 3 and kind != 3):
        raise UnreadError(f"{page.describe()} with predictor {predictor}")
    if bands * bits > 8 * _MOST_PIXEL_BYTES:
        raise TooLargeError(f"{bands} bands of {bits} bits a pixel")


def _dtype(page: Page) -> np.dtype[Any]:
    """Of the samples in native byte order. Packed bits become uint8 or uint16."""
    if page.sample_format == 3:
        return np.dtype(f"f{page.bits // 8}")
    if page.sample_format == 2:
        return np.dtype(f"i{page.bits // 8}")
    return np.dtype(_UINTS.get(page.bits) or ("u1" if page.bits < 8 else "u2"))


# --------------------------------------------------------------------------------------------------- parts


def _assemble(
    page: Page, parts: Iterator[tuple[Part, Any]], dtype: np.dtype[Any], decode: Callable[[Any, Part], Array]
) -> Array:
    """All bands of all pixels, [H, W, bands], in the file's meaning."""
    pixels = np.empty((page.height, page.width, page.bands), dtype)
    for part, data in parts:
        block = decode(data, part)
        target = pixels[
            part.row : part.row + part.rows,
            part.column : part.column + part.columns,
            part.plane : part.plane + part.bands,
        ]
        if block.shape[0] < target.shape[0] or block.shape[1] < target.shape[1] or block.shape[2] != part.bands:
            raise DamagedError(f"a part is {block.shape[1]} x {block.shape[0]} pixels")
        target[...] = block[: target.shape[0], : target.shape[1]]
    return pixels


def _block(rows: npt.NDArray[np.uint8], part: Part, page: Page, dtype: np.dtype[Any]) -> Array:
    """One strip or tile, [rows, columns, bands], in native byte order, from its bytes [rows, bytes]."""
    shape = (part.rows, part.columns, part.bands)
    predictor = page.one(317, 1) if page.compression not in (1, 32773) else 1
    if predictor == 3:
        return _undo_float_predictor(rows, shape, dtype)
    if page.bits not in _UINTS:
        return _unpacked(rows, shape, page.bits).astype(dtype)
    stored = rows.view(np.dtype(_UINTS[page.bits]).newbyteorder(page.order)).reshape(shape)
    native: Array = stored.astype(stored.dtype.newbyteorder("="))
    if predictor == 2:
        native = np.add.accumulate(native, axis=1, dtype=native.dtype)
    return np.asarray(native.view(dtype))


def _undo_float_predictor(rows: npt.NDArray[np.uint8], shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
    """Adobe's predictor 3: the bytes of a row by significance, and each less the one before it."""
    height, columns, bands = shape
    steps = rows.reshape(height, -1, bands)
    summed = np.add.accumulate(steps, axis=1, dtype=np.uint8).reshape(height, dtype.itemsize, columns * bands)
    big = np.ascontiguousarray(summed.swapaxes(1, 2)).view(dtype.newbyteorder(">"))
    return np.asarray(big.reshape(shape), dtype)


def _unpacked(rows: npt.NDArray[np.uint8], shape: tuple[int, int, int], bits: int) -> Array:
    """Samples of 1 to 15 bits, the highest bit first; each row starts at a byte."""
    single = np.unpackbits(rows, axis=1, count=shape[1] * shape[2] * bits).reshape(-1, bits)
    values = np.zeros(len(single), np.uint16)
    for column in range(bits):
        values <<= 1
        values |= single[:, column]
    return values.reshape(shape)


def _jpeg(data: bytes, page: Page, decode_jpeg: DecodeJpeg) -> Array:
    """A strip that is a JPEG without its tables, and without a word on what its channels are."""
    tables = bytes(page.values.get(347, ()))
    if data[:2] != b"\xff\xd8":
        raise DamagedError("a part is no JPEG")
    # Adobe's marker tells the decoder whether the channels are YCbCr.
    transform = 1 if page.photometric == _YCBCR else 0
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) if page.bands == 3 else b""
    pixels = decode_jpeg(b"\xff\xd8" + adobe + tables[2:-2] + data[2:])
    if pixels.ndim == 2:
        return pixels[:, :, None]
    return np.subtract(255, pixels, dtype=np.uint8) if pixels.shape[2] == 4 else pixels  # Pillow takes four for inks


# --------------------------------------------------------------------------------------------------- meaning


def _meaning(stored: Array, page: Page, photometric: int) -> Values:
    """Bands as grey or RGB values."""
    white = float((1 << page.bits) - 1)
    if photometric == _PALETTE:
        return Values(_coloured(stored[:, :, 0], page), 255)
    if photometric in (_INKS, _YCBCR):
        mode, bands = ("CMYK", 4) if photometric == _INKS else ("YCbCr", 3)
        raw = np.ascontiguousarray(stored[:, :, :bands])
        picture = PILImage.frombytes(mode, (page.width, page.height), raw.tobytes())
        return Values(np.array(picture.convert("RGB")), 255)
    colours = stored[:, :, :3] if photometric == _RGB else stored[:, :, 0]
    if photometric == _WHITE_IS_ZERO:
        colours = np.subtract((1 << page.bits) - 1, colours, dtype=colours.dtype)
    if page.sample_format == 3:
        return Values(colours, 1.0)
    if page.bits > 16:
        return Values(colours, 65535.0)
    return Values(colours, (white - 1) / 2 if page.sample_format == 2 else white)


def _coloured(indices: Array, page: Page) -> npt.NDArray[np.uint8]:
    table = page.values.get(320, ())
    count = 1 << page.bits
    if len(table) < 3 * count:
        raise DamagedError("its palette is missing or too short")
    palette = np.array(table[: 3 * count], np.uint16).reshape(3, count).T
    # Some programs write palettes of 8 bits.
    shown: npt.NDArray[np.uint8] = (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)
    return np.asarray(shown[indices], np.uint8)
