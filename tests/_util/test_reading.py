"""Files that are no files, text of strangers, and JSON and archives that do harm."""

from __future__ import annotations

import io
import os
import socket
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchrt._util.atomic import require_writable, why_unwritable, write_bytes
from matchrt._util.npz import read_npz
from matchrt._util.reading import NotRegularError, TooLargeError, is_regular, open_regular, read_regular
from matchrt._util.strict_json import read_json
from matchrt._util.text import is_printable, printable, printable_lines, shortened, shown
from matchrt.errors import MatchRTError

unix = pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices are files of Unix")


@unix
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to_pipe").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        begun = time.perf_counter()
        for name, kind in (("pipe", "a pipe"), ("to_pipe", "a pipe"), ("socket", "a socket"), (".", "a folder")):
            with pytest.raises(NotRegularError) as caught:
                open_regular(tmp_path / name)
            assert caught.value.kind == kind and caught.value.strerror == f"it is {kind}, not a file"
        for device in ("/dev/zero", "/dev/null", "/dev/stdin"):
            if not is_regular(device):
                with pytest.raises(NotRegularError):
                    read_regular(device)
        assert time.perf_counter() - begun < 1
    for odd in ("missing", "a" * 5000, "a\0b"):
        with pytest.raises(OSError):
            open_regular(tmp_path / odd)
        assert not is_regular(tmp_path / odd)


def test_a_file_larger_than_its_reader_takes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    assert len(read_regular(tmp_path / "file", 100)) == 100
    with pytest.raises(TooLargeError):
        read_regular(tmp_path / "file", 99)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("café 日本 🦊 a-b", "café 日本 🦊 a-b"), ("a\nb\tc", "a\\nb\\tc"), ("\x1b[31m", "\\x1b[31m"),
        ("\x7f\x9b", "\\x7f\\x9b"), ("\u202egnp", "\\u202egnp"), ("\u2066\u2069", "\\u2066\\u2069"),
        ("caf\udce9.png", "caf\\xe9.png"), ("\ud800", "\\ud800"), ("\u2028", "\\u2028"), ("\ufeff", "\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)  # fmt: skip
def test_what_moves_a_cursor_or_hides_is_told(text: str, told: str) -> None:
    assert printable(text) == told and is_printable(text) == (text == told)
    printable(text).encode("utf-8")
    assert printable_lines(text) == "\n".join(map(printable, text.split("\n")))


def test_values_in_messages_are_short() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a list" and shown({}) == "an object" and shown("a\n") == "'a\\n'"
    assert len(shown("x" * 10**6)) < 120 and len(shown(10**400)) < 60 and len(shortened("x" * 10**6)) < 60
    while deep:  # Python's own way to free it is recursive
        deep = deep.pop()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "NaN", "[Infinity]", "-Infinity", "1e400", "1" * 400, "{",
     "", "[1,]", b"\xff"],
)  # fmt: skip
def test_json_that_does_harm(text: Any) -> None:
    with pytest.raises(ValueError):
        read_json(text)


def test_json_with_a_key_twice() -> None:
    text = '{"a": {"b": 1, "b": 2}}'
    assert read_json(text) == {"a": {"b": 2}}
    with pytest.raises(ValueError, match="twice"):
        read_json(text, unique_keys=True)


def packed(arrays: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, data in arrays.items():
            archive.writestr(name, data)
    return stream.getvalue()


def saved(array: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def test_archives_of_numpy_are_read() -> None:
    stream = io.BytesIO()
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array("text"), "c": np.zeros((0, 2)),
              "d": np.asfortranarray(np.arange(6).reshape(2, 3)), "e": np.array(True)}  # fmt: skip
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    found = read_npz(stream.getvalue(), 1 << 20)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(found[name], array) and found[name].dtype == array.dtype


def test_archives_that_do_harm() -> None:
    good = packed({"a.npy": saved(np.arange(1000))})
    claim = saved(np.zeros(4, np.uint8)).replace(b"(4,)", b"(1" + b"0" * 12 + b",)")
    harmful = [
        b"", b"PK\x03\x04", good[:-30], good[: len(good) // 2], good[:60] + b"\x07" + good[61:],
        packed({"a.npy": saved(np.array([{}, []], object))}), packed({"a.txt": b"x"}), packed({"a.npy": b"no array"}),
        packed({"a.npy": saved(1)}, zipfile.ZIP_BZIP2), packed({"a.npy": claim}),
        packed({"a.npy": saved(np.zeros(4)).replace(b"'<f8'", b"((('")}), packed({"a.npy": bytes(1 << 24)}),
    ]  # fmt: skip
    for data in harmful:
        with pytest.raises(ValueError):
            read_npz(data, 1 << 23)
    for at in range(0, len(good), 7):  # every kind of damage is a ValueError, or is seen by no reader
        data = good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]
        try:
            read_npz(data, 1 << 23)
        except ValueError:
            continue


@unix
def test_writability_is_tried_and_not_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    assert why_unwritable(tmp_path) is None and why_unwritable(tmp_path / "new" / "er") is None
    for odd in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "pipe", tmp_path / ("a" * 5000)):
        assert why_unwritable(odd) is not None, odd
    if Path("/proc/self").exists():
        assert why_unwritable(Path("/proc/new")) is not None, "root may write there, and the system does not take it"
    for target in (
        tmp_path,
        tmp_path / "pipe",
        tmp_path / "file" / "below",
        tmp_path / ("a" * 5000),
        Path("/dev/full"),
    ):
        with pytest.raises(MatchRTError) as caught:
            require_writable(target)
        assert caught.value.code == "output-unwritable"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]


def test_names_as_long_as_names_can_be(tmp_path: Path) -> None:
    for name in ("n" * 251 + ".npz", "é" * 120 + ".npz", "n." + "s" * 250):
        write_bytes(tmp_path / name, b"data")
        assert (tmp_path / name).read_bytes() == b"data"
    assert len(list(tmp_path.iterdir())) == 3
