"""PNG: the chunks that decide about pixels, with their checksums, and whether all rows have data.

The decoder gets a file of these chunks alone. Colour profiles, texts, frames of animations and what stands behind the
image are never read, so they cannot cost anything.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from matchrt.runtime.decoding.failures import DamagedError, TooLargeError
from matchrt.runtime.decoding.source import Source

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# More chunks only if the image is so large that they have 4 kB each.
_MOST_CHUNKS = 1 << 16
_MOST_METADATA = 1 << 20
_BUFFER = 1 << 20

# What texts hold an EXIF orientation: those of ImageMagick, and XMP.
_EXIF_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# First column, first row and their steps, of the seven passes of an interlaced image.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True)
class PngHeader:
    """What the chunk IHDR says.

    width, height: pixels.
    depth: bits of a channel.
    colour: PNG's number of the colour type.
    interlaced: whether pixels come in seven passes.
    """

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the image when it is inflated: one more in each row, for the filter."""
        bits = self.depth * _CHANNELS[self.colour]
        if not self.interlaced:
            return self.height * (1 + -(-self.width * bits // 8))
        total = 0
        for column, row, across, down in _PASSES:
            columns, rows = -(-(self.width - column) // across), -(-(self.height - row) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + -(-columns * bits // 8))
        return total


def png_header(source: Source) -> PngHeader:
    """The header of a PNG file. Errors: DamagedError, image-unreadable."""
    data = source.exactly(0, 33)
    if data[:16] != _SIGNATURE + b"\0\0\0\rIHDR" or zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        raise DamagedError("its header is damaged")
    width, height, depth, colour, method, filtering, interlace = struct.unpack(">IIBBBBB", data[16:29])
    valid = colour in _CHANNELS and depth in _DEPTHS[colour] and method == filtering == 0 and interlace <= 1
    if not valid or not 0 < width < 1 << 31 or not 0 < height < 1 << 31:
        raise DamagedError("its header has values that do not exist")
    return PngHeader(width, height, depth, colour, interlace == 1)


def read_png(source: Source, pixels: bool = True) -> bytes:
    """A PNG file of the chunks that the decoder needs. pixels: False gives metadata in their place.

    Errors: DamagedError (a chunk that is cut off, a checksum that is wrong, too many bytes), TooLargeError,
    image-unreadable.
    """
    header = png_header(source)
    most, most_chunks = _longest(header), _MOST_CHUNKS + (header.pixel_bytes >> 12)
    kept, metadata, stored = [source.read(0, 33)], 0, 0
    position = 33
    for _ in range(most_chunks):
        start = source.exactly(position, 8)
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        if kind == b"IEND":
            break
        if kind in (b"IDAT", b"PLTE", b"tRNS") and (pixels or kind != b"IDAT"):
            stored += length
            if stored > most:
                raise DamagedError("it has more data than pixels")
            kept.append(_checked(source, position, length))
        elif not pixels and metadata + length <= _MOST_METADATA and _is_metadata(source, position, length, kind):
            metadata += length
            kept.append(source.exactly(position, length + 12))
        elif position + length + 12 > source.size or not kind.isalpha() or (kind[0] < 0x61 and kind != b"IDAT"):
            raise DamagedError(f"it has a chunk {kind!r} of {length:,} bytes at byte {position:,}")
        position += length + 12
    else:
        raise TooLargeError(f"more than {most_chunks:,} chunks")
    kept.append(struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")))
    return b"".join(kept)


def require_all_rows(data: bytes) -> None:
    """Inflates the pixels of a file that `read_png` made, and counts them. Error: DamagedError if some are missing."""
    header = png_header(Source.of(data, "PNG"))
    left, position = header.pixel_bytes, 33
    inflater = zlib.decompressobj()
    while left > 0 and not inflater.eof and position < len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        waiting = data[position + 8 : position + 8 + length] if kind == b"IDAT" else b""
        while waiting and left > 0 and not inflater.eof:
            try:
                left -= len(inflater.decompress(waiting, min(_BUFFER, left)))
            except zlib.error as error:
                raise DamagedError(f"its data cannot be inflated: {error}") from error
            waiting = inflater.unconsumed_tail
        position += length + 12
    if left > 0:
        raise DamagedError(f"it has {header.pixel_bytes - left:,} of {header.pixel_bytes:,} bytes of pixels")


def _longest(header: PngHeader) -> int:
    """The most bytes that its data may have: stored ones may be a little more than inflated ones."""
    return header.pixel_bytes + (header.pixel_bytes >> 6) + _BUFFER


def _checked(source: Source, position: int, length: int) -> bytes:
    """A chunk with its length and checksum."""
    chunk = source.exactly(position, length + 12)
    if zlib.crc32(memoryview(chunk)[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        raise DamagedError(f"the checksum of a chunk {chunk[4:8].decode('latin-1')} is wrong")
    return chunk


def _is_metadata(source: Source, position: int, length: int, kind: bytes) -> bool:
    """Whether a chunk may hold the EXIF orientation."""
    if kind == b"eXIf":
        return True
    return kind in (b"tEXt", b"zTXt", b"iTXt") and source.read(position + 8, 22).startswith(_EXIF_TEXTS)
