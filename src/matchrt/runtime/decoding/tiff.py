"""TIFF: the pixels of the first page, from its strips or tiles.

Pillow reads few of the kinds of pixels that TIFF has, and some of them wrongly (16 bits in planes, 16 bits with white
as zero). So the pixels are put together here. Where a compression needs libtiff, Pillow's own copy does it: each
strip is given to it as an image of bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from matchrt.runtime.decoding.failures import DamagedError, TooLargeError, UnreadError
from matchrt.runtime.decoding.source import Source
from matchrt.runtime.decoding.tiff_tags import Page
from matchrt.runtime.decoding.values import Values

Array = npt.NDArray[Any]
# A JPEG file as uint8 [H, W] or [H, W, C].
DecodeJpeg = Callable[[bytes], npt.NDArray[np.uint8]]
# A TIFF file as uint8 [H, W]: libtiff's decompression.
DecodeBytes = Callable[[bytes], npt.NDArray[np.uint8]]

_MOST_PIXEL_BYTES = 64
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INKS, _YCBCR = 0, 1, 2, 3, 5, 6
_JPEG = 7
_DEFLATE = (8, 32946)
_BY_LIBTIFF = (5, 32773, 34925, 50000)
_BYTES = (1, *_DEFLATE, *_BY_LIBTIFF)
_UINTS = {8: "u1", 16: "u2", 32: "u4", 64: "u8"}
_LONGEST_STRIP_GROWTH = 4096  # PackBits and LZW make noise a little longer


@dataclass(frozen=True)
class _Layout:
    """Where pixels are.

    rows, columns: of a strip or tile.
    tiled: whether there are tiles.
    planes: how many bands are stored apart; 1 if they are together.
    bands: of one strip or tile.
    offsets, counts: where each strip or tile starts, and its bytes.
    """

    rows: int
    columns: int
    tiled: bool
    planes: int
    bands: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...] | None

    def blocks(self, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
        """(number, plane, first row, first column) of all blocks."""
        number = 0
        for plane in range(self.planes):
            for row in range(0, height, self.rows):
                for column in range(0, width, self.columns):
                    yield number, plane, row, column
                    number += 1


def is_read_here(page: Page) -> bool:
    """Whether `read_pixels` knows these pixels or has a name for them. The rest (fax, old JPEG) is Pillow's."""
    return page.compression not in (2, 3, 4, 6)


def read_pixels(source: Source, page: Page, decode_jpeg: DecodeJpeg, decode_bytes: DecodeBytes) -> Values:
    """The pixels of a page. Errors: DamagedError, UnreadError, TooLargeError, image-unreadable."""
    _require_known(page)
    if page.compression == _JPEG:
        # The decoder makes RGB of YCbCr.
        stored = _assemble(source, page, np.dtype(np.uint8), lambda data, _: _jpeg(data, page, decode_jpeg))
        return _meaning(stored, page, _RGB if page.photometric == _YCBCR else page.photometric)
    dtype = _dtype(page)
    stored = _assemble(source, page, dtype, lambda data, shape: _block(data, shape, page, dtype, decode_bytes))
    return _meaning(stored, page, page.photometric)


def _require_known(page: Page) -> None:
    bits, bands, kind, photometric = page.bits, page.bands, page.sample_format, page.photometric
    extra = page.values.get(338, ())
    colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _PALETTE: 1, _RGB: 3, _INKS: 4, _YCBCR: 3}.get(photometric)
    known = (
        colours is not None
        and bands >= colours
        and (photometric == _RGB or bands == colours or (bands == colours + 1 and extra[:1] in ((1,), (2,))))
        and page.compression in (*_BYTES, _JPEG)
        and page.one(284, 1) in (1, 2)
    )
    if page.compression == _JPEG:
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


# ---------------------------------------------------------------------------------------------- strips and tiles


def _layout(page: Page) -> _Layout:
    tiled = 324 in page.values or 322 in page.values
    apart = page.one(284, 1) == 2 and page.bands > 1
    planes, bands = (page.bands, 1) if apart else (1, page.bands)
    if tiled:
        rows, columns = page.one(323), page.one(322)
        offsets, counts = page.values.get(324) or page.values.get(273), page.values.get(325) or page.values.get(279)
    else:
        rows, columns = min(page.one(278, page.height), page.height), page.width
        offsets, counts = page.values.get(273), page.values.get(279)
    if not offsets or rows < 1 or columns < 1:
        raise DamagedError("it does not say where its pixels are")
    if tiled and rows * columns > 4 * page.height * page.width + (1 << 22):
        raise TooLargeError(f"tiles of {columns} x {rows} pixels")
    return _Layout(rows, columns, tiled, planes, bands, offsets, counts)


def _assemble(
    source: Source, page: Page, dtype: np.dtype[Any], decode: Callable[[bytes, tuple[int, int, int]], Array]
) -> Array:
    """All bands of all pixels, [H, W, bands], in the file's meaning."""
    layout = _layout(page)
    height, width = page.height, page.width
    down, across = -(-height // layout.rows), -(-width // layout.columns)
    needed = down * across * layout.planes
    if len(layout.offsets) < needed:
        raise DamagedError(f"{needed - len(layout.offsets):,} of its {needed:,} parts are missing")
    pixels = np.empty((height, width, page.bands), dtype)
    for number, plane, row, column in layout.blocks(height, width):
        rows = layout.rows if layout.tiled else min(layout.rows, height - row)
        shape = (rows, layout.columns, layout.bands)
        data = source.exactly(layout.offsets[number], _length(page, layout, number, shape))
        block = decode(data, shape)
        if block.shape[0] < min(rows, height - row) or block.shape[1:] != shape[1:]:
            raise DamagedError(f"part {number} is {block.shape[1]} x {block.shape[0]} pixels")
        target = pixels[row : row + rows, column : column + layout.columns, plane : plane + layout.bands]
        target[...] = block[: target.shape[0], : target.shape[1]]
    return pixels


def _length(page: Page, layout: _Layout, number: int, shape: tuple[int, int, int]) -> int:
    """Bytes of a block in the file."""
    plain = shape[0] * _row_bytes(page, shape)
    counts = layout.counts
    if page.compression == 1 and (counts is None or len(layout.offsets) == 1):
        return plain  # a wrong length of a single strip is common, and nothing depends on it
    if counts is None or number >= len(counts):
        raise DamagedError("it does not say how long its parts are")
    if page.compression == 1:
        if counts[number] < plain:
            raise DamagedError(f"part {number} has {counts[number]:,} of {plain:,} bytes")
        return plain
    return min(counts[number], 2 * plain + _LONGEST_STRIP_GROWTH)


def _row_bytes(page: Page, shape: tuple[int, int, int]) -> int:
    return -(-shape[1] * shape[2] * page.bits // 8)


# --------------------------------------------------------------------------------------------------- one block


def _block(
    data: bytes, shape: tuple[int, int, int], page: Page, dtype: np.dtype[Any], decode_bytes: DecodeBytes
) -> Array:
    """One strip or tile, [rows, columns, bands], in native byte order."""
    row_bytes = _row_bytes(page, shape)
    if page.one(266, 1) == 2:
        data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")).tobytes()
    raw = _decompressed(data, page.compression, shape[0], row_bytes, decode_bytes)
    rows = np.frombuffer(raw, np.uint8).reshape(shape[0], row_bytes)
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


def _decompressed(data: bytes, compression: int, rows: int, row_bytes: int, decode_bytes: DecodeBytes) -> bytes:
    size = rows * row_bytes
    if compression == 1:
        return data
    if compression in _DEFLATE:
        try:
            raw = zlib.decompressobj().decompress(data, size)
        except zlib.error as error:
            raise DamagedError(f"its data cannot be inflated: {error}") from error
        if len(raw) < size:
            raise DamagedError(f"a part has {len(raw):,} of {size:,} bytes")
        return raw
    return decode_bytes(_tiff_of_bytes(data, compression, rows, row_bytes)).tobytes()


def _tiff_of_bytes(data: bytes, compression: int, rows: int, columns: int) -> bytes:
    """A TIFF file of one strip, 8 bits a pixel, whose pixels are the decompressed bytes."""
    tags = [(256, columns), (257, rows), (258, 8), (259, compression), (262, 1), (273, 0), (277, 1), (278, rows)]
    tags.append((279, len(data)))
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


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
