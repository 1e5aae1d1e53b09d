"""Bounds on gRPC messages before protobuf makes objects of them.

A message's bytes can stand for sixty times as much memory: each empty input is two bytes. So the fields are counted in
the bytes first. The wire format is that of protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from matchrt.errors import MatchRTError
from matchrt.serving.failures import bad_request

# Fields that are looked at, in all messages inside a message.
MAX_FIELDS = 4096
# Bytes of everything but tensors' data: names, shapes, parameters.
MAX_HEAD = 65_536
# Tensors' data as numbers, in bytes and in elements. Data as raw bytes are limited by the whole message only.
MAX_NUMBERS = 16 << 20
MAX_ELEMENTS = 8 << 20
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
# Numbers of fields in open_inference.proto: of ModelInferRequest, of InferInputTensor, of InferTensorContents.
_INPUTS, _RAW, _CONTENTS, _FP32, _FP64, _TEXTS = 5, 7, 5, 6, 7, 8


class _Count:
    """What was counted so far in one message."""

    def __init__(self) -> None:
        self.fields = self.head = self.numbers = self.elements = 0


def check_small(raw: bytes) -> None:
    """Checks a message that has a name or two. Error: request-invalid."""
    if len(raw) > MAX_HEAD:
        raise _too_many(f"{len(raw)} bytes", MAX_HEAD)


def check_infer(raw: bytes) -> None:
    """Checks a ModelInferRequest. Error: request-invalid."""
    count, data = _Count(), memoryview(raw)
    for number, kind, start, end in _fields(data, count):
        if (number, kind) == (_INPUTS, _LENGTH):
            _check_input(data[start:end], count)
        elif (number, kind) != (_RAW, _LENGTH):
            count.head += end - start
        if count.head > MAX_HEAD:
            raise _too_many(f"{count.head} bytes of names and parameters", MAX_HEAD)


def _check_input(data: memoryview, count: _Count) -> None:
    for number, kind, start, end in _fields(data, count):
        if (number, kind) == (_CONTENTS, _LENGTH):
            _check_contents(data[start:end], count)
        else:
            count.head += end - start


def _check_contents(data: memoryview, count: _Count) -> None:
    for number, kind, start, end in _fields(data, count):
        count.elements += 1
        if kind != _LENGTH or number == _TEXTS:
            continue
        count.numbers += end - start
        if count.numbers > MAX_NUMBERS:
            raise _too_many(f"{count.numbers} bytes of numbers", MAX_NUMBERS)
        if number in (_FP32, _FP64):
            count.elements += (end - start) // (4 if number == _FP32 else 8)
        else:  # the last byte of each number is below 128
            count.elements += int(np.count_nonzero(np.frombuffer(data[start:end], np.uint8) < 128))
        if count.elements > MAX_ELEMENTS:
            raise _too_many(f"{count.elements} numbers", MAX_ELEMENTS)


def _fields(data: memoryview, count: _Count) -> Iterator[tuple[int, int, int, int]]:
    """The number and kind of each field of a message, and where its content begins and ends."""
    place = 0
    while place < len(data):
        count.fields += 1
        if count.fields > MAX_FIELDS:
            raise _too_many(f"more than {MAX_FIELDS} fields", MAX_FIELDS)
        tag, place = _varint(data, place)
        kind = tag & 7
        start = place
        if kind == _VARINT:
            _, place = _varint(data, place)
        elif kind == _LENGTH:
            size, start = _varint(data, place)
            place = start + size
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise damaged()
        if place > len(data):
            raise damaged()
        yield tag >> 3, kind, start, place


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise damaged()


def damaged() -> MatchRTError:
    """The error of bytes that are not the message."""
    return bad_request("These bytes are not the call's message.", "Use the protocol's .proto file.")


def _too_many(what: str, most: int) -> MatchRTError:
    return bad_request(f"The message has {what}; at most {most} are allowed.", "Send tensors as raw_input_contents.")
