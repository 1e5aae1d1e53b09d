"""torch's format before version 1.6: five pickles one behind the other, then the bytes of the storages.

The pickles are a magic number, the version, facts about the machine, the objects, and the keys of the storages in the
order of their bytes. Each storage begins with its number of elements. There are no checksums.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from matchrt.export.weights.files.buffers import Bytes, read_bytes
from matchrt.export.weights.files.inert import Aside
from matchrt.export.weights.files.pickled import unpickle
from matchrt.export.weights.files.problems import DamagedError, foreign
from matchrt.export.weights.files.records import StorageRecord

MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001


class Legacy:
    """A file in the old format.

    objects: what it holds; None if it names what no checkpoint has a use for.
    big_endian: False.
    """

    def __init__(self, stream: BinaryIO, path: Path, aside: Aside) -> None:
        """Reads the pickles. Errors: checkpoint-format, if torch did not write it. Raises DamagedError, UnsafeError."""
        self.big_endian = False  # torch writes this format little-endian on every machine
        self.objects: Any = None
        self._stream = stream
        self._size = os.fstat(stream.fileno()).st_size
        self._path = path
        self._storages: dict[str, StorageRecord] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._read: dict[str, Bytes] = {}
        stream.seek(0)
        first = self._next(aside)
        if aside.refused:
            return
        if first != MAGIC:
            self._refuse_plain()
        version, facts = self._next(aside), self._next(aside)
        if version != _VERSION or not isinstance(facts, dict):
            raise DamagedError("it does not have the version of torch's old format")
        self.objects = self._next(aside)
        self._find(self._next(aside))

    def _next(self, aside: Aside) -> Any:
        return unpickle(self._stream, self._size, aside, self._storages)

    def _refuse_plain(self) -> None:
        raise foreign(
            self._path,
            "is a plain pickle, which torch.save did not write",
            "If you trust it, load it where it was made, and save its state dict with torch.save.",
        )

    def _find(self, keys: Any) -> None:
        """Where each storage is. Raises DamagedError if the file does not hold all of them."""
        if (
            not isinstance(keys, list)
            or not all(isinstance(key, str) for key in keys)
            or sorted(keys) != sorted(self._storages)
        ):
            raise DamagedError("its list of storages is not that of its tensors")
        place = self._stream.tell()
        for key in keys:
            record = self._storages[key]
            self._stream.seek(place)
            head = self._stream.read(8)
            if len(head) < 8 or place + 8 + record.bytes > self._size:
                raise DamagedError("its storages are cut short")
            (number,) = struct.unpack("<q", head)
            if number * record.step != record.bytes:
                raise DamagedError("a storage does not have the size that its tensors state")
            self._places[key] = (place + 8, record.bytes)
            place += 8 + record.bytes

    def storage(self, storage: StorageRecord) -> Bytes:
        """The bytes of a storage, which is read once. Raises DamagedError."""
        key = storage.key
        start, length = self._places[key]
        if key not in self._read:
            data = read_bytes(self._stream, start, length)
            if data is None:
                raise DamagedError("its storages are cut short")
            self._read[key] = data
        return self._read[key]
