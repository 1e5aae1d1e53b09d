"""Pickles and torch archives written by hand, as an attacker writes them."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch


def text(value: str) -> bytes:
    """An opcode that pushes a text."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def named(module: str, name: str) -> bytes:
    """An opcode that pushes a class or function."""
    return f"c{module}\n{name}\n".encode()


def storage(key: str, number: int, kind: str = "FloatStorage") -> bytes:
    """Opcodes that push a storage."""
    return b"(" + text("storage") + named("torch", kind) + text(key) + text("cpu") + _number(number) + b"tQ"


def tensor(
    key: str,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int = 0,
    number: int = 4,
    kind: str = "FloatStorage",
) -> bytes:
    """Opcodes that push a tensor of a storage."""
    sizes = b"".join(b"(" + b"".join(map(_number, side)) + b"t" for side in (shape, stride))
    hooks = named("collections", "OrderedDict") + b")R"
    return (
        named("torch._utils", "_rebuild_tensor_v2") + b"(" + storage(key, number, kind) + _number(offset) + sizes
        + b"\x89" + hooks + b"tR"
    )  # fmt: skip


def state(entries: dict[str, bytes]) -> bytes:
    """A whole pickle of a dict of these entries."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u."


def archive(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, **records: bytes) -> Path:
    """A torch archive of a pickle and storages. A storage of four floats, "0", is there unless others are given."""
    with zipfile.ZipFile(path, "w") as file:
        given = {"0": struct.pack("<4f", 1, 2, 3, 4)} if storages is None else storages
        entries = {"data.pkl": pickled, "byteorder": b"little", "version": b"3\n", **records}
        for name, data in {**entries, **{f"data/{key}": data for key, data in given.items()}}.items():
            file.writestr(f"archive/{name}", data)
    return path


def saved(value: Any, **how: Any) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(value, stream, **how)
    return stream.getvalue()


def _number(value: int) -> bytes:
    if 0 <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = pickle.encode_long(value)
    return bytes([0x8A, len(data)]) + data
