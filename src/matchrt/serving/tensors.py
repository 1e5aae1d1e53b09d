"""The protocol's tensors and NumPy's.

Datatypes, and the layout of BYTES elements (a little-endian uint32 length before each), are those of the Open Inference
Protocol (github.com/kserve/open-inference-protocol) and its binary tensor data extension.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.manifest import TensorSpec
from matchrt.serving.failures import bad_request

DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_DIMENSIONS = 8
# Elements of a BYTES tensor. No model takes more than one.
MAX_TEXTS = 4096


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as a model declares it.

    name: of the tensor.
    datatype: the protocol's name of its type, such as `FP32`.
    shape: in elements; -1 is any size.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, spec: TensorSpec, batch: int) -> TensorInfo:
        """The declaration of an engine's tensor. An engine of a batch above 1 takes that many rows or fewer.

        Raises KeyError for a type that the protocol does not have.
        """
        rows, *rest = spec.shape
        shape = (-1 if batch > 1 else rows, *rest)
        return cls(spec.name, DATATYPES[spec.dtype], tuple(-1 if isinstance(size, str) else size for size in shape))


@dataclass(frozen=True)
class Tensor:
    """A tensor of a request or an answer.

    name: of the tensor.
    datatype: the protocol's name of its type.
    array: the values; for BYTES an array of `bytes` objects.
    """

    name: str
    datatype: str
    array: npt.NDArray[Any]


@dataclass(frozen=True)
class Wanted:
    """An output that a request asks for.

    name: of the output.
    binary: True for binary data, False for text.
    """

    name: str
    binary: bool


@dataclass(frozen=True)
class InferCall:
    """An inference request, whatever protocol it came by.

    tensors: the inputs by name.
    parameters: of the request, by name.
    wanted: the outputs that are asked for; None for all.
    request_id: the client's own name for the request; may be empty.
    """

    tensors: Mapping[str, Tensor]
    parameters: Mapping[str, Any]
    wanted: tuple[Wanted, ...] | None = None
    request_id: str = ""


def read_shape(name: str, shape: Any) -> tuple[int, ...]:
    """Checks a request's shape and returns it as a tuple. Error: request-invalid."""
    good = isinstance(shape, list | tuple) and len(shape) <= _MAX_DIMENSIONS
    if not good or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise bad_request(f"The shape of '{name}' is not a list of sizes.", "Give, for instance, [480, 640, 3].")
    return tuple(shape)


def read_datatype(name: str, datatype: Any) -> str:
    """Checks a request's datatype and returns it. Error: request-invalid."""
    if not isinstance(datatype, str) or datatype not in (*DTYPES, "BYTES"):
        raise bad_request(f"'{name}' has an unknown datatype.", f"Known: {', '.join(DTYPES)}, BYTES.")
    return datatype


def from_bytes(name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Tensor:
    """A tensor of `shape` from its binary form. Error: request-invalid."""
    if datatype == "BYTES":
        return byte_strings(name, shape, _split(name, memoryview(data), text_count(name, shape)))
    dtype = np.dtype(DTYPES[datatype]).newbyteorder("<")
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise bad_request(
            f"'{name}' has {len(data)} bytes; {datatype} {list(shape)} are {wanted}.", "Send exactly the tensor's data."
        )
    return Tensor(name, datatype, np.frombuffer(data, dtype).reshape(shape))


def text_count(name: str, shape: tuple[int, ...]) -> int:
    """The number of elements of a BYTES tensor of `shape`. Error: request-invalid if they are too many."""
    count = math.prod(shape)
    if count > MAX_TEXTS:
        raise bad_request(f"'{name}' has {count} texts, more than {MAX_TEXTS}.", "Send fewer.")
    return count


def byte_strings(name: str, shape: tuple[int, ...], values: list[bytes]) -> Tensor:
    """A BYTES tensor of `shape` from its elements. Error: request-invalid."""
    if len(values) != math.prod(shape):
        raise bad_request(f"'{name}' has {len(values)} elements; its shape has {math.prod(shape)}.", "Make them equal.")
    array = np.empty(len(values), object)
    array[:] = values
    return Tensor(name, "BYTES", array.reshape(shape))


def from_values(name: str, datatype: str, shape: tuple[int, ...], values: Any) -> Tensor:
    """A tensor of `shape` from numbers in nested or flat lists, row by row. Error: request-invalid."""
    # As objects, texts are not padded to the longest, and nothing else is made of the values either.
    flat = np.array(values, object).ravel()
    return from_slices(name, datatype, shape, flat.size, (flat.tolist(),))


def from_slices(
    name: str, datatype: str, shape: tuple[int, ...], count: int, slices: Iterable[Sequence[Any]]
) -> Tensor:
    """A tensor of `shape` from `count` numbers, which come row by row in short lists. Error: request-invalid.

    Other threads run between the lists.
    """
    remedy = f"Give {math.prod(shape)} values of {datatype}, row by row, or the tensor's bytes."
    if count != math.prod(shape):
        raise bad_request(f"The data of '{name}' do not fit {datatype} {list(shape)}.", remedy)
    dtype = np.dtype(DTYPES[datatype])
    kinds = {"b": "b", "u": "iu", "i": "iu", "f": "fiu"}[dtype.kind]
    array, place = np.empty(count, dtype), 0
    for part in slices:
        if not set(map(type, part)) <= {int, float, bool}:
            raise bad_request(f"The data of '{name}' are not numbers.", remedy)
        numbers = np.array(part)
        if numbers.size and (numbers.dtype.kind not in kinds or place + numbers.size > count):
            raise bad_request(f"The data of '{name}' do not fit {datatype} {list(shape)}.", remedy)
        if dtype.kind in "ui" and numbers.size:
            limits = np.iinfo(dtype)
            if int(numbers.min()) < limits.min or int(numbers.max()) > limits.max:
                raise bad_request(f"A value of '{name}' is outside of {datatype}.", remedy)
        array[place : place + numbers.size] = numbers
        place += numbers.size
    if place != count:
        raise bad_request(f"The data of '{name}' do not fit {datatype} {list(shape)}.", remedy)
    return Tensor(name, datatype, array.reshape(shape))


def to_bytes(tensor: Tensor) -> bytes:
    """The binary form of a tensor of numbers, little-endian. Raises nothing."""
    return np.ascontiguousarray(tensor.array, tensor.array.dtype.newbyteorder("<")).tobytes()


def _split(name: str, data: memoryview, count: int) -> list[bytes]:
    values: list[bytes] = []
    place = 0
    while place < len(data):
        # This is checked before each element, so that a wrong length ends the loop.
        if len(values) == count or place + 4 > len(data):
            raise bad_request(f"'{name}' has data beyond its {count} elements.", "Send exactly the tensor's data.")
        (size,) = struct.unpack_from("<I", data, place)
        place += 4
        if place + size > len(data):
            raise bad_request(f"An element of '{name}' ends before its length.", "Send exactly the tensor's data.")
        values.append(bytes(data[place : place + size]))
        place += size
    return values
