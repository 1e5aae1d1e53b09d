"""WebP and the files of boxes (AVIF, HEIF, JPEG 2000): where they end, so that no more than them is read."""

from __future__ import annotations

import struct

from matchrt.runtime.decoding.failures import DamagedError, TooLargeError
from matchrt.runtime.decoding.source import Source

_MOST_BOXES = 4096


def read_webp(source: Source, most: int) -> bytes:
    """The RIFF file alone. most: bytes. Errors: DamagedError, TooLargeError, image-unreadable."""
    head = source.exactly(0, 12)
    length = 8 + int.from_bytes(head[4:8], "little")
    _require_less(length, most)
    return source.exactly(0, length)


def webp_size(source: Source) -> tuple[int, int]:
    """(height, width) of a WebP file, from its header. Errors: DamagedError, image-unreadable."""
    head = source.exactly(0, 30)
    kind = head[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(head[24:27], "little")
        return 1 + int.from_bytes(head[27:30], "little"), width
    if kind == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[26:30])
        return height & 0x3FFF, width & 0x3FFF
    raise DamagedError("its first chunk is no picture")


def webp_chunk(data: bytes, wanted: bytes) -> bytes:
    """The content of a chunk of a WebP file, such as `EXIF`; empty if there is none. Raises nothing."""
    position = 12
    for _ in range(_MOST_BOXES):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if len(kind) < 4:
            break
        if kind == wanted:
            return data[position + 8 : position + 8 + length]
        position += 8 + length + (length & 1)
    return b""


def read_boxes(source: Source, most: int) -> bytes:
    """The file up to the end of its last box. most: bytes. Errors: DamagedError, TooLargeError, image-unreadable."""
    position = 0
    for _ in range(_MOST_BOXES):
        head = source.read(position, 16)
        if len(head) < 8 or not head[4:8].strip(b"\0"):
            break
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = source.size - position
        if length < 8:
            break
        position += length
        if position >= source.size:
            break
    position = min(position, source.size)
    _require_less(position, most)
    return source.exactly(0, position)


def _require_less(length: int, most: int) -> None:
    if length > most:
        raise TooLargeError(f"{length / 1e6:,.0f} MB; {most / 1e6:,.0f} MB are read")
