"""Bounds on JSON before it becomes Python objects, and large lists of numbers that never do.

Lists of numbers are most of a request's text. As Python objects they would take many times their text's memory, and the
parser would hold the interpreter's lock for as long as it takes. So long ones are cut out of the text first, checked by
their brackets and commas, and read in slices.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from matchrt.serving.failures import bad_request

# Of the text without its long lists of numbers. Each element takes up to about 100 bytes.
MAX_ELEMENTS = 262_144
MAX_LISTS = 65_536
MAX_OBJECTS = 1024
_NUMERIC = b"0123456789+-.eE,[] \t\r\n"
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))
_BRACKETS_TO_BLANKS = bytes.maketrans(b"[]", b"  ")
# A list is long if it fills a whole block of the text. Slices are blocks too.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class NumberText:
    """The JSON text of a long list of numbers, flat or nested."""

    text: bytes

    def check(self, shape: tuple[int, ...]) -> bool:
        """Whether the lists are those of a tensor of `shape`, nested as it or flat. The numbers are not looked at."""
        size = 1
        for length in shape:
            size *= length
        structure = self.text.translate(None, _NOT_STRUCTURE)
        # Where it is longer than the structure it cannot be equal, and shapes lie.
        return structure == _flat(size, len(structure)) or structure == _nested(shape, len(structure))

    def slices(self) -> Iterator[list[Any]]:
        """The numbers, row by row, some ten thousand at a time. Error: request-invalid."""
        flat = self.text.translate(_BRACKETS_TO_BLANKS)
        start = 0
        while start < len(flat):
            end = flat.find(b",", start + _BLOCK)
            end = len(flat) if end < 0 else end
            yield _loads(b"[" + flat[start:end] + b"]")
            start = end + 1


def loads(text: bytes) -> tuple[Any, dict[str, NumberText]]:
    """The value of a JSON text, and the long lists of numbers by the texts that stand for them in the value.

    A text in quotes of 128 kB that holds nothing but digits and brackets is taken for such a list, and the JSON then
    for damaged. Errors: request-invalid for what is not JSON, and for more lists, objects and elements than allowed.
    """
    found: dict[str, NumberText] = {}
    # Nobody who writes a request can know the name, so nobody can write what stands for a list.
    name, parts, place = secrets.token_hex(16), [], 0
    for start, end in _number_lists(text):
        key = f"{name}{len(found)}"
        found[key] = NumberText(text[start:end])
        parts += [text[place:start], f'"{key}"'.encode()]
        place = end
    rest = b"".join((*parts, text[place:])) if found else text
    for what, most, count in (
        ("objects", MAX_OBJECTS, rest.count(b"{")),
        ("lists", MAX_LISTS, rest.count(b"[")),
        ("elements", MAX_ELEMENTS, rest.count(b",")),
    ):
        if count > most:
            remedy = "Send binary tensor data, or one list of numbers for each tensor."
            raise bad_request(f"The JSON has {count} {what}, more than {most}.", remedy)
    return _loads(rest), found


def _number_lists(text: bytes) -> Iterator[tuple[int, int]]:
    """Where long lists of numbers begin and end. The time is proportional to the text."""
    place = 0
    while place + _BLOCK <= len(text):
        if text[place : place + _BLOCK].translate(None, _NUMERIC):
            place += _BLOCK
            continue
        before = text[max(place - _BLOCK, 0) : place]
        start = len(before.rstrip(_NUMERIC)) + place - len(before)
        while place < len(text) and not text[place : place + _BLOCK].translate(None, _NUMERIC):
            place += _BLOCK
        after = text[place : place + _BLOCK]
        end = place + len(after) - len(after.lstrip(_NUMERIC))
        first, last = text.find(b"[", start, end), text.rfind(b"]", start, end)
        if 0 <= first < last:
            yield first, last + 1
        place += _BLOCK


def _loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise bad_request(
            f"The request is not JSON: {error}.", "Binary data need the header Inference-Header-Content-Length."
        ) from error


def _flat(size: int, most: int) -> bytes:
    return b"[" + b"," * (size - 1) + b"]" if 0 < size <= most else b""


def _nested(shape: tuple[int, ...], most: int) -> bytes:
    text = b""
    for length in reversed(shape):
        if not 0 < length * (len(text) + 1) <= most:
            return b""
        text = b"[" + (text + b",") * (length - 1) + text + b"]"
    return text
