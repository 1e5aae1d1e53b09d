"""Opens files that somebody names. Only regular files are opened: a pipe or device would make the program wait."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# A pipe that takes the file's place between the check and the opening must not block. Windows has no such flag.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class NotRegularError(OSError):
    """The path names something that is no regular file.

    kind: what it is, such as `a pipe`.
    """

    def __init__(self, path: str | os.PathLike[str], kind: str) -> None:
        super().__init__(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))
        self.kind = kind


class TooLargeError(OSError):
    """The file has more bytes than its reader takes."""

    def __init__(self, path: str | os.PathLike[str], most: int) -> None:
        super().__init__(errno.EFBIG, f"it has more than {most:,} bytes", os.fspath(path))


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file for reading, without ever waiting.

    Error: OSError, whose `strerror` says why; NotRegularError for a folder, pipe, socket or device.
    """
    try:
        # The check comes first, because opening some devices does something, such as rewinding a tape.
        _require_regular(path, Path(path).stat().st_mode)
        descriptor = os.open(path, _FLAGS)
    except ValueError as error:  # the path has a null character
        raise OSError(errno.EINVAL, str(error), os.fspath(path)) from error
    stream = os.fdopen(descriptor, "rb")
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
    except BaseException:
        stream.close()
        raise
    return stream


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The content of a regular file.

    most: the largest number of bytes that the caller takes; None for any.
    Errors: those of `open_regular`; TooLargeError, before the rest is read.
    """
    with open_regular(path) as stream:
        data = stream.read(-1 if most is None else most + 1)
    if most is not None and len(data) > most:
        raise TooLargeError(path, most)
    return data


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether there is a regular file at the path; False also for paths that the system refuses. Raises nothing.

    `Path.is_file` raises OSError for names that are too long.
    """
    return os.path.isfile(path)  # noqa: PTH113


def _require_regular(path: str | os.PathLike[str], mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotRegularError(path, _KINDS.get(stat.S_IFMT(mode), "something else"))
