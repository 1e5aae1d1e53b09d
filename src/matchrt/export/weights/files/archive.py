"""torch's zip archives. The standard library reads the directory; records are read here, straight into arrays.

torch stores records as they are, one behind the other. Each record that is used is compared with its CRC-32.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from matchrt.export.weights.files.buffers import Bytes, new_bytes, read_bytes
from matchrt.export.weights.files.problems import DamagedError, UnsafeError, foreign, listed
from matchrt.export.weights.files.records import StorageRecord

_LOCAL = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1
# A program may hold as many bytes of directory in memory, and a few times more for what is made of it.
_LARGEST_DIRECTORY = 64 << 20
# Weights can hardly be compressed, and pickles to a tenth.
_RATIO = 16
_FREE = 16 << 20
_CHUNK = 1 << 20


class Archive:
    """A zip archive of torch.save.

    entries: its records by name below the archive's folder.
    big_endian: whether it was written on a machine of that byte order.
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        """Reads the directory and nothing else.

        Errors: checkpoint-format, if it is an archive of another kind. Raises DamagedError and UnsafeError.
        """
        self._stream = stream
        self._size = os.fstat(stream.fileno()).st_size
        self._zip, infos = _directory(stream)
        self._ends = _require_apart(infos, self._size)
        names = {info.filename: info for info in infos}
        if len(names) != len(infos):
            raise DamagedError("its archive has two records of one name")
        folder = _folder(list(names), path)
        self.entries = {name[len(folder) :]: info for name, info in names.items() if name.startswith(folder)}
        self._left = _RATIO * self._size + _FREE
        self._read: dict[str, Bytes] = {}
        self.big_endian = self._is_big_endian()

    def pickle(self) -> bytes:
        """The pickle of the objects. Raises DamagedError and UnsafeError."""
        return self.record("data.pkl").tobytes()

    def storage(self, storage: StorageRecord) -> Bytes:
        """The bytes of a storage, which is read once. Raises DamagedError and UnsafeError."""
        key, name = storage.key, f"data/{storage.key}"
        if name not in self.entries or self.entries[name].file_size != storage.bytes:
            raise DamagedError(f"its record {name} is missing or has another size than its tensors")
        if key not in self._read:
            self._read[key] = self.record(name)
        return self._read[key]

    def record(self, name: str) -> Bytes:
        """The bytes of a record, whose CRC is checked. Raises DamagedError and UnsafeError."""
        info = self.entries.get(name)
        if info is None:
            raise DamagedError(f"its record {name} is missing")
        if info.flag_bits & _ENCRYPTED:
            raise DamagedError(f"its record {name} is encrypted")
        if info.compress_type == zipfile.ZIP_STORED:
            return self._stored(info)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            return self._deflated(info)
        raise DamagedError(f"its record {name} is compressed in a way that torch never uses")

    def _stored(self, info: zipfile.ZipInfo) -> Bytes:
        self._stream.seek(info.header_offset)
        header = self._stream.read(_LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04" or info.compress_size != info.file_size:
            raise DamagedError(f"its record {info.filename} is not where the directory says")
        *_, name_length, extra_length = _LOCAL.unpack(header)
        start = info.header_offset + _LOCAL.size + name_length + extra_length
        if start + info.file_size > self._ends[info.filename]:
            raise DamagedError(f"its record {info.filename} reaches into the next one")
        data = read_bytes(self._stream, start, info.file_size)
        if data is None:
            raise DamagedError(f"its record {info.filename} is cut short")
        if zlib.crc32(data.data) != info.CRC:
            raise DamagedError(f"its record {info.filename} does not have the checksum that the archive states")
        return data

    def _deflated(self, info: zipfile.ZipInfo) -> Bytes:
        """A record of an archive that somebody packed again. torch itself compresses nothing."""
        self._left -= info.file_size
        if self._left < 0:
            raise UnsafeError(f"would unpack to more than {_RATIO} times its size ({info.filename})")
        data = new_bytes(info.file_size)
        try:
            with self._zip.open(info) as packed:
                for start in range(0, len(data), _CHUNK):
                    piece = packed.read(min(_CHUNK, len(data) - start))
                    data[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
                    if len(piece) < min(_CHUNK, len(data) - start):
                        raise EOFError("cut short")
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise DamagedError(f"its record {info.filename} cannot be unpacked ({error})") from error
        return data

    def _is_big_endian(self) -> bool:
        if "byteorder" not in self.entries:
            return False
        order = self.record("byteorder").tobytes()
        if order not in (b"little", b"big"):
            raise DamagedError("its record byteorder is neither little nor big")
        return order == b"big"


class _Directory(io.RawIOBase):
    """The file as zipfile sees it, which reads the whole directory at once, however large it claims to be."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, number: int = -1) -> bytes:
        if number > _LARGEST_DIRECTORY:
            raise UnsafeError("has a directory of more than 64 MB, which no checkpoint needs")
        return self._stream.read(number)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True


def _directory(stream: BinaryIO) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    try:
        archive = zipfile.ZipFile(_Directory(stream))
    except (DamagedError, UnsafeError):
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError, IndexError, OSError, struct.error) as error:
        raise DamagedError("the directory at the end of its archive cannot be read") from error
    return archive, archive.infolist()


def _require_apart(infos: list[zipfile.ZipInfo], size: int) -> dict[str, int]:
    """Where each record must end at the latest. Raises DamagedError if records overlap or reach beyond the file."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    ends = [info.header_offset for info in ordered[1:]] + [size]
    for info, end in zip(ordered, ends, strict=True):
        if info.header_offset < 0 or info.header_offset + _LOCAL.size + info.compress_size > end:
            raise DamagedError(f"its record {info.filename} reaches into the next one, or beyond the file")
    return {info.filename: end for info, end in zip(ordered, ends, strict=True)}


def _folder(names: list[str], path: Path) -> str:
    """The folder in the archive that holds `data.pkl`. Error: checkpoint-format, if it is no archive of torch.save."""
    folders = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(folders) > 1:
        raise DamagedError("its archive holds several checkpoints")
    if not folders:
        _refuse_archive(names, path)
    if any(name.startswith((f"{folders[0]}code/", f"{folders[0]}constants.pkl")) for name in names):
        raise foreign(
            path,
            "is a TorchScript program (torch.jit.save), not a state dict",
            f"If you trust it, write its weights to a file: torch.save(torch.jit.load('{path}').state_dict(), "
            "'weights.pt'); then name that file.",
        )
    return folders[0]


def _refuse_archive(names: list[str], path: Path) -> NoReturn:
    """Raises checkpoint-format, which says what the archive is."""
    ends = {name.rpartition("/")[2] for name in names}
    if {"archive_format", "archive_version"} & ends or "serialized_exported_program.json" in ends:
        raise foreign(
            path,
            "is a program of torch.export, not a state dict",
            f"If you trust it, write its weights to a file: torch.save(dict(torch.export.load('{path}').state_dict), "
            "'weights.pt'); then name that file.",
        )
    if names and all(name.endswith(".npy") for name in names):
        raise foreign(
            path,
            "is a NumPy archive (.npz), which says nothing about the layout of its weights",
            "If `matchrt convert-flax` wrote it, turn it back: matchrt convert-flax FILE --back --output "
            "weights.safetensors. Otherwise write its arrays with safetensors.numpy.save_file.",
        )
    inside = [name for name in names if name.endswith((".ckpt", ".pth", ".pt", ".safetensors", ".bin"))]
    if inside:
        raise foreign(path, f"is a zip archive that holds {listed(inside)}", "Unpack it, and name the file inside.")
    raise foreign(
        path, f"is a zip archive of something else: {listed(names) or 'it is empty'}", "Name the file of the weights."
    )
