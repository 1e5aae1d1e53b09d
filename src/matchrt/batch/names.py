"""Names of images, which may be any bytes but zero and '/': how they are checked, and written into text."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

from matchrt.errors import MatchRTError
from matchrt.runtime.hloc import is_text

_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
# Control characters, and separators of lines and paragraphs.
_ESCAPED = ("Cc", "Zl", "Zp")


def unfit(name: str) -> MatchRTError | None:
    """Why no output can hold an image of that name; None if its name is fit. The error's code is matches-name.

    Its message has the name as it is: print it through `readable` or `one_line`.
    """
    if not is_text(name):
        return MatchRTError(
            "matches-name", f"The file name '{name}' is not UTF-8.", "Rename the file, in the list too."
        )
    path = PurePosixPath(name)
    if path.is_absolute():
        return MatchRTError(
            "matches-name", f"The image '{name}' is not under the root folder.", "Name another folder with --root."
        )
    if ".." in path.parts or path.name in ("", "."):
        return MatchRTError(
            "matches-name",
            f"The image name {name!r} cannot be stored.",
            "Write paths relative to the root, without '..'.",
        )
    return None


def readable(text: str) -> str:
    """The text with bytes that are not UTF-8 as \\xNN, so that it can be printed and stored everywhere."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """The text as one field of one line: `readable`, and \\\\, \\t, \\n, \\r, \\xNN, \\uNNNN for what breaks lines."""
    doubled = text.replace("\\", _SHORT["\\"])
    return "".join(_SHORT.get(char, _escape(char)) if char != "\\" else char for char in readable(doubled))


def _escape(char: str) -> str:
    if unicodedata.category(char) not in _ESCAPED:
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
