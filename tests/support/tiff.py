"""Writes TIFF files of kinds that Pillow does not write."""

import struct
import zlib

import numpy as np

_CODES = {"H": 3, "I": 4, "Q": 16, "B": 7}


def tiff(
    values,
    photometric,
    *,
    order="<",
    big=False,
    planar=False,
    tile=None,
    rows=None,
    deflate=False,
    predictor=1,
    bits=None,
    extra=(),
    drop=0,
    colours=None,
    orientation=None,
):
    """A TIFF file. values: [H, W] or [H, W, bands], unsigned, signed or float.

    photometric: 0 white is zero, 1 black is zero, 2 RGB, 3 palette. tile: (rows, columns), multiples of 16.
    rows: of a strip. predictor: 1 none, 2 differences, 3 floats. bits: of packed samples, below 16.
    extra: the tag ExtraSamples. drop: how many of the last strips or tiles are left out. colours: of the palette.
    """
    cube = values[:, :, None] if values.ndim == 2 else values
    height, width, bands = cube.shape
    sample_bits = bits or 8 * cube.dtype.itemsize
    blocks = []
    for plane in np.split(cube, bands, 2) if planar else [cube]:
        for block in _blocks(plane, tile or (rows or height, width), padded=tile is not None):
            raw = _packed(block, bits) if bits else _predicted(block, predictor, order)
            blocks.append(zlib.compress(raw) if deflate else raw)
    if drop:
        blocks = blocks[:-drop]
    kind = {"u": 1, "i": 2, "f": 3}[cube.dtype.kind]
    word = "Q" if big else "I"
    tags = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [sample_bits] * bands),
        (259, "H", [8 if deflate else 1]),
        (262, "H", [photometric]),
        (277, "H", [bands]),
        (284, "H", [2 if planar else 1]),
        (339, "H", [kind] * bands),
    ]
    tags += [(274, "H", [orientation])] if orientation else []
    tags += [(317, "H", [predictor])] if predictor != 1 else []
    tags += [(320, "H", list(colours))] if colours is not None else []
    tags += [(338, "H", list(extra))] if extra else []
    where, lengths = ((324, 325) if tile else (273, 279)), [len(block) for block in blocks]
    tags += [(322, "I", [tile[1]]), (323, "I", [tile[0]])] if tile else [(278, "I", [rows or height])]
    head = 16 if big else 8
    starts = [head + sum(lengths[:index]) for index in range(len(blocks))]
    tags += [(where[0], word, starts), (where[1], word, lengths)]
    return _file(b"".join(blocks), sorted(tags), order, big)


def _file(pixels, tags, order, big):
    word, head = ("Q", 16) if big else ("I", 8)
    start = head + len(pixels) + (len(pixels) & 1)
    size = struct.calcsize(word)
    entries, beside = b"", b""
    first = start + (8 if big else 2) + len(tags) * (4 + 2 * size) + size
    for tag, code, numbers in tags:
        raw = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(raw) > size:
            raw, beside = struct.pack(order + word, first + len(beside)), beside + raw
        entries += struct.pack(f"{order}HH{word}", tag, _CODES[code], len(numbers)) + raw.ljust(size, b"\0")
    mark = b"II" if order == "<" else b"MM"
    header = mark + (struct.pack(f"{order}HHHQ", 43, 8, 0, start) if big else struct.pack(f"{order}HI", 42, start))
    table = struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + bytes(size)
    return header + pixels.ljust(start - head, b"\0") + table + beside


def _blocks(plane, size, padded):
    for row in range(0, plane.shape[0], size[0]):
        for column in range(0, plane.shape[1], size[1]):
            block = plane[row : row + size[0], column : column + size[1]]
            if padded:
                block = np.pad(block, ((0, size[0] - block.shape[0]), (0, size[1] - block.shape[1]), (0, 0)))
            yield block


def _packed(block, bits):
    shifts = np.arange(bits - 1, -1, -1)
    each = (block.reshape(len(block), -1, 1).astype(np.uint32) >> shifts & 1).astype(np.uint8)
    return np.packbits(each.reshape(len(block), -1), axis=1).tobytes()


def _predicted(block, predictor, order):
    stored = block.dtype.newbyteorder(order)
    if predictor == 2:
        whole = np.ascontiguousarray(block).view(f"u{block.dtype.itemsize}")
        return (
            np.concatenate([whole[:, :1], whole[:, 1:] - whole[:, :-1]], axis=1)
            .astype(np.dtype(f"u{block.dtype.itemsize}").newbyteorder(order))
            .tobytes()
        )
    if predictor == 3:
        height, width, bands = block.shape
        big = np.ascontiguousarray(block.astype(block.dtype.newbyteorder(">"))).view(np.uint8)
        planes = big.reshape(height, width * bands, block.dtype.itemsize).swapaxes(1, 2).reshape(height, -1, bands)
        return np.concatenate([planes[:, :1], planes[:, 1:] - planes[:, :-1]], axis=1).tobytes()
    return block.astype(stored).tobytes()
