"""Which images to match: pairs from a list, from two folders, from one folder, or two files.

Errors:

| code          | meaning                                                                   |
| ------------- | ------------------------------------------------------------------------- |
| pairs-missing | the list, a folder, or an image that the list names does not exist, or    |
|               | the list is a pipe, socket or device                                      |
| pairs-format  | the list is not text: it holds zero bytes                                 |
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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matchrt._util.reading import open_regular
from matchrt.errors import MatchRTError
from matchrt.runtime.decoding.formats import SUFFIXES, unread_reason

PathPair = tuple[Path, Path]

_BLANKS = re.compile(r"[ \t\r\n]+")
_LONGEST_LINE = 1 << 16  # two of the longest paths have 8192 characters


@dataclass(frozen=True)
class Skipped:
    """Files of a folder, or lines of a list, that are not matched for one reason.

    count: how many they are.
    what: what they are, such as `.heic files`.
    reason: why they are not matched, and what to do about it.
    """

    count: int
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.count} {self.what} ({self.reason})"


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
        list     A text file: two paths a line, split at blanks; names with blanks are in double quotes. Empty lines
        are skipped, and lines that start with #, unless the first word is the name of a file that exists. Relative
        paths start from `root`, or else from the list's folder. Names that are not UTF-8 are read byte by byte.
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
        raise no_pairs(first, skipped_in(first, source1, root))
    return pairs


def skipped_in(
    source0: str | os.PathLike[str],
    source1: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> list[Skipped]:
    """What `read_pairs` left out of these sources, and why. Errors: pairs-missing."""
    sources = [Path(source) for source in (source0, source1) if source is not None]
    if source1 is None and not sources[0].is_dir():
        return commented_pairs(sources[0], sources[0].parent if root is None else Path(root))
    return [skipped for source in sources if source.is_dir() for skipped in read_folder(source)[1]]


def no_pairs(source: Path, skipped: list[Skipped]) -> MatchRTError:
    """The error (pairs-empty) for a source that gives no pair, with what was left out of it. It is not raised here."""
    left_out = f" Left out: {'; '.join(map(str, skipped))}." if skipped else ""
    return MatchRTError(
        "pairs-empty", f"'{source}' gives no pair of images.{left_out}", "Name at least two images that can be read."
    )


def _require(path: Path) -> None:
    if not os.path.exists(path):  # noqa: PTH110 - False for names that the system does not take
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
    return [_existing(fields, base, f"{path}:{number}") for number, fields in iterate_list(path, base)]


def iterate_list(path: Path, base: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """The pairs of a list as it writes them, with their line numbers (the first is 1), read line by line.

    base: the folder from which relative paths start. A line that starts with # is a comment, unless its first word is
        the name of a file there.
    Errors: pairs-line, pairs-format, pairs-missing (the list itself; images are not looked for).
    """
    for number, line in _lines(path):
        if line.strip() and not _is_comment(line, base):
            yield number, _parse_line(line, f"{path}:{number}")


def commented_pairs(path: Path, base: Path) -> list[Skipped]:
    """The lines of a list that are comments, but look as if they named two images. Errors: those of `iterate_list`."""
    numbers = [number for number, line in _lines(path) if _is_comment(line, base) and _names_images(line)]
    if not numbers:
        return []
    shown = ", ".join(map(str, numbers[:3])) + (", ..." if len(numbers) > 3 else "")
    reason = f"lines that start with # are comments, unless the file is there; line {shown}"
    return [Skipped(len(numbers), "comments that name two images", reason)]


def _is_comment(line: str, base: Path) -> bool:
    if not line.lstrip().startswith("#"):
        return False
    try:
        first, _ = _parse_line(line, "")
    except MatchRTError:
        return True
    return not os.path.isfile(base / first)  # noqa: PTH113 - False for names that the system does not take


def _names_images(line: str) -> bool:
    try:
        return all(Path(field).suffix.lower() in SUFFIXES for field in _parse_line(line, ""))
    except MatchRTError:
        return False


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a list with their numbers. Bytes that are not UTF-8 become surrogates, as in names of files."""
    if path.exists() and not path.is_file() and not path.is_dir():
        # A pipe would make the program wait for ever, and lists are read twice.
        raise MatchRTError(
            "pairs-missing",
            f"'{path}' is a pipe, socket or device, not a file.",
            "Write what comes through it to a file first, and name that file.",
        )
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors="surrogateescape") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), ""), start=1):
                if len(line) == _LONGEST_LINE:
                    raise MatchRTError(
                        "pairs-line",
                        f"{path}:{number}: the line has more than {_LONGEST_LINE:,} characters.",
                        "Name a list of pairs: a text file with two paths a line.",
                    )
                if "\0" in line:
                    raise MatchRTError(
                        "pairs-format",
                        f"'{path}' is not a UTF-8 text file.",
                        "Name a list of pairs, saved as UTF-8; give one pair as two images.",
                    )
                yield number, line
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
        if not os.path.isfile(path):  # noqa: PTH113 - False for names that the system does not take
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
    images = read_folder(folder)[0]
    reach = len(images) if window is None else window
    for i, image in enumerate(images):
        for other in images[i + 1 : i + 1 + reach]:
            yield image, other


def _two_folders(first: Path, second: Path, allow_unpaired: bool) -> list[PathPair]:
    left, right = ({path.name: path for path in read_folder(folder)[0]} for folder in (first, second))
    unpaired = sorted(left.keys() ^ right.keys(), key=_natural)
    if unpaired and not allow_unpaired:
        shown = ", ".join(f"'{name}'" for name in unpaired[:3]) + (" ..." if len(unpaired) > 3 else "")
        raise MatchRTError(
            "pairs-folders",
            f"{len(unpaired)} image(s) are in only one of '{first}' and '{second}': {shown}.",
            "Give both folders the same file names, write a list of pairs, or allow unpaired images.",
        )
    return [(path, right[name]) for name, path in left.items() if name in right]


def read_folder(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """The images of a folder in their natural order, and what else it holds, counted by kind.

    Images are known by their suffixes, in any case. Error: pairs-missing if the folder cannot be read.
    """
    images: list[Path] = []
    others: Counter[tuple[str, str]] = Counter()
    try:
        for path in folder.iterdir():
            why = _why_not(path)
            if why is None:
                images.append(path)
            else:
                others[why] += 1
    except OSError as error:
        raise MatchRTError(
            "pairs-missing", f"Cannot read '{folder}': {error.strerror}.", "Make it readable for this user."
        ) from error
    skipped = [Skipped(count, *why) for why, count in sorted(others.items())]
    return sorted(images, key=lambda path: _natural(path.name)), skipped


def _why_not(path: Path) -> tuple[str, str] | None:
    """What an entry of a folder is, and why it is not matched; None for an image."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return "folders", "folders in a folder are not searched"
    if path.name.startswith("."):
        return "hidden files", "their names start with a dot"
    if suffix not in SUFFIXES:
        return f"{suffix} files" if suffix else "files without a suffix", "no suffix of an image"
    unread = unread_reason(suffix)
    if unread is not None:
        return f"{suffix} files", unread.rstrip(".")
    return None if path.is_file() else (f"{suffix} entries", "links to nothing, pipes or devices, no files")


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key in which runs of digits count as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], name
