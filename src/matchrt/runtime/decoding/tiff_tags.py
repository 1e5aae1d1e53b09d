"""TIFF: the tags of the first page, of classic files and BigTIFF, in either byte order, and what they say in words."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from matchrt.runtime.decoding.failures import DamagedError, TooLargeError, UnreadError
from matchrt.runtime.decoding.source import Source

_MOST_TAGS = 4096
_MOST_VALUES = 1 << 18

ORIENTATION = 274
# Those that decide about pixels; no other tag is read.
_USED = frozenset(
    (
        256,
        257,
        258,
        259,
        262,
        266,
        273,
        274,
        277,
        278,
        279,
        284,
        292,
        293,
        317,
        320,
        322,
        323,
        324,
        325,
        338,
        339,
        347,
        530,
    )
)
_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}

COMPRESSIONS = {
    1: "no",
    2: "CCITT",
    3: "CCITT fax",
    4: "CCITT fax",
    5: "LZW",
    6: "old JPEG",
    7: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34712: "JPEG 2000",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    50000: "ZSTD",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_PHOTOMETRICS = {
    4: "a mask",
    5: "inks",
    6: "YCbCr",
    8: "CIELAB",
    9: "ICCLAB",
    10: "ITULAB",
    32803: "a camera's raw pixels",
    32844: "LogL",
    32845: "LogLuv",
    34892: "a camera's raw pixels",
}


@dataclass(frozen=True)
class Page:
    """The tags of a page.

    order: struct's sign of the byte order, `<` or `>`.
    values: of the tags that decide about pixels.
    orientation_at: where the value of the tag Orientation stands in the file; None if there is none.
    """

    order: Literal["<", ">"]
    values: Mapping[int, tuple[int, ...]]
    orientation_at: int | None

    def one(self, tag: int, default: int | None = None) -> int:
        """The value of a tag of one value. Error: DamagedError if it is missing and has no default."""
        values = self.values.get(tag)
        if values:
            return values[0]
        if default is None:
            raise DamagedError(f"its tag {tag} is missing")
        return default

    @property
    def height(self) -> int:
        """Stored rows."""
        return self.one(257)

    @property
    def width(self) -> int:
        """Stored columns."""
        return self.one(256)

    @property
    def bands(self) -> int:
        """Samples of a pixel."""
        return self.one(277, 1)

    @property
    def bits(self) -> int:
        """Bits of a sample. Error: UnreadError if they differ."""
        bits = self.values.get(258) or (1,)
        if len(set(bits)) > 1:
            raise UnreadError(f"a TIFF with bands of {', '.join(map(str, bits[:8]))} bits")
        return bits[0]

    @property
    def sample_format(self) -> int:
        """1 unsigned, 2 signed, 3 float, 5 and 6 complex. Error: UnreadError if they differ."""
        kinds = self.values.get(339) or (1,)
        if len(set(kinds)) > 1:
            raise UnreadError("a TIFF with bands of different types")
        return 1 if kinds[0] == 4 else kinds[0]

    @property
    def photometric(self) -> int:
        """What the bands mean: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 inks, 6 YCbCr."""
        return self.one(262, 1)

    @property
    def compression(self) -> int:
        """The number of the compression."""
        return self.one(259, 1)

    @property
    def orientation(self) -> int:
        """The orientation, 1..8."""
        value = self.one(ORIENTATION, 1)
        return value if 1 <= value <= 8 else 1

    def describe(self) -> str:
        """What the page is, in words: `a TIFF of 5 bands of 16 bits`."""
        kind = {2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex numbers"}.get(self.sample_format)
        of = f"of {self.bits}-bit {kind}" if kind else f"of {self.bits} bits"
        bands = f"1 band {of}" if self.bands == 1 else f"{self.bands} bands {of}"
        meaning = _PHOTOMETRICS.get(self.photometric)
        packed = COMPRESSIONS.get(self.compression, f"unknown ({self.compression})")
        details = [meaning] if meaning else []
        details += [f"{packed} compression"] if self.compression != 1 else []
        return " with ".join((f"a TIFF of {bands}", *([" and ".join(details)] if details else [])))


def read_page(source: Source) -> Page:
    """The tags of the first page. Errors: DamagedError, TooLargeError, image-unreadable."""
    head = source.exactly(0, 8)
    if head[:2] not in (b"II", b"MM"):
        raise DamagedError("its header is damaged")
    order: Literal["<", ">"] = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    where, count_code, entry = (8, "Q", 20) if big else (4, "H", 12)
    word = "Q" if big else "I"
    (start,) = struct.unpack(order + word, source.exactly(where, struct.calcsize(word)))
    counted = struct.calcsize(count_code)
    (count,) = struct.unpack(order + count_code, source.exactly(start, counted))
    if count > _MOST_TAGS:
        raise DamagedError(f"its header has {count:,} tags")
    table = source.exactly(start + counted, count * entry)
    values: dict[int, tuple[int, ...]] = {}
    orientation_at = None
    for at in range(0, len(table), entry):
        tag, kind, number = struct.unpack(f"{order}HH{word}", table[at : at + 4 + struct.calcsize(word)])
        if tag not in _USED or tag in values:
            continue
        if kind not in _CODES:
            raise DamagedError(f"its tag {tag} has the type {kind}")
        if number > _MOST_VALUES:
            raise TooLargeError(f"{number:,} values in tag {tag}")
        code = f"{order}{number}{_CODES[kind]}"
        inline = start + counted + at + 4 + struct.calcsize(word)
        size = struct.calcsize(code)
        place = inline
        if size > struct.calcsize(word):
            (place,) = struct.unpack(order + word, source.exactly(inline, struct.calcsize(word)))
        values[tag] = struct.unpack(code, source.exactly(place, size))
        if tag == ORIENTATION and kind == 3:
            orientation_at = place
    return Page(order, values, orientation_at)
