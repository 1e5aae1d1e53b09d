"""The one table of image files: which formats are read, which suffixes they have, and what is known but not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

_CONVERT = "Convert it to PNG or JPEG"


@dataclass(frozen=True)
class FileFormat:
    """A format that is read.

    name: Pillow's name of it.
    suffixes: of its files, lower case with their dot.
    package: what must be installed beside Pillow to read it; None for nothing.
    """

    name: str
    suffixes: tuple[str, ...]
    package: str | None = None


# This is an allow list, because Pillow also reads formats that run other programs (EPS) or that no camera writes.
READ_FORMATS = (
    FileFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo")),
    FileFormat("PNG", (".png", ".apng")),
    FileFormat("TIFF", (".tif", ".tiff")),
    FileFormat("WEBP", (".webp",)),
    FileFormat("BMP", (".bmp", ".dib")),
    FileFormat("GIF", (".gif",)),
    FileFormat("PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm")),
    FileFormat("JPEG2000", (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc")),
    FileFormat("AVIF", (".avif", ".avifs")),
    FileFormat("HEIF", (".heic", ".heif", ".hif"), package="pillow_heif"),
)
FORMATS = tuple(known.name for known in READ_FORMATS)

HEIF_REMEDY = f"pip install pillow-heif (or matchrt[heif]), or c{_CONVERT[1:]}."

# Files that hold images and are not read: by suffix, what they are.
_UNREAD: Mapping[str, str] = {
    **dict.fromkeys(
        (".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"),
        "a camera's raw file",
    ),
    **dict.fromkeys((".exr", ".hdr"), "an image of high dynamic range"),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".ai"), "a drawing, not pixels"),
    **dict.fromkeys((".psd", ".psb", ".xcf", ".kra"), "an editor's document"),
    **dict.fromkeys((".fit", ".fits", ".fts"), "a FITS file"),
    **dict.fromkeys((".dcm", ".dicom"), "a DICOM file"),
    ".jxl": "a JPEG XL file",
    ".jxr": "a JPEG XR file",
    ".ico": "an icon",
    ".tga": "a Targa file",
    ".pcx": "a PCX file",
    ".sgi": "an SGI file",
}

_BY_SUFFIX: Mapping[str, FileFormat] = {suffix: known for known in READ_FORMATS for suffix in known.suffixes}

# Suffixes of image files, lower case with their dot, whether or not they are read here (`unread_reason`).
SUFFIXES = frozenset((*_BY_SUFFIX, *_UNREAD))


def unread_reason(suffix: str) -> str | None:
    """Why files with that suffix are not read here, as words to put after a file's name; None if they are read.

    suffix: with its dot, such as `.heic`, in any case. Raises nothing.
    """
    known = _BY_SUFFIX.get(suffix.lower())
    if known is None:
        return f"{_UNREAD.get(suffix.lower(), 'no image file')}, which is not read. {_CONVERT}."
    if known.package is not None and find_spec(known.package) is None:
        return f"{known.name}, which needs the package {known.package.replace('_', '-')}. {HEIF_REMEDY}"
    return None
