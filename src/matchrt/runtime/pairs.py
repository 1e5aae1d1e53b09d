"""Which images to match: pairs from a list, from two folders, from one folder, or two files.

Errors:

| code          | meaning                                                                   |
| ------------- | ------------------------------------------------------------------------- |
| pairs-missing | the list, a folder, or an image that the list names does not exist, or    |
|               | the list is a pipe, socket or device                                      |
| pairs-format  | the list is not UTF-8 text                                                |
| pairs-line    | a line of the list is not two paths                                       |
| pairs-folders | the two folders do not hold equal file names, or the sources do not fit   |
| pairs-window  | the window is not a positive number                                       |
| pairs-empty   | no pair is left                                                           |
"""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from matchrt._util.reading import open_regular
from matchrt.errors import MatchRTError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".jp2", ".avif")
)

PathPair = tuple[Path, Path]

_BLANKS = re.compile(r"[ \t\r\n]+")
_LONGEST_LINE = 1 << 16  # two of the longest paths have 8192 characters


def read_pairs(
    source0: str | os.PathLike[str],
    source1: str | os.PathLike[str] | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    window: int | None = None,
    allow_unpaired: bool = False,
) -> list[PathPair]:
    """The pairs of images to match, as `[(path0, path1), ...]`.

    source0, source1: what the pairs come from; source1 is None for a list and for one folder.
        list     A text file: two paths a line, split at blanks; names with blanks are in double quotes; empty lines and
        lines that start with # are skipped. Relative paths start from `root`, or else from the list's folder.
        folder   Every pair of its images, or with `window` = N each image with the N that follow it. Images are ordered
        naturally: img2 comes before img10. Folders inside it are not searched.
        folders  The images of equal file name. A name that only one folder has is an error unless `allow_unpaired`.
        files    That one pair.
    root: the folder from which relative paths of a list start; None for the list's own.
    window: how many of the next images each image of a folder is paired with; None for all.
    allow_unpaired: skip images that only one of two folders has.
    Errors: the pairs-* codes of the module's table.
    """
    first = Path(source0)
    _require(first)
    if source1 is None:
        pairs = _one_folder(first, window) if first.is_dir() else _read_list(first, root)
    else:
        second = Path(source1)
        _require(second)
        pairs = _two_sources(first, second, allow_unpaired)
    if not pairs:
        raise MatchRTError("pairs-empty", f"'{first}' gives no pair of images.", "Name at least two images.")
    return pairs


def _require(path: Path) -> None:
    if not path.exists():
        raise MatchRTError("pairs-missing", f"There is no file or folder '{path}'.", "Check the path.")


def _two_sources(first: Path, second: Path, allow_unpaired: bool) -> list[PathPair]:
    if first.is_dir() and second.is_dir():
        return _two_folders(first, second, allow_unpaired)
    if first.is_dir() or second.is_dir():
        raise MatchRTError(
            "pairs-folders", f"'{first}' and '{second}': one is a folder, one a file.", "Name two folders or two files."
        )
    return [(first, second)]


# ----------------------------------------------------------------------------------------------- lists


def _read_list(path: Path, root: str | os.PathLike[str] | None) -> list[PathPair]:
    base = path.parent if root is None else Path(root)
    return [_existing(fields, base, f"{path}:{number}") for number, fields in iterate_list(path)]


def iterate_list(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """The pairs of a list as it writes them, with their line numbers (the first is 1), read line by line.

    Errors: pairs-line, pairs-format, pairs-missing (the list itself; images are not looked for).
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        # A pipe would make the program wait for ever, and lists are read twice.
        raise MatchRTError(
            "pairs-missing",
            f"'{path}' is a pipe, socket or device, not a file.",
            "Write what comes through it to a file first, and name that file.",
        )
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), ""), start=1):
                if len(line) == _LONGEST_LINE:
                    raise MatchRTError(
                        "pairs-line",
                        f"{path}:{number}: the line has more than {_LONGEST_LINE:,} characters.",
                        "Name a list of pairs: a text file with two paths a line.",
                    )
                if line.strip() and not line.lstrip().startswith("#"):
                    yield number, _parse_line(line, f"{path}:{number}")
    except UnicodeDecodeError as error:
        raise MatchRTError(
            "pairs-format", f"'{path}' is not a UTF-8 text file.", "Name a list of pairs; give one pair as two images."
        ) from error
    except OSError as error:
        raise MatchRTError(
            "pairs-missing", f"Cannot read '{path}': {error.strerror}.", "Make it readable for this user."
        ) from error


def _parse_line(line: str, where: str) -> tuple[str, str]:
    try:
        fields = _split(line) if '"' in line else _BLANKS.split(line.strip(" \t\r\n"))
    except ValueError as error:
        raise MatchRTError("pairs-line", f"{where}: a double quote is not closed.", "Close the quote.") from error
    if len(fields) != 2:
        raise MatchRTError(
            "pairs-line",
            f"{where}: the line has {len(fields)} fields; two paths are expected.",
            'Write two paths a line; put names with blanks in double quotes ("a b.jpg").',
        )
    return fields[0], fields[1]


def _existing(fields: tuple[str, str], base: Path, where: str) -> PathPair:
    first, second = (base / field for field in fields)
    for path in (first, second):
        if not path.is_file():
            raise MatchRTError(
                "pairs-missing", f"{where}: there is no file '{path}'.", "Check the name, or set the folder by --root."
            )
    return first, second


def _split(line: str) -> list[str]:
    """Splits at blanks outside double quotes. Apostrophes and backslashes are parts of names."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split = True
    lexer.commenters, lexer.escape, lexer.quotes = "", "", '"'
    return list(lexer)


# --------------------------------------------------------------------------------------------- folders


def _one_folder(folder: Path, window: int | None) -> list[PathPair]:
    return list(iterate_folder(folder, window))


def iterate_folder(folder: Path, window: int | None) -> Iterator[PathPair]:
    """Every pair of a folder's images, or each image with the `window` images that follow it.

    Error: pairs-window if the window is below 1.
    """
    if window is not None and window < 1:
        raise MatchRTError(
            "pairs-window",
            f"The window is {window}.",
            "Use 1 or more; the window is the number of next images to match.",
        )
    images = _images(folder)
    reach = len(images) if window is None else window
    for i, image in enumerate(images):
        for other in images[i + 1 : i + 1 + reach]:
            yield image, other


def _two_folders(first: Path, second: Path, allow_unpaired: bool) -> list[PathPair]:
    left, right = ({path.name: path for path in _images(folder)} for folder in (first, second))
    unpaired = sorted(left.keys() ^ right.keys(), key=_natural)
    if unpaired and not allow_unpaired:
        shown = ", ".join(f"'{name}'" for name in unpaired[:3]) + (" ..." if len(unpaired) > 3 else "")
        raise MatchRTError(
            "pairs-folders",
            f"{len(unpaired)} image(s) are in only one of '{first}' and '{second}': {shown}.",
            "Give both folders the same file names, write a list of pairs, or allow unpaired images.",
        )
    return [(path, right[name]) for name, path in left.items() if name in right]


def _images(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted((path for path in files if not path.name.startswith(".")), key=lambda path: _natural(path.name))


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key in which runs of digits count as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], name
