"""Files that are no checkpoint: the message says what each of them is, and what to do."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import CommandLine

from matchrt.errors import MatchRTError
from matchrt.export.weights.read import read_checkpoint

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0af629\nsize 183871234\n"
INDEX = {
    "metadata": {"total_size": 9},
    "weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"},
}


def _write(data: bytes | str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data.encode() if isinstance(data, str) else data)


def _zip(*names: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"x")

    return write


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        file.add(__file__, "tensors")


def _script(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def _program(path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), path)


# By the file's name: how it is written, words of the message, words of the remedy.
FILES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "pointer.ckpt": (_write(POINTER), "pointer of Git LFS, not the file of 183.9 MB", "git lfs pull"),
    "model.safetensors.index.json": (
        _write(json.dumps(INDEX)), "which of 2 files holds which tensor (model-1-of-2.safetensors, ", "Join them"),
    "one.index.json": (_write('{"weight_map": {"a": "all.bin"}}'), "names all.bin, where all tensors are", "that file"),
    "spaced.index.json": (_write("\ufeff\n" + json.dumps(INDEX)), "which of 2 files", "Join"),
    "config.json": (_write('{"hidden_size": 768}'), "text in JSON", ".safetensors"),
    "deep.json": (_write('{"a":' * 100_000), "text in JSON", ".safetensors"),
    "x.npz": (lambda path: np.savez(path, a=np.ones(3)), "NumPy archive (.npz)", "convert-flax FILE --back"),
    "x.npy": (lambda path: np.save(path, np.ones(3)), "single NumPy array", ".safetensors"),
    "x.h5": (_write(b"\x89HDF\r\n\x1a\n" + b"\0" * 99), "HDF5", ".safetensors"),
    "x.onnx": (_write(b"\x08\x0a\x12\x07pytorch" + b"x" * 99), "ONNX file", "matchrt build"),
    "x.engine": (_write(b"ftrt" + b"\0" * 99), "engine of TensorRT", ".safetensors"),
    "x.ckpt.gz": (lambda path: path.write_bytes(gzip.compress(b"x" * 99)), "gzip", "Unpack"),
    "x.ckpt.bz2": (lambda path: path.write_bytes(bz2.compress(b"x" * 99)), "bzip2", "Unpack"),
    "x.ckpt.xz": (lambda path: path.write_bytes(lzma.compress(b"x" * 99)), "xz", "Unpack"),
    "x.tar": (_tar, "tar archive", "Unpack"),
    "page.ckpt": (_write("\n <!DOCTYPE html><html><title>Google Drive - Quota exceeded"), "web page", "browser"),
    "page.pth": (_write("<html><head>"), "web page", "browser"),
    "zeros.ckpt": (_write(b"\0" * 4096), "begins with zeros", "again"),
    "empty.ckpt": (_write(b""), "empty (0 bytes)", "again"),
    "text.ckpt": (_write("hello, I am a text"), "neither", "again"),
    "x.zip": (_zip("weights/outdoor_ds.ckpt", "weights/indoor_ds.ckpt"), "holds weights/outdoor_ds.ckpt", "Unpack"),
    "x.docx": (_zip("word/document.xml"), "zip archive of something else: word/document.xml", "weights"),
    "none.zip": (_zip(), "empty zip archive", "again"),
    "script.pt": (_script, "TorchScript", "torch.jit.load"),
    "program.pt2": (_program, "program of torch.export", "torch.export.load"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_message_says_what_the_file_is(tmp_path: Path, name: str) -> None:
    write, what, remedy = FILES[name]
    write(tmp_path / name)
    with pytest.raises(MatchRTError) as caught:
        read_checkpoint(tmp_path / name)
    assert caught.value.code == "checkpoint-format"
    assert what in caught.value.message and remedy in caught.value.remedy


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def _folder(path: Path) -> None:
    path.mkdir()


def _linked_pipe(path: Path) -> None:
    os.mkfifo(path.with_suffix(".pipe"))
    path.symlink_to(path.with_suffix(".pipe"))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


NO_FILES = {"a pipe": _pipe, "a socket": _socket, "a folder": _folder, "a device": _device}


@pytest.mark.parametrize("kind", [*NO_FILES, "a linked pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    path = Path("x.ckpt")
    NO_FILES.get(kind, _linked_pipe)(path)
    with pytest.raises(MatchRTError) as caught:
        read_checkpoint(path)
    assert caught.value.code == "checkpoint-missing" and kind.replace("linked ", "") in caught.value.message


@pytest.mark.parametrize(
    "command",
    [
        ("build", "loftr-lite", "--checkpoint", "PIPE"),
        ("build", "roma-outdoor", "--checkpoint", "GOOD", "--dinov2", "PIPE"),
        ("diagnose", "PIPE", "--model", "loftr-lite"),
        ("diagnose", "GOOD", "--model", "roma-outdoor", "--second-file", "PIPE"),
        ("inspect", "PIPE"),
        ("convert-flax", "PIPE", "--output", "OUT.npz"),
        ("convert-flax", "PIPE", "--back", "--output", "OUT.ckpt"),
        ("verify", "--flax", "loftr-lite", "--checkpoint", "PIPE"),
    ],
)
def test_no_command_waits_for_a_pipe(cli: CommandLine, tmp_path: Path, command: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / "pipe")
    torch.save({"a": torch.ones(1)}, tmp_path / "good.pt")
    places = {"PIPE": tmp_path / "pipe", "GOOD": tmp_path / "good.pt", "OUT.npz": tmp_path / "o.npz",
              "OUT.ckpt": tmp_path / "o.ckpt"}  # fmt: skip
    # Whoever opens the pipe for reading would wait for this writer for ever; it ends the test instead.
    waits = threading.Timer(60, lambda: os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK))
    waits.start()
    try:
        code = "inspect-missing" if command[0] == "inspect" else "checkpoint-missing"
        cli.fails(code, *(places.get(argument, argument) for argument in command))
    finally:
        waits.cancel()


@pytest.mark.parametrize("path", ["/proc/self/mem", "/proc/kmsg", "/proc/self/environ", "/proc/self/pagemap"])
def test_files_that_are_no_files(path: str) -> None:
    if not Path(path).exists():
        pytest.skip("this system has no such file")
    with pytest.raises(MatchRTError) as caught:
        read_checkpoint(Path(path))
    assert caught.value.code in ("checkpoint-missing", "checkpoint-format")


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    for path in (tmp_path / "none.ckpt", Path("a\0b"), tmp_path / ("x" * 300), Path(__file__) / "below"):
        with pytest.raises(MatchRTError) as caught:
            read_checkpoint(path)
        assert caught.value.code == "checkpoint-missing"
