"""Text of strangers, such as names in files, made fit for terminals, logs and messages."""

from __future__ import annotations

import re
from typing import Any

# C0, DEL and C1; marks and overrides of direction; separators of lines and paragraphs; invisible operators; the byte
# order mark; annotations; surrogates, which no encoding can write; tags.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_UNPRINTABLE_IN_LINES = re.compile(_UNPRINTABLE.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
_MODEL_NAME = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9._-]{1,100}")
_SHOWN = 80


def counted(count: int, one: str, more: str | None = None) -> str:
    """Such as `1 match` or `5 matches`. more: the plural, if it is not `one` with an s. Raises nothing."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def printable(text: str) -> str:
    r"""The text in one line, with escapes in place of what would move a terminal's cursor or hide or turn text.

    A line break becomes `\n`, the escape character `\x1b`, an override of direction `\u202e`, and a byte of a file
    name that is not UTF-8 `\xe9`. Raises nothing.
    """
    return _UNPRINTABLE.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """As `printable`, but line breaks stay. Raises nothing."""
    return _UNPRINTABLE_IN_LINES.sub(_escaped, text)


def is_printable(text: str) -> bool:
    """Whether `printable` leaves the text as it is. Raises nothing."""
    return _UNPRINTABLE.search(text) is None


def is_model_name(text: str) -> bool:
    """Whether a served model can have this name, which becomes part of addresses and of Triton's folders.

    It has at most 100 letters of ASCII, digits, `-`, `_` and `.`, and a letter or digit, so that neither `.` nor `..`
    is one. Raises nothing.
    """
    return _MODEL_NAME.fullmatch(text) is not None


def shortened(text: str) -> str:
    """A name of a file in a message: printable, and not longer than half a line. Raises nothing."""
    return printable(text) if len(text) <= _SHOWN else f"{printable(text[: _SHOWN // 2])}…"


def shown(value: Any) -> str:
    """A value of a file in a message: a short literal, or the kind of the value. Raises nothing.

    Lists and objects are not written out, because they may be nested more deeply than Python can write.
    """
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str) and len(value) > _SHOWN:
        return f"a text of {len(value):,} characters that begins with {value[: _SHOWN // 2]!r}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return "a whole number of more than 20 digits"
    return repr(value)


def _escaped(match: re.Match[str]) -> str:
    char = match.group()
    if "\udc80" <= char <= "\udcff":  # Python's form of a byte in a name that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
