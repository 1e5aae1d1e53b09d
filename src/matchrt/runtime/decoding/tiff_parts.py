"""TIFF: the strips or tiles of a page, and the bytes that they unpack to.

Where a compression needs libtiff, Pillow's own copy does it: strips are given to it as an image of bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from matchrt.runtime.decoding.failures import DamagedError, TooLargeError
from matchrt.runtime.decoding.source import Source
from matchrt.runtime.decoding.tiff_tags import Page

UInt8Array = npt.NDArray[np.uint8]
# A TIFF file as uint8 [H, W]: libtiff's decompression.
DecodeBytes = Callable[[bytes], UInt8Array]

JPEG = 7
_DEFLATE = (8, 32946)
_BY_LIBTIFF = (5, 32773, 34925, 50000)
# Compressions of bytes, which know nothing of pixels.
BYTES = (1, *_DEFLATE, *_BY_LIBTIFF)

# Fax codes of short runs: without ends of lines, and with them, after which group 3 looks for its place.
_RUNS = bytes.fromhex("5ac31e9647b2086d39d2710f8ca54be6a13c74e90bd25f861ac763b84e057d92") * 4
_LINES = [int("0" * 11 + "11" + "100011" * 40, 2).to_bytes(32, "big")] * 16
_BEHIND = _RUNS + b"".join(_LINES)

_MOST_PARTS = 1 << 17
_MOST_JPEGS = 1 << 13
_AT_ONCE = 512
_SPARE_PIXELS = 1 << 22
_LONGEST_GROWTH = 4096  # with eight times the bytes: fax codes of noise are 4.5 times as long, others less


@dataclass(frozen=True)
class Part:
    """A strip or tile.

    row, column: of its first pixel.
    plane: its first band.
    rows, columns, bands: its size. Tiles may reach beyond the image.
    row_bytes: of one of its rows, unpacked.
    """

    row: int
    column: int
    plane: int
    rows: int
    columns: int
    bands: int
    row_bytes: int


def stored_parts(source: Source, page: Page) -> Iterator[tuple[Part, bytes]]:
    """All strips or tiles as they are stored. Errors: DamagedError also if some are missing; TooLargeError."""
    tiled = 324 in page.values or 322 in page.values
    height, width = page.height, page.width
    if tiled:
        rows, columns = page.one(323), page.one(322)
        offsets, counts = page.values.get(324) or page.values.get(273), page.values.get(325) or page.values.get(279)
    else:
        rows, columns = min(page.one(278, height), height), width
        offsets, counts = page.values.get(273), page.values.get(279)
    if not offsets or rows < 1 or columns < 1:
        raise DamagedError("it does not say where its pixels are")
    apart = page.one(284, 1) == 2 and page.bands > 1
    planes, bands = (page.bands, 1) if apart else (1, page.bands)
    needed = -(-height // rows) * -(-width // columns) * planes
    if needed > (_MOST_JPEGS if page.compression == JPEG else _MOST_PARTS):
        raise TooLargeError(f"{needed:,} parts")
    if tiled and needed * rows * columns > planes * (4 * height * width + _SPARE_PIXELS):
        raise TooLargeError(f"tiles of {columns} x {rows} pixels")
    if len(offsets) < needed:
        raise DamagedError(f"{needed - len(offsets):,} of its {needed:,} parts are missing")
    row_bytes = -(-columns * bands * page.bits // 8)
    number = 0
    for plane in range(planes):
        for row in range(0, height, rows):
            for column in range(0, width, columns):
                part = Part(row, column, plane, rows if tiled else min(rows, height - row), columns, bands, row_bytes)
                yield part, source.exactly(offsets[number], _length(page, part, counts, number, len(offsets)))
                number += 1


def _length(page: Page, part: Part, counts: tuple[int, ...] | None, number: int, parts: int) -> int:
    """Bytes of a part in the file."""
    plain = part.rows * part.row_bytes
    if page.compression == 1 and parts == 1 and (counts is None or counts[:1] == (0,)):
        return plain  # some programs leave out how long their single strip is
    if counts is None or number >= len(counts):
        raise DamagedError("it does not say how long its parts are")
    if page.compression == 1:
        if counts[number] < plain:
            raise DamagedError(f"part {number} has {counts[number]:,} of {plain:,} bytes")
        return plain
    return min(counts[number], 8 * plain + _LONGEST_GROWTH)


def unpacked_parts(source: Source, page: Page, decode_bytes: DecodeBytes) -> Iterator[tuple[Part, UInt8Array]]:
    """All strips or tiles with their bytes, uint8 [rows, row_bytes]. Errors: those of `stored_parts`."""
    waiting: list[tuple[Part, bytes]] = []
    for part, stored in stored_parts(source, page):
        data = _bits_reversed(stored) if page.one(266, 1) == 2 else stored
        if page.compression not in _BY_LIBTIFF:
            raw = data if page.compression == 1 else _inflated(data, part.rows * part.row_bytes)
            yield part, np.frombuffer(raw, np.uint8).reshape(part.rows, part.row_bytes)
            continue
        # Only the last strip of a file may be shorter than the others; a plane ends with such a strip.
        if waiting and (len(waiting) == _AT_ONCE or part.rows > waiting[-1][0].rows):
            yield from _by_libtiff(waiting, page.compression, decode_bytes)
            waiting = []
        waiting.append((part, data))
    if waiting:
        yield from _by_libtiff(waiting, page.compression, decode_bytes)


def _bits_reversed(data: bytes) -> bytes:
    return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")).tobytes()


def _inflated(data: bytes, size: int) -> bytes:
    try:
        raw = zlib.decompressobj().decompress(data, size)
    except zlib.error as error:
        raise DamagedError(f"its data cannot be inflated: {error}") from error
    if len(raw) < size:
        raise DamagedError(f"a part has {len(raw):,} of {size:,} bytes")
    return raw


def _by_libtiff(
    parts: list[tuple[Part, bytes]], compression: int, decode_bytes: DecodeBytes
) -> Iterator[tuple[Part, UInt8Array]]:
    unpacked = decode_bytes(_tiff_of_bytes(parts, compression))
    row = 0
    for part, _ in parts:
        yield part, unpacked[row : row + part.rows]
        row += part.rows


def _tiff_of_bytes(parts: list[tuple[Part, bytes]], compression: int) -> bytes:
    """A TIFF file of the parts as strips, one below the other, 8 bits a pixel: its pixels are their unpacked bytes."""
    first = parts[0][0]
    height = sum(part.rows for part, _ in parts)
    tags = {256: first.row_bytes, 257: height, 258: 8, 259: compression, 262: 1, 277: 1, 278: first.rows}
    return _file_of_strips(tags, [data for _, data in parts])


def fax_files(source: Source, page: Page) -> tuple[bytes, bytes]:
    """A fax page as a file of its own, and the same with other bytes behind each strip.

    libtiff makes white rows of those that a strip lacks. Only these rows differ in the second file. Errors: those of
    `stored_parts`.
    """
    strips = [data for _, data in stored_parts(source, page)]
    tags = {tag: page.one(tag) for tag in (256, 257, 259, 262, 266, 292, 293) if tag in page.values}
    tags |= {258: 1, 277: 1, 278: min(page.one(278, page.height), page.height)}
    return _file_of_strips(tags, strips), _file_of_strips(tags, [data + _BEHIND for data in strips])


def _file_of_strips(tags: Mapping[int, int], strips: list[bytes]) -> bytes:
    count, lengths = len(strips), [len(data) for data in strips]
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    offsets = _sums(start + (8 * count if count > 1 else 0), lengths)
    where, how_long = (offsets[0], lengths[0]) if count == 1 else (start, start + 4 * count)
    rows = sorted([*((tag, 1, value) for tag, value in tags.items()), (273, count, where), (279, count, how_long)])
    entries = b"".join(struct.pack("<HHII", tag, 4, number, value) for tag, number, value in rows)
    tables = struct.pack(f"<{2 * count}I", *offsets, *lengths) if count > 1 else b""
    return b"".join((b"II*\0", struct.pack("<IH", 8, len(rows)), entries, bytes(4), tables, *strips))


def _sums(start: int, lengths: list[int]) -> list[int]:
    """Where each of the parts starts if they stand one after the other."""
    return [start, *accumulate(lengths[:-1], initial=start)][1:] if len(lengths) > 1 else [start]
