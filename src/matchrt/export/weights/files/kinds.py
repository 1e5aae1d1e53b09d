"""Recognises a file by its first bytes, and says what a file is that holds no weights to read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, BinaryIO, Literal

from matchrt._util.strict_json import read_json
from matchrt.errors import MatchRTError
from matchrt.export.weights.files.problems import foreign, listed

Format = Literal["torch", "torch-legacy", "safetensors"]

_HEAD = 512
_LARGEST_HEADER = 1 << 40  # eight characters of a text make a larger number
_LARGEST_TEXT = 64 << 20
_OLD = (b"\x80", b"L1195470371460388013333")  # a pickle; in protocols 0 and 1 it begins with torch's magic number
_POINTER = b"version https://git-lfs"
_UNPACK = "Unpack it, and name the file inside."
_WEIGHTS = "Name the .ckpt, .pth, .pt or .safetensors file."
# First bytes, what a file is that begins with them, and what to do.
_OTHERS = (
    (b"\x1f\x8b", "is packed with gzip", _UNPACK),
    (b"BZh", "is packed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "is packed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "is packed with zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", _UNPACK),
    (b"Rar!", "is a RAR archive", _UNPACK),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file (.h5, as Keras writes them), not a checkpoint of PyTorch", _WEIGHTS),
    (b"\x93NUMPY", "is a single NumPy array (.npy)", _WEIGHTS),
    (b"GGUF", "is a GGUF file, whose weights are for llama.cpp", _WEIGHTS),
    (b"ftrt", "is an engine of TensorRT; an engine cannot be turned back into weights", _WEIGHTS),
    (b"%PDF", "is a PDF document", "Download the weights themselves. " + _WEIGHTS),
    (b"PK\x05\x06", "is an empty zip archive", "Download or copy it again."),
)


def recognise(stream: BinaryIO, path: Path) -> Format:
    """The format by the first bytes; the name does not count. Error: checkpoint-format, which says what the file is."""
    head = stream.read(_HEAD) or b""  # a file of /proc may have nothing to say yet
    size = os.fstat(stream.fileno()).st_size
    if head[:4] == b"PK\x03\x04":
        return "torch"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _LARGEST_HEADER:
        return "safetensors"
    if head.startswith(_OLD):
        return "torch-legacy"
    raise _other(stream, head, size, path)


def _other(stream: BinaryIO, head: bytes, size: int, path: Path) -> MatchRTError:
    """The error for a file of another kind."""
    if head.startswith(_POINTER):
        return _pointer(head, path)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        stream.seek(0)
        return _json(stream.read(min(size, _LARGEST_TEXT)), path)
    for first, what, remedy in _OTHERS:
        if head.startswith(first):
            return foreign(path, what, remedy)
    return foreign(path, *_described(head, text, path))


def _described(head: bytes, text: bytes, path: Path) -> tuple[str, str]:
    """What a file is, and what to do. text: its head without what may precede a text."""
    if not head.strip(b"\0"):
        what = "begins with zeros: its download was broken off" if head else "is empty (0 bytes)"
        return what, "Download or copy it again."
    if head[257:262] == b"ustar":
        return (
            "is a tar archive",
            f"{_UNPACK} A checkpoint that torch wrote before 0.1.10: load and save it with torch.",
        )
    if re.match(rb"<(!doctype|html|head|body|\?xml|!--)", text, re.IGNORECASE):
        what = "is a web page, not a file of weights: a download went to a page of its publisher"
        return what, "Open the address in a browser, and download the file itself."
    if head[:1] == b"\x08" and path.suffix.lower() == ".onnx":
        return "is an ONNX file, not a checkpoint", f"`matchrt build FILE.onnx` takes engines of matchrt. {_WEIGHTS}"
    what = f"is neither a PyTorch checkpoint nor a safetensors file (it begins with {head[:8]!r})"
    return what, "Name the .ckpt, .pth, .pt or .safetensors file; if it was downloaded, download it again."


def _pointer(head: bytes, path: Path) -> MatchRTError:
    size = re.search(rb"^size (\d{1,15})$", head, re.MULTILINE)
    told = f" of {int(size[1]) / 1e6:,.1f} MB" if size else ""
    return foreign(
        path,
        f"is a pointer of Git LFS, not the file{told} that it stands for",
        "Run `git lfs install` and `git lfs pull` in its repository, or download the file from the repository's page.",
    )


def _json(text: bytes, path: Path) -> MatchRTError:
    try:
        value: Any = read_json(text)
    except ValueError:
        value = None
    shards = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(shards, dict):
        return foreign(path, "is a text in JSON, not a file of weights", _WEIGHTS)
    files = sorted({str(name) for name in shards.values()})
    if len(files) == 1:
        return foreign(path, f"is an index that names {listed(files)}, where all tensors are", "Name that file.")
    return foreign(
        path,
        f"is an index: it says which of {len(files)} files holds which tensor ({listed(files)}), and holds none itself",
        "matchrt reads one file. Join them: load each with safetensors.torch.load_file (or torch.load), put all "
        "tensors into one dict, and write it with safetensors.torch.save_file.",
    )
