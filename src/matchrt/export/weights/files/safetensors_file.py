"""Files of safetensors. Its own package checks the header; the values are read here, without torch."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

from matchrt._util.strict_json import read_json
from matchrt.errors import missing_package
from matchrt.export.weights.files.buffers import Bytes, read_bytes
from matchrt.export.weights.files.elements import ELEMENTS, SAFETENSORS
from matchrt.export.weights.files.problems import DamagedError, truncated
from matchrt.export.weights.files.records import OddTensor, StorageRecord, TensorRecord
from matchrt.export.weights.files.stored import StoredTensor, read_tensors


def read_safetensors(stream: BinaryIO, path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors and the metadata. Errors: checkpoint-truncated, checkpoint-tensor, package-missing."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise missing_package("safetensors", "export", "Reading .safetensors") from error
    try:
        with safe_open(path, framework="np") as file:  # it compares every size in the header with the file
            keys = list(file.keys())
        header, start = _header(stream)
        source = _File(stream, start)
        records = {key: source.record(key, header[key]) for key in keys}
        return read_tensors(records, source, path), dict(header.get("__metadata__") or {})
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise truncated(path, str(error) or type(error).__name__) from error


def _header(stream: BinaryIO) -> tuple[dict[str, Any], int]:
    """The header, and where the values begin."""
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    if length > os.fstat(stream.fileno()).st_size - 8:
        raise DamagedError("its header is longer than the file")
    return read_json(stream.read(length)), 8 + length


class _File:
    """The values of the tensors, each of which is a storage of its own."""

    big_endian = False

    def __init__(self, stream: BinaryIO, start: int) -> None:
        self._stream = stream
        self._start = start
        self._offsets: dict[str, int] = {}

    def record(self, key: str, entry: dict[str, Any]) -> TensorRecord | OddTensor:
        """The tensor that an entry of the header describes."""
        first, end = entry["data_offsets"]
        name = SAFETENSORS.get(entry["dtype"])
        if name is None:
            return OddTensor(f"of {entry['dtype']}")
        element, shape = ELEMENTS[name], tuple(entry["shape"])
        self._offsets[key] = first
        storage = StorageRecord(key, element, (end - first) // element.bytes, element.bytes)
        stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return TensorRecord(storage, element, 0, shape, stride)

    def storage(self, storage: StorageRecord) -> Bytes:
        """The bytes of one tensor. Raises DamagedError."""
        data = read_bytes(self._stream, self._start + self._offsets[storage.key], storage.bytes)
        if data is None:
            raise DamagedError("its values are cut short")
        return data
