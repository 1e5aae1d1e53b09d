"""Reads .npz archives of arrays that may be damaged or made to do harm: every fault is a ValueError.

`numpy.load` reserves what a header claims before it looks at the data, and lets errors of zlib and zipfile through.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_ENTRIES = 65536
_ENCRYPTED = 1
# The header of an array, as `numpy.save` writes it for arrays of plain types.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(data: bytes, most: int) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz archive by name, read-only. Pickled objects are refused.

    data: the content of the file.
    most: the largest number of bytes that all arrays may have together, unpacked.
    Error: ValueError, for what is no archive of arrays, is damaged, or unpacks to more than `most` bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {info.filename.removesuffix(".npy"): _array(archive, info) for info in _entries(archive, most)}
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError) as error:
        raise ValueError(f"the archive is damaged ({error})") from error


def _entries(archive: zipfile.ZipFile, most: int) -> list[zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > _MOST_ENTRIES or len({info.filename for info in infos}) < len(infos):
        raise ValueError("the archive has too many entries, or one twice")
    for info in infos:
        packed = info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if packed or info.flag_bits & _ENCRYPTED or not info.filename.endswith(".npy"):
            raise ValueError("the archive has an entry that is no array, or is packed in another way")
    if sum(info.file_size for info in infos) > most:
        raise ValueError(f"the archive unpacks to more than {most:,} bytes")
    return infos


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """The array of an entry, whose checksum was compared."""
    with archive.open(info) as entry:
        data = entry.read()
    if len(data) != info.file_size:
        raise ValueError("an array is shorter than the archive says")
    stream = io.BytesIO(data)
    read_header = _HEADERS.get(np.lib.format.read_magic(stream))
    if read_header is None:
        raise ValueError("an array has a header of an unknown version")
    try:
        shape, by_columns, dtype = read_header(stream)
    except Exception as error:
        # NumPy passes on what Python's tokenizer and parser say of the header.
        raise ValueError("an array's header cannot be read") from error
    at = stream.tell()
    if dtype.hasobject or any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(data) - at:
        raise ValueError("an array holds Python objects, or other data than its header says")
    return np.frombuffer(data, dtype, offset=at).reshape(shape, order="F" if by_columns else "C")
