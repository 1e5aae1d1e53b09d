"""JPEG: where the image ends, and whether all of it has data.

libjpeg takes any marker in the data as their end, fills what is missing with grey, and only warns, and Pillow does not
pass its warnings on. So the file is walked first, from marker to marker, and the decoder gets the image alone:

- One scan (baseline): in place of the end marker, the decoder gets a few bytes that hold no valid code. If data are
  missing, it has too few bytes and says so. If all are there, it reads ahead into these bytes and does not use them. So
  a file that lacks only its end marker is read.
- Several scans (progressive, or a scan for each channel), and data with restart markers: the decoder cannot be asked.
  The image is decoded twice, the second time with random bytes after each scan and before each restart marker. They
  change the pixels only where data are missing. Restart markers are counted as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from matchrt.runtime.decoding.failures import DamagedError, TooLargeError, UnreadError
from matchrt.runtime.decoding.source import Source

# Limits: of segments before and between scans, and of the work that scans are.
_MOST_SEGMENTS = 4096
_MOST_SCANS = 64
_SCANS_OF_ANY_SIZE = 20
_SCANNED_PIXELS = 1_000_000_000
_FIRST_READ = 1 << 20
_LONGEST_HEADER = 64 << 20

_END = b"\xff\xd9"
# 64 one bits: no Huffman code is all ones. The decoder reads ahead by at most so many.
_NO_CODES = b"\xff\x00" * 8
# Bytes without a marker that decode to something.
_FILLER = bytes.fromhex("5ac31e9647b2086d39d2710f8ca54be6a13c74e90bd25f861ac763b84e057d92") * 4
_SHORT_FILLER = 16
# Application segments but for JFIF's, EXIF's and Adobe's, and comments.
_DROPPED = frozenset((*range(0xE2, 0xEE), 0xEF, 0xFE))
# Any number of fill bytes FF may precede a marker. The patterns take time in proportion to the data all the same.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_RESTART = re.compile(rb"(?<!\xff)\xff+[\xd0-\xd7]", re.DOTALL)

_KINDS = {
    0xC3: "a lossless JPEG",
    0xC5: "a hierarchical JPEG",
    0xC6: "a hierarchical JPEG",
    0xC7: "a hierarchical JPEG",
    0xC9: "an arithmetic-coded JPEG",
    0xCA: "an arithmetic-coded JPEG",
    0xCB: "an arithmetic-coded JPEG",
    0xCD: "an arithmetic-coded JPEG",
    0xCE: "an arithmetic-coded JPEG",
    0xCF: "an arithmetic-coded JPEG",
    0xF7: "a JPEG-LS image",
}
_FRAMES = (0xC0, 0xC1, 0xC2, *_KINDS)


@dataclass(frozen=True)
class _Frame:
    """What the frame header says.

    progressive: whether scans refine each other.
    height, width: as stored, pixels.
    components: (horizontal, vertical) sampling of each channel, by its number.
    """

    progressive: bool
    height: int
    width: int
    components: dict[int, tuple[int, int]]

    def units(self, chosen: tuple[int, ...]) -> int:
        """Coded units (MCUs) of a scan of these components."""
        across, down = (max(sampling[axis] for sampling in self.components.values()) for axis in (0, 1))
        if len(chosen) > 1:
            return _ceil(self.width, 8 * across) * _ceil(self.height, 8 * down)
        horizontal, vertical = self.components[chosen[0]]
        return _ceil(_ceil(self.width * horizontal, across), 8) * _ceil(_ceil(self.height * vertical, down), 8)


@dataclass(frozen=True)
class _Scan:
    """A scan.

    components: numbers of its channels.
    first, last: of its coefficients, 0..63.
    low: the lowest bit of them that it brings.
    start, end: of its data in the file.
    restarts: how many restart markers its data must have.
    """

    components: tuple[int, ...]
    first: int
    last: int
    low: int
    start: int
    end: int
    restarts: int


@dataclass
class _Walked:
    """What a walk has met.

    frame: the frame header; None before it is met.
    scans: in the order of the file.
    dropped: the segments (start, end) that decide nothing about pixels: colour profiles, comments, makers' data.
    end: where the image ends.
    ended: whether an end marker says so.
    interval: units between restart markers; 0 for none.
    metadata: whether there is EXIF or XMP.
    """

    frame: _Frame | None = None
    scans: list[_Scan] = field(default_factory=list)
    dropped: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0
    ended: bool = False
    interval: int = 0
    metadata: bool = False


@dataclass(frozen=True)
class JpegParts:
    """An image without what stands behind it.

    height, width: as stored, pixels.
    data: what the decoder gets. It needs all of its bytes, and if some are missing, it fails.
    again: the same image with other bytes where data might be missing; it decodes to equal pixels if none are. None if
        `data` alone shows it.
    """

    height: int
    width: int
    data: bytes
    again: bytes | None


@dataclass(frozen=True, eq=False)
class JpegHeader:
    """A file of which the header was read.

    height, width: as stored, pixels.
    data: the file up to its first scan or farther.
    metadata: whether it holds EXIF or XMP, which may say how the image is turned.
    """

    height: int
    width: int
    data: bytes
    metadata: bool
    _walked: _Walked

    def read(self, source: Source, twice: bool = False) -> JpegParts:
        """The image of the file, walked from marker to marker.

        twice: whether the decoder says nothing of missing data even in one scan. Errors: DamagedError, UnreadError,
        TooLargeError, image-*.
        """
        known = self._walked.ended  # a small file was read to its end already
        data, walked = (self.data, self._walked) if known else _read(source, whole=True)
        return _parts(data, walked, twice)


def read_header(source: Source) -> JpegHeader:
    """The header of a file. Errors: DamagedError, UnreadError, TooLargeError, image-*."""
    data, walked = _read(source, whole=False)
    frame = _require_frame(walked)
    return JpegHeader(frame.height, frame.width, data, walked.metadata, walked)


def _parts(data: bytes, walked: _Walked, twice: bool) -> JpegParts:
    frame, scans = _require_frame(walked), walked.scans
    _check_work(frame, scans)
    if not scans:
        raise DamagedError("it has a header and no pixels")
    for scan in scans:
        _check_restarts(scan, data)
    if len(scans) == 1 and set(scans[0].components) == set(frame.components) and not frame.progressive:
        whole = _kept(data, walked, [scans[0].end])[0]
        # The decoder fills what is missing before a restart marker. Without an end marker, the last unit might lack
        # bytes that the ones replace.
        asked_twice = twice or scans[0].restarts or not walked.ended
        again = _filled(whole, scans) + _FILLER + _END if asked_twice else None
        return JpegParts(frame.height, frame.width, whole + _NO_CODES, again)
    _check_complete(frame, scans)
    parts = _kept(data, walked, [*(scan.end for scan in scans), walked.end])
    again = _FILLER.join(_filled(part, scans) for part in parts)
    return JpegParts(frame.height, frame.width, b"".join(parts) + _END, again + _END)


def _filled(part: bytes, scans: list[_Scan]) -> bytes:
    """A piece of the file with other bytes before each restart marker."""
    if not any(scan.restarts for scan in scans):
        return part
    header = part.rfind(b"\xff\xda") + 2 if b"\xff\xda" in part else 0
    return part[:header] + _RESTART.sub(lambda found: _FILLER[:_SHORT_FILLER] + found[0], part[header:])


def _read(source: Source, whole: bool) -> tuple[bytes, _Walked]:
    """The file, in ever larger pieces, up to the end marker, or up to its first scan if not `whole`."""
    data = source.read(0, _FIRST_READ)
    while True:
        walked = _walk(data)
        frame = walked.frame
        if walked.ended or (walked.scans and not whole) or len(data) >= source.size:
            return data, walked
        most = _LONGEST_HEADER + (0 if frame is None else 8 * frame.height * frame.width)
        if len(data) >= most:
            return data, walked
        data += source.read(len(data), len(data))


def _kept(data: bytes, walked: _Walked, edges: list[int]) -> list[bytes]:
    """The file without its dropped segments, split at the edges."""
    pieces, position = [], 0
    for edge in edges:
        piece = []
        for start, end in walked.dropped:
            if position <= start and end <= edge:
                piece.append(data[position:start])
                position = end
        pieces.append(b"".join((*piece, data[position:edge])))
        position = edge
    return pieces


def _walk(data: bytes) -> _Walked:
    walked = _Walked()
    position, most = 2, _MOST_SEGMENTS
    while position < len(data):
        most -= 1
        if most < 0:
            raise TooLargeError(f"more than {_MOST_SEGMENTS} segments")
        found = _MARKER.search(data, position)
        if found is None:
            break
        marker, position = data[found.end() - 1], found.end()
        walked.end = found.start()
        if marker == 0xD9:
            walked.ended = True
            return walked
        if marker in (0x01, 0xD8):  # these have no length
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + length]
        if length < 2 or len(segment) != length - 2:
            break
        position += length
        if marker in _DROPPED:
            walked.dropped.append((found.start(), position))
        _take_segment(walked, marker, segment)
        if marker == 0xDA:
            position = _take_scan(walked, segment, data, position)
    if walked.scans:
        walked.end = max(walked.scans[-1].end, walked.end)
    return walked


def _take_segment(walked: _Walked, marker: int, segment: bytes) -> None:
    walked.metadata |= marker == 0xE1
    if marker == 0xDD and len(segment) >= 2:
        walked.interval = int.from_bytes(segment[:2], "big")
    if marker not in _FRAMES or walked.frame is not None:
        return
    if marker in _KINDS:
        raise UnreadError(_KINDS[marker])
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        raise DamagedError("its frame header is too short")
    if segment[0] != 8:
        raise UnreadError(f"a JPEG of {segment[0]} bits a channel")
    height, width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    components = {segment[at]: (segment[at + 1] >> 4, segment[at + 1] & 15) for at in range(6, 6 + 3 * segment[5], 3)}
    if not components or any(not 1 <= side <= 4 for sampling in components.values() for side in sampling):
        raise DamagedError("its frame header has no valid sampling")
    if height == 0:
        raise UnreadError("a JPEG whose header leaves the height open")
    if width == 0:
        raise DamagedError("its header says that it is 0 pixels wide")
    walked.frame = _Frame(marker == 0xC2, height, width, components)


def _take_scan(walked: _Walked, segment: bytes, data: bytes, start: int) -> int:
    """Notes a scan and returns where its data end: at the next marker that is no restart."""
    frame = walked.frame
    count = segment[0] if segment else 0
    if frame is None or len(segment) < 4 + 2 * count or not 1 <= count <= 4:
        raise DamagedError("a scan header is damaged")
    components = tuple(segment[1 : 1 + 2 * count : 2])
    if not set(components) <= set(frame.components):
        raise DamagedError("a scan header is damaged")
    found = _MARKER.search(data, start)
    end = found.start() if found else len(data)
    if data[end - 1] == 0xFF:  # fill bytes before the marker, or the first half of one
        end = max(len(data[:end].rstrip(b"\xff")), start)
    first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
    restarts = _ceil(frame.units(components), walked.interval) - 1 if walked.interval else 0
    walked.scans.append(_Scan(components, first, last, bits & 15, start, end, restarts))
    if len(walked.scans) > _MOST_SCANS:
        raise TooLargeError(f"more than {_MOST_SCANS} scans")
    return end


def _check_restarts(scan: _Scan, data: bytes) -> None:
    if not scan.restarts:
        return
    found = sum(1 for _ in _RESTART.finditer(data, scan.start, scan.end))
    if found < scan.restarts:
        raise DamagedError(f"{scan.restarts - found} of {scan.restarts + 1} parts of its data are missing")


def _check_work(frame: _Frame, scans: list[_Scan]) -> None:
    most = max(_SCANS_OF_ANY_SIZE, _SCANNED_PIXELS // (frame.height * frame.width))
    if len(scans) > most:
        raise TooLargeError(f"{len(scans)} scans; {most} are read at {frame.width} x {frame.height}")


def _check_complete(frame: _Frame, scans: list[_Scan]) -> None:
    """Every coefficient of every channel must come in some scan, down to its last bit."""
    bits = {component: [-1] * 64 for component in frame.components}
    for scan in scans:
        first, last, low = (scan.first, min(scan.last, 63), scan.low) if frame.progressive else (0, 63, 0)
        for component in scan.components:
            bits[component][first : last + 1] = [low] * max(last + 1 - first, 0)
    if any(bit != 0 for coefficients in bits.values() for bit in coefficients):
        raise DamagedError("its last scans are missing")


def _require_frame(walked: _Walked) -> _Frame:
    if walked.frame is None:
        raise DamagedError("its header says no size")
    return walked.frame


def _ceil(value: int, step: int) -> int:
    return -(-value // step)
