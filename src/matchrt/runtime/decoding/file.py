"""An image file from its bytes: which format it is, its size, and its values if all of them are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage

from matchrt.errors import MatchRTError
from matchrt.runtime.decoding import containers, heif, jpeg, pillow, png, tiff, tiff_tags
from matchrt.runtime.decoding.failures import DamagedError, TooLargeError, UnreadError
from matchrt.runtime.decoding.formats import FORMATS, HEIF_REMEDY
from matchrt.runtime.decoding.gif import read_gif
from matchrt.runtime.decoding.jpeg2000 import require_all_tiles
from matchrt.runtime.decoding.source import Source
from matchrt.runtime.decoding.tiff_parts import fax_files
from matchrt.runtime.decoding.values import UInt8Array, Values

# What is read of a file: so many bytes for each pixel of the picture, and so many beside them.
_PIXEL_BYTES = 8
_OTHER_BYTES = 16 << 20
# Of formats that say their size at the start.
_HEADER_BYTES = 1 << 20
_WEBP_METADATA = ((b"EXIF", "exif"), (b"XMP ", "xmp"))
CONVERT_REMEDY = "Convert it to an 8-bit PNG or JPEG."
AGAIN_REMEDY = "Copy or export the image again."


@dataclass(frozen=True)
class Stored:
    """An image file whose header was read.

    format: one of FORMATS.
    height, width: as stored, pixels.
    orientation: by which EXIF turns the stored pixels upright, 1..8.
    read: decodes the pixels. Its errors are those of `failures`, and image-unreadable.
    """

    format: str
    height: int
    width: int
    orientation: int
    read: Callable[[], Values]


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Turns what is wrong with a file into an error with its name.

    Errors: image-truncated, image-format, image-too-large.
    """
    try:
        yield
    except DamagedError as error:
        raise MatchRTError("image-truncated", f"'{name}' is cut off or damaged: {error}.", AGAIN_REMEDY) from error
    except UnreadError as error:
        raise MatchRTError("image-format", f"'{name}' is {error}, which cannot be read.", CONVERT_REMEDY) from error
    except TooLargeError as error:
        raise MatchRTError("image-too-large", f"'{name}' has {error}.", CONVERT_REMEDY) from error
    except MemoryError as error:
        raise MatchRTError(
            "image-too-large", f"'{name}' needs more memory than there is.", "Shrink the image."
        ) from error


def open_stored(source: Source, name: str, max_pixels: int) -> Stored:
    """Reads the header. No pixel is decoded, and the size is not checked. Call it, and `Stored.read`, in `naming`.

    max_pixels: decides how many bytes are read of formats whose size is known only when they are read.
    Errors: image-format, image-truncated, image-unreadable; those of `failures`.
    """
    prefix = source.read(0, 32)
    if not prefix:
        raise MatchRTError("image-truncated", f"'{name}' is empty (0 bytes).", AGAIN_REMEDY)
    most = _OTHER_BYTES + _PIXEL_BYTES * max_pixels
    if heif.accepts(prefix):
        if not heif.installed():
            raise MatchRTError("image-format", f"'{name}' is HEIF; pillow-heif is not installed.", HEIF_REMEDY)
        return _heif(source, most)
    looked_like = None
    for format_name in FORMATS:
        if not pillow.accepts(format_name, prefix[:16]):
            continue
        try:
            return _READERS[format_name](source, most)
        except DamagedError as error:
            looked_like = looked_like or (format_name, error)
    if looked_like:
        raise MatchRTError(
            "image-truncated",
            f"'{name}' starts like {looked_like[0]}, but it is cut off or damaged: {looked_like[1]}.",
            AGAIN_REMEDY,
        ) from looked_like[1]
    raise MatchRTError(
        "image-format", f"'{name}' is not an image of a known format.", f"Use one of {', '.join(FORMATS)}."
    )


# ----------------------------------------------------------------------------------------------- one function each


def _jpeg(source: Source, most: int) -> Stored:
    header = jpeg.read_header(source)
    return Stored(
        "JPEG", header.height, header.width, _turned(header), lambda: pillow.values_of(_whole(header, source))
    )


def _turned(header: jpeg.JpegHeader) -> int:
    try:
        return pillow.orientation_of(pillow.opened("JPEG", header.data)) if header.metadata else 1
    except DamagedError:
        return 1


def _whole(header: jpeg.JpegHeader, source: Source) -> PILImage.Image:
    parts = header.read(source, twice=pillow.lenient())
    picture = pillow.decoded("JPEG", parts.data)
    if parts.again is not None and not pillow.equal(picture, pillow.decoded("JPEG", parts.again)):
        raise DamagedError("its data end before all pixels have theirs")
    return picture


def _png(source: Source, most: int) -> Stored:
    header = png.png_header(source)
    try:
        orientation = pillow.orientation_in(pillow.opened("PNG", png.read_png(source, pixels=False)).info)
    except DamagedError:  # the pixels may be whole all the same
        orientation = 1
    return Stored("PNG", header.height, header.width, orientation, lambda: _png_values(source, header.interlaced))


def _png_values(source: Source, interlaced: bool) -> Values:
    data = png.read_png(source)
    picture = pillow.decoded("PNG", data)
    # Rows come one after the other, and those without data stay black.
    last = picture.crop((0, picture.height - 1, picture.width, picture.height))
    if interlaced or pillow.lenient() or not np.asarray(last).any():
        png.require_all_rows(data)
    return pillow.values_of(picture)


def _tiff(source: Source, most: int) -> Stored:
    page = tiff_tags.read_page(source)
    if page.compression in (2, 3, 4) and 322 not in page.values and page.bands == page.bits == 1:
        return Stored("TIFF", page.height, page.width, page.orientation, lambda: _fax(source, page))
    if not tiff.is_read_here(page):
        return Stored("TIFF", page.height, page.width, page.orientation, lambda: _tiff_by_pillow(source, page, most))

    def values() -> Values:
        return tiff.read_pixels(source, page, _jpeg_pixels, _tiff_bytes)

    return Stored("TIFF", page.height, page.width, page.orientation, values)


def _fax(source: Source, page: tiff_tags.Page) -> Values:
    plain, filled = (pillow.decoded("TIFF", data) for data in fax_files(source, page))
    if plain.tobytes() != filled.tobytes():
        raise DamagedError("rows of its fax codes are missing")
    return pillow.values_of(plain)


def _jpeg_pixels(data: bytes) -> UInt8Array:
    source = Source.of(data, "JPEG")
    return np.asarray(_whole(jpeg.read_header(source), source), np.uint8)


def _tiff_bytes(data: bytes) -> UInt8Array:
    return np.asarray(pillow.decoded("TIFF", data), np.uint8)


def _tiff_by_pillow(source: Source, page: tiff_tags.Page, most: int) -> Values:
    data = bytearray(source.read(0, most))
    if page.orientation_at is not None:  # Pillow would turn the image
        data[page.orientation_at : page.orientation_at + 2] = (1).to_bytes(2, "little" if page.order == "<" else "big")
    try:
        return pillow.values_of(pillow.decoded_whole("TIFF", bytes(data)))
    except DamagedError as error:
        raise DamagedError(f"it is {page.describe()}, and {error}") from error


def _gif(source: Source, most: int) -> Stored:
    frame = read_gif(source, pixels=False)

    def values() -> Values:
        return pillow.values_of(pillow.decoded_whole("GIF", read_gif(source).data))

    return Stored("GIF", frame.height, frame.width, 1, values)


def _webp(source: Source, most: int) -> Stored:
    height, width = containers.webp_size(source)
    # Pillow takes memory for all pixels when it opens the file, so it is not asked for the metadata.
    data = containers.read_webp(source, most)
    orientation = pillow.orientation_in({name: containers.webp_chunk(data, kind) for kind, name in _WEBP_METADATA})
    return Stored("WEBP", height, width, orientation, lambda: _decoded("WEBP", data))


def _avif(source: Source, most: int) -> Stored:
    data = containers.read_boxes(source, most)
    picture = pillow.opened("AVIF", data)
    return Stored("AVIF", picture.height, picture.width, pillow.orientation_of(picture), lambda: _decoded("AVIF", data))


def _heif(source: Source, most: int) -> Stored:
    picture = heif.opened(containers.read_boxes(source, most))
    return Stored("HEIF", picture.height, picture.width, 1, lambda: heif.values_of(picture))


def _in_rows(format_name: str) -> Callable[[Source, int], Stored]:
    """Formats whose header stands in the first bytes, and which have no frames behind it."""

    def read(source: Source, most: int) -> Stored:
        picture = pillow.opened(format_name, source.read(0, _HEADER_BYTES))
        height, width = picture.height, picture.width

        def values() -> Values:
            data = source.read(0, _OTHER_BYTES + _PIXEL_BYTES * height * width)
            if format_name == "JPEG2000":
                require_all_tiles(data)
                if not pillow.lenient():  # its decoder says what it lacks
                    return _decoded(format_name, data)
            return pillow.values_of(pillow.decoded_whole(format_name, data))

        return Stored(format_name, height, width, pillow.orientation_of(picture), values)

    return read


def _decoded(format_name: str, data: bytes) -> Values:
    return pillow.values_of(pillow.decoded(format_name, data))


_READERS: dict[str, Callable[[Source, int], Stored]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "TIFF": _tiff,
    "WEBP": _webp,
    "BMP": _in_rows("BMP"),
    "GIF": _gif,
    "PPM": _in_rows("PPM"),
    "JPEG2000": _in_rows("JPEG2000"),
    "AVIF": _avif,
    "HEIF": _heif,
}
