"""Opens files of weights. Only regular files are opened: a pipe would make the program wait for ever."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from matchrt._util import reading
from matchrt.export.weights.files.problems import unreadable


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading.

    Error: checkpoint-missing, if there is no such file, it cannot be read, or it is a folder, pipe, socket or device.
    """
    try:
        return reading.open_regular(path)
    except reading.NotRegularError as error:
        remedy = "Name the file of the weights."
        if error.kind == "a pipe":
            remedy = "Write what comes through it to a file first, and name that file."
        raise unreadable(path, f"is {error.kind}, not a file", remedy) from error
    except FileNotFoundError as error:
        raise unreadable(path, "does not exist", "Check the path.") from error
    except OSError as error:
        raise unreadable(path, f"cannot be read: {error.strerror}", "Name a readable file.") from error


def require_regular(path: Path) -> None:
    """Raises `checkpoint-missing` if `open_regular` would."""
    open_regular(path).close()
