"""Tensors as a file stores them: NumPy arrays with torch's names of types."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from matchrt._util.memory import available_bytes
from matchrt.errors import MatchRTError
from matchrt.export.weights.files.buffers import Bytes
from matchrt.export.weights.files.elements import Element
from matchrt.export.weights.files.problems import UnsafeError, listed, shown
from matchrt.export.weights.files.records import OddTensor, StorageRecord, TensorRecord

_BFLOAT16_EXPONENT = 0x7F80
# Tied weights are views of one storage. More views than that would be work without end for a small file.
_MOST_VIEWS = 16

# A tensor's key, torch's name of its type, its shape, and its values in the right order, as any type.
Entry = tuple[str, str, tuple[int, ...], np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file.

    element: type of its elements.
    values: of that type and the tensor's shape; bfloat16 as the bits of each value.
    """

    element: Element
    values: np.ndarray[Any, np.dtype[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        """In elements."""
        return tuple(self.values.shape)

    def is_finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        if self.element.name == "bfloat16":
            return not bool(((self.values & _BFLOAT16_EXPONENT) == _BFLOAT16_EXPONENT).any())
        return self.values.dtype.kind not in "fc" or bool(np.isfinite(self.values).all())


class Source(Protocol):
    """Where the bytes of storages come from."""

    big_endian: bool

    def storage(self, storage: StorageRecord) -> Bytes:
        """The bytes of one storage."""
        ...


def read_tensors(
    records: Mapping[str, TensorRecord | OddTensor], source: Source, path: Path
) -> dict[str, StoredTensor]:
    """Reads the values of tensors, and of no others.

    Errors: checkpoint-tensor, if one of them is not dense or reaches beyond its storage; checkpoint-memory. No values
    are read then. Raises UnsafeError, if they are views of far less than their values; and what the source raises.
    """
    tensors: dict[str, TensorRecord] = {}
    odd: dict[str, list[str]] = {}
    for key, record in records.items():
        problem = record.why if isinstance(record, OddTensor) else record.problem
        if isinstance(record, TensorRecord) and not problem:
            tensors[key] = record
        else:
            odd.setdefault(problem, []).append(key)
    if odd:
        told = "; ".join(f"{listed(keys, 3)} ({shown(why)})" for why, keys in list(odd.items())[:3])
        raise MatchRTError(
            "checkpoint-tensor",
            f"'{path}' holds {sum(map(len, odd.values()))} tensors that are no dense weights: {told}.",
            "Save ordinary dense weights.",
        )
    stored = sum({record.storage.key: record.storage.bytes for record in tensors.values() if record.elements}.values())
    if sum(record.elements * record.element.bytes for record in tensors.values()) > _MOST_VIEWS * stored:
        raise UnsafeError(f"has tensors of more than {_MOST_VIEWS} times the values that it holds")
    _require_memory(stored, path)
    return {key: StoredTensor(record.element, _values(record, source)) for key, record in tensors.items()}


def _require_memory(needed: int, path: Path) -> None:
    """Raises `checkpoint-memory` if so many bytes do not fit into memory. A sparse file can be larger than any disk."""
    available = available_bytes()
    # What is larger than the file is a lie of the file, which its source will name.
    if available is not None and available < needed <= path.stat().st_size:
        raise MatchRTError(
            "checkpoint-memory",
            f"The tensors of '{path}' take {needed / 1e9:,.1f} GB; {available / 1e9:,.1f} GB of memory are free.",
            "Check that it is the right file, or use a machine with more memory.",
        )


def _values(record: TensorRecord, source: Source) -> np.ndarray[Any, np.dtype[Any]]:
    step = record.element.bytes
    kind = record.element.array.newbyteorder(">" if source.big_endian else "<")
    values: np.ndarray[Any, np.dtype[Any]]
    if record.elements:
        strides = tuple(stride * step for stride in record.stride)
        values = np.ndarray(record.shape, kind, source.storage(record.storage).data, record.offset * step, strides)
    else:
        values = np.empty(record.shape, kind)
    return values.astype(kind.newbyteorder("="), copy=False)


def require_finite(tensors: Mapping[str, StoredTensor], path: Path) -> None:
    """Raises `checkpoint-nonfinite` if a value is NaN or infinite."""
    bad = [key for key, tensor in tensors.items() if not tensor.is_finite()]
    if bad:
        raise MatchRTError(
            "checkpoint-nonfinite",
            f"'{path}' holds NaN or infinity in {len(bad)} tensors: {listed(bad)}.",
            "The training diverged or the file is damaged; use another checkpoint.",
        )


def digest(tensors: Iterable[Entry]) -> str:
    """sha256 over key, type, shape and little-endian bytes of every tensor, in the order of the keys.

    Raises nothing.
    """
    made = hashlib.sha256()
    for key, kind, shape, values in sorted(tensors, key=lambda tensor: tensor[0]):
        made.update(f"{key}\0torch.{kind}\0{shape}\0".encode())
        made.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return made.hexdigest()
