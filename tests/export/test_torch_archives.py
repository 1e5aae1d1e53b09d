"""torch's zip archives that are damaged, packed again, or made to deceive."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.pickles import archive, saved, state, tensor
from support.training_files import small_state

from matchrt.errors import MatchRTError
from matchrt.export.weights.read import digest_tensors, read_checkpoint

GOOD = state({"a": tensor("0", (4,), (1,))})


def _error(path: Path) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        read_checkpoint(path)
    assert path.name in caught.value.message and len(caught.value.message) < 600
    return caught.value


def _again(data: bytes, change: Callable[[zipfile.ZipInfo, bytes], tuple[str, bytes]], how: int) -> bytes:
    """The archive, written again with other names, contents or compression."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w", how) as new:
        for info in old.infolist():
            new.writestr(*change(info, old.read(info)))
    return made.getvalue()


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_that_was_packed_again_is_read(tmp_path: Path, how: int) -> None:
    (tmp_path / "x.pt").write_bytes(_again(saved(small_state()), lambda info, data: (info.filename, data), how))
    assert read_checkpoint(tmp_path / "x.pt").tensors_sha256 == digest_tensors(small_state())


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path: Path, how: int) -> None:
    (tmp_path / "x.pt").write_bytes(_again(saved(small_state()), lambda info, data: (info.filename, data), how))
    assert _error(tmp_path / "x.pt").code == "checkpoint-truncated"


@pytest.mark.parametrize(("record", "size"), [("data.pkl", 1 << 27), ("data/0", 1 << 30), ("byteorder", 1 << 27)])
def test_a_deflated_gigabyte_is_refused_before_it_is_unpacked(tmp_path: Path, record: str, size: int) -> None:
    path = tmp_path / "x.pt"
    pickled = state({"a": tensor("0", (size // 4,), (1,), number=size // 4)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, data in {"data.pkl": pickled, "byteorder": b"little", "data/0": b"1234"}.items():
            with file.open(f"archive/{name}", "w", force_zip64=True) as entry:
                for _ in range(size >> 20) if name == record else ():
                    entry.write(b"\0" * (1 << 20))
                if name != record:
                    entry.write(data)
    assert path.stat().st_size < 6_000_000
    tracemalloc.start()
    try:
        assert _error(path).code == "checkpoint-unsafe"
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("offset", [0, 1, 17])
def test_one_flipped_bit_of_a_weight_is_seen(tmp_path: Path, offset: int) -> None:
    data = bytearray(saved({"a": torch.arange(100.0)}))
    place = data.index(torch.arange(100.0).numpy().tobytes())
    data[place + offset] ^= 0x10
    (tmp_path / "x.pt").write_bytes(data)
    error = _error(tmp_path / "x.pt")
    assert error.code == "checkpoint-truncated" and "checksum" in error.message


def test_a_flipped_bit_of_what_is_not_read_is_no_matter(tmp_path: Path) -> None:
    moments = torch.arange(1000.0, 1100.0)
    data = bytearray(saved({"state_dict": {"a": torch.ones(3)}, "optimizer": moments}))
    data[data.index(moments.numpy().tobytes()) + 1] ^= 1
    (tmp_path / "x.pt").write_bytes(data)
    assert read_checkpoint(tmp_path / "x.pt").tensors["a"].tolist() == [1, 1, 1]


def _central(data: bytearray, name: bytes) -> int:
    """Where the directory's entry of a record begins."""
    return data.rindex(name) - 46


def _overlapping(data: bytearray) -> None:
    """Two records at one place."""
    first, second = _central(data, b"archive/data/0"), _central(data, b"archive/data/1")
    data[second + 42 : second + 46] = data[first + 42 : first + 46]


def _longer(data: bytearray) -> None:
    place = _central(data, b"archive/data/0")
    data[place + 20 : place + 28] = struct.pack("<II", 1 << 31, 1 << 31)


def _elsewhere(data: bytearray) -> None:
    place = _central(data, b"archive/data/0")
    data[place + 42 : place + 46] = struct.pack("<I", 1)


def _beyond(data: bytearray) -> None:
    place = _central(data, b"archive/data/0")
    data[place + 42 : place + 46] = struct.pack("<I", 1 << 30)


def _of_two_sizes(data: bytearray) -> None:
    place = _central(data, b"archive/data/0")
    data[place + 24 : place + 28] = struct.pack("<I", 1 << 30)


def _encrypted(data: bytearray) -> None:
    place = _central(data, b"archive/data.pkl")
    data[place + 8] |= 1


def _long_extra(data: bytearray) -> None:
    place = data.index(b"archive/data/0") - 30
    data[place + 28 : place + 30] = struct.pack("<H", 60_000)


def _many_entries(data: bytearray) -> None:
    place = data.rindex(b"PK\5\6")
    data[place + 12 : place + 16] = struct.pack("<I", 0x7FFFFFFF)


@pytest.mark.parametrize(
    "change",
    [_overlapping, _longer, _elsewhere, _beyond, _of_two_sizes, _encrypted, _long_extra, _many_entries],
)
def test_directories_that_lie(tmp_path: Path, change: Callable[[bytearray], None]) -> None:
    pickled = state({"a": tensor("0", (4,), (1,)), "b": tensor("1", (4,), (1,))})
    path = archive(tmp_path / "x.pt", pickled, {"0": b"\1" * 16, "1": b"\2" * 16})
    assert len(read_checkpoint(path).tensors) == 2
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    assert _error(path).code in ("checkpoint-truncated", "checkpoint-unsafe")


def test_two_records_of_one_name(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", GOOD)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("archive/data/0", b"\0" * 16)
    assert "two records of one name" in _error(path).message


def test_two_checkpoints_in_one_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", GOOD)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/data.pkl", GOOD)
    assert _error(path).code == "checkpoint-truncated"


def test_a_byte_order_that_does_not_exist(tmp_path: Path) -> None:
    assert _error(archive(tmp_path / "x.pt", GOOD, byteorder=b"middle")).code == "checkpoint-truncated"
    assert read_checkpoint(archive(tmp_path / "x.pt", GOOD, byteorder=b"little")).tensors["a"].tolist() == [1, 2, 3, 4]


def test_a_large_archive_has_64_bit_sizes(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in {"data.pkl": GOOD, "data/0": struct.pack("<4f", 1, 2, 3, 4)}.items():
            with file.open(f"archive/{name}", "w", force_zip64=True) as entry:
                entry.write(data)
    assert read_checkpoint(path).tensors["a"].tolist() == [1, 2, 3, 4]


def test_bytes_before_the_archive(tmp_path: Path) -> None:
    """zipfile forgives them, and torch does not; neither does the first look at the file."""
    path = archive(tmp_path / "x.pt", GOOD)
    path.write_bytes(b"garbage" + path.read_bytes())
    assert _error(path).code == "checkpoint-format"
