"""GIF: the first frame alone, found block by block. What follows it is never read."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from matchrt.runtime.decoding.failures import DamagedError, TooLargeError
from matchrt.runtime.decoding.source import Source

_LONGEST_BEFORE = 1 << 20
_PIECE = 1 << 20


@dataclass(frozen=True)
class GifFrame:
    """The first frame.

    height, width: of the picture, pixels.
    data: a GIF of this frame alone; empty if no pixels were asked for.
    """

    height: int
    width: int
    data: bytes


def read_gif(source: Source, pixels: bool = True) -> GifFrame:
    """The first frame of a GIF file. pixels: False reads no pixels, and `data` is empty.

    Errors: DamagedError, TooLargeError, image-unreadable.
    """
    start = source.exactly(0, 13)
    screen_width, screen_height, flags = struct.unpack("<HHB", start[6:11])
    position = 13 + _table(flags)
    head = source.exactly(0, position)
    position = _skip_extensions(source, position)
    descriptor = source.exactly(position, 10)
    left, top, width, height, frame_flags = struct.unpack("<HHHHB", descriptor[1:])
    if not width or not height:
        raise DamagedError("its first frame has no pixels")
    # Some programs leave the screen's size out. Where it is given, every frame is within it (GIF89a, 20).
    if screen_width and screen_height and (left + width > screen_width or top + height > screen_height):
        raise DamagedError(f"its first frame of {width} x {height} is not within {screen_width} x {screen_height}")
    picture_height, picture_width = max(screen_height, top + height), max(screen_width, left + width)
    if not pixels:
        return GifFrame(picture_height, picture_width, b"")
    table = source.exactly(position + 10, _table(frame_flags) + 1)  # with the least bits of a code
    # A code takes 12 bits at most, and each stands for a pixel or more.
    most = 2 * width * height + _LONGEST_BEFORE
    blocks = _blocks(source, position + 10 + len(table), most)
    return GifFrame(picture_height, picture_width, b"".join((head, descriptor, table, blocks, b";")))


def _table(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_extensions(source: Source, position: int) -> int:
    first = position
    while position - first < _LONGEST_BEFORE:
        kind = source.exactly(position, 1)
        if kind == b",":
            return position
        if kind != b"!":
            raise DamagedError("it has no frame" if kind == b";" else "a block of an unknown kind is before its frame")
        position += 2 + len(_blocks(source, position + 2, _LONGEST_BEFORE))
    raise TooLargeError(f"more than {_LONGEST_BEFORE >> 20} MiB before its first frame")


def _blocks(source: Source, start: int, most: int) -> bytes:
    """Sub-blocks with the empty one that ends them."""
    data = source.read(start, min(most, _PIECE))
    position = 0
    while position < len(data):
        length = data[position]
        position += 1 + length
        if length == 0:
            return data[:position]
        if position >= len(data):
            more = source.read(start + len(data), min(max(len(data), 1), most - len(data)))
            data += more
    raise DamagedError("its data have no end" if len(data) >= most else "it ends within a block")
