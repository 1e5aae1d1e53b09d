"""Which tensors of an ONNX graph lie in other files, read from the bytes without the package `onnx`.

Protobuf's wire format (https://protobuf.dev/programming-guides/encoding/) is read just far enough to find every
TensorProto, wherever it may stand. A tensor's values are stepped over, so the time depends on the number of nodes and
tensors, not on their size. Of two readers of a damaged or odd file this one is the stricter: what it does not
understand is an error, so that nothing is hidden from it that a runtime would find.
"""

from __future__ import annotations

from dataclasses import dataclass

# The messages that can hold a tensor, and by field number the messages in them that can (onnx.proto, IR version 13).
_MESSAGES: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
# A graph of ten thousand nodes has some 200,000 fields. More than this would take seconds.
_MOST_FIELDS = 4_000_000
# ONNX Runtime takes files of its own format too, which it knows by these bytes.
_OWN_FORMAT = (b"ORTM", 4)
MOST_SHOWN = 100

_Field = tuple[int, int, int, int]


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor whose values are said to be in another file.

    name: of the tensor; empty for one that has no name.
    location: the other file, as the graph names it; empty if it names none.
    """

    name: str
    location: str


def external_tensors(data: bytes) -> list[ExternalTensor]:
    """The tensors of an ONNX file that are not in it: the first 100, of initializers, attributes, subgraphs and
    functions.

    data: the bytes of the file.
    Error: ValueError, for what is no ONNX file or has too many fields.
    """
    mark, at = _OWN_FORMAT
    if data[at : at + len(mark)] == mark:
        raise ValueError("it is of ONNX Runtime's own format")
    found: list[ExternalTensor] = []
    fields = 0
    todo = [(0, len(data), "ModelProto")]
    while todo:
        start, end, kind = todo.pop()
        inside = _MESSAGES[kind]
        name, location, outside = "", "", False
        at = start
        while at < end:
            fields += 1
            if fields > _MOST_FIELDS:
                raise ValueError(f"it has more than {_MOST_FIELDS:,} fields")
            number, wire, value, at = field(data, at, end)
            if number in inside and wire == BYTES:
                todo.append((value, at, inside[number]))
            elif kind == "TensorProto":
                if number == _NAME and wire == BYTES:
                    name = _text(data[value:at])
                elif number == _EXTERNAL_DATA:
                    outside = True
                    location = location or (_location(data, value, at) if wire == BYTES else "")
                elif number == _DATA_LOCATION and value:
                    outside = True
        if outside and len(found) < MOST_SHOWN:
            found.append(ExternalTensor(name, location))
    return found


def field(data: bytes, at: int, end: int) -> _Field:
    """A field: its number, its wire type, its value (of bytes, where they begin), and where the next field begins.

    Error: ValueError, for bytes that are no field, or that reach beyond `end`.
    """
    tag = data[at]
    at += 1
    if tag & 0x80:
        tag, at = varint(data, at - 1, end)
    number, wire = tag >> 3, tag & 7
    if not 0 < number < 1 << 29:
        raise ValueError(f"a field has the number {number}")
    value = 0
    if wire in (VARINT, BYTES):
        if at >= end:
            raise ValueError("it ends within a field")
        value = data[at]
        at += 1
        if value & 0x80:
            value, at = varint(data, at - 1, end)
        if wire == BYTES:
            value, at = at, at + value
    elif wire in (_FIXED64, _FIXED32):
        at += 8 if wire == _FIXED64 else 4
    else:
        raise ValueError(f"a field has the wire type {wire}")
    if at > end:
        raise ValueError("a field is longer than what contains it")
    return number, wire, value, at


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of any length at a place, and where it ends. Error: ValueError if it does not end before `end`."""
    value = shift = 0
    while True:
        if at >= end or shift > 63:
            raise ValueError("a number does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _location(data: bytes, start: int, end: int) -> str:
    """The value of an entry of `external_data` if its key is `location`."""
    entry = {1: "", 2: ""}
    at = start
    while at < end:
        number, wire, value, at = field(data, at, end)
        if number in entry and wire == BYTES:
            entry[number] = _text(data[value:at])
    return entry[2] if entry[1] == "location" else ""


def _text(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
