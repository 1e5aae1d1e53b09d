"""JPEG 2000: whether all tiles are there. OpenJPEG refuses a tile that is cut off, but not one that is missing."""

from __future__ import annotations

import struct

from matchrt.runtime.decoding.failures import DamagedError

_START = b"\xff\x4f\xff\x51"
_TILE = b"\xff\x90"
_MOST_BOXES = 4096


def require_all_tiles(data: bytes) -> None:
    """Walks the tiles of a codestream or a JP2 file. Error: DamagedError if some are missing."""
    position = _codestream(data)
    size = data[position + 6 : position + 40]
    if len(size) < 34:
        raise DamagedError("it ends in its header")
    _, width, height, _, _, tile_width, tile_height, left, top = struct.unpack(">H8I", size)
    if not tile_width or not tile_height or left >= width or top >= height:
        raise DamagedError("its tiles have no size")
    expected = -(-(width - left) // tile_width) * -(-(height - top) // tile_height)
    position += 2
    while data[position : position + 2] not in (_TILE, b""):
        position += 2 + max(int.from_bytes(data[position + 2 : position + 4], "big"), 2)
    found: set[int] = set()
    while data[position : position + 2] == _TILE and len(data) >= position + 12:
        number, length = struct.unpack(">HI", data[position + 4 : position + 10])
        found.add(number)
        if length < 14:  # 0: up to the end
            break
        position += length
    missing = expected - sum(number < expected for number in found)
    if missing:
        raise DamagedError(f"{missing:,} of its {expected:,} tiles are missing")


def _codestream(data: bytes) -> int:
    """Where the codestream starts: at once, or in the box jp2c."""
    position = 0
    for _ in range(_MOST_BOXES):
        if data[position : position + 4] == _START:
            return position
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        header = 16 if length == 1 else 8
        if length == 1:
            length = int.from_bytes(data[position + 8 : position + 16], "big")
        if kind == b"jp2c":
            position += header
        elif length < 8:
            break
        else:
            position += length
    raise DamagedError("it has no codestream")
