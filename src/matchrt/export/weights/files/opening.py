"""Opens files of weights. Only regular files are opened: a pipe would make the program wait for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from matchrt.export.weights.files.problems import unreadable

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# A pipe that takes the file's place between the check and the opening must not block. Windows has no such flag.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading.

    Error: checkpoint-missing, if there is no such file, it cannot be read, or it is a folder, pipe, socket or device.
    """
    try:
        _require_regular(path, path.stat().st_mode)
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError as error:
        raise unreadable(path, "does not exist", "Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: the path has a null character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise unreadable(path, f"cannot be read: {reason}", "Name a readable file.") from error
    stream = os.fdopen(descriptor, "rb")
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
    except BaseException:
        stream.close()
        raise
    return stream


def require_regular(path: Path) -> None:
    """Raises `checkpoint-missing` if `open_regular` would."""
    open_regular(path).close()


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        remedy = "Name the file of the weights."
        if kind == "a pipe":
            remedy = "Write what comes through it to a file first, and name that file."
        raise unreadable(path, f"is {kind}, not a file", remedy)
