"""Reads checkpoints safely: tensors by key and nothing else, whatever the wrapper.

The files of torch.save (`.ckpt/.pth/.pt`) and `.safetensors` are read by `files/`, which needs no torch, imports
nothing that a file names and runs nothing of it. The format is recognised by the file's first bytes, not by its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from matchrt._util.digest import sha256_file
from matchrt.errors import MatchRTError, missing_package
from matchrt.export.weights.files.inert import PutAside
from matchrt.export.weights.files.kinds import Format, recognise
from matchrt.export.weights.files.opening import open_regular
from matchrt.export.weights.files.problems import unreadable
from matchrt.export.weights.files.safetensors_file import read_safetensors
from matchrt.export.weights.files.stored import Entry, StoredTensor, digest, require_finite
from matchrt.export.weights.files.torch_file import read_archive, read_old
from matchrt.export.weights.files.unwrap import Unwrapped

if TYPE_CHECKING:
    import torch


class Shaped(Protocol):
    """A tensor of torch, or one as a file stores it."""

    @property
    def shape(self) -> Sequence[int]:
        """In elements."""
        ...


AnyTensor = TypeVar("AnyTensor", bound=Shaped)


@dataclass(frozen=True)
class CheckpointOf(Generic[AnyTensor]):
    """What a file holds, before anything is assumed about it.

    path: of the file.
    format: `torch`, `torch-legacy` or `safetensors`.
    tensors: by the file's own keys.
    wrapper: the entry that the tensors were found under; None if they are at the top.
    ignored: the other entries.
    metadata: of a safetensors file; else empty.
    tensors_sha256: digest of keys, types, shapes and bytes; it is the same for the same weights in another file or
        format.
    put_aside: objects of foreign classes that the file holds besides, and of which nothing was made.
    averaged: whether the entry holds a running average of weights, which was asked for.
    """

    path: Path
    format: Format
    tensors: Mapping[str, AnyTensor]
    wrapper: str | None
    ignored: tuple[str, ...]
    metadata: Mapping[str, str]
    tensors_sha256: str
    put_aside: tuple[PutAside, ...] = ()
    averaged: bool = False

    @property
    def file_sha256(self) -> str:
        """Digest of the file, which is read again for it. Raises OSError if it is gone."""
        return sha256_file(self.path)

    @property
    def elements(self) -> int:
        """The number of values in all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


class StoredCheckpoint(CheckpointOf[StoredTensor]):
    """A checkpoint with NumPy arrays. It needs no torch."""


class Checkpoint(CheckpointOf["torch.Tensor"]):
    """A checkpoint with tensors of torch."""


def read_stored(path: Path, averaged: bool = False) -> StoredCheckpoint:
    """Reads a checkpoint file without torch.

    averaged: whether to take the entry that holds a running average of the weights, if there is one.
    Errors: checkpoint-missing, checkpoint-format (a file of another kind), checkpoint-truncated, checkpoint-unsafe (it
    names what runs code, or asks for memory out of proportion), checkpoint-empty (no tensors), checkpoint-tensor
    (sparse, quantized or empty ones), checkpoint-memory, checkpoint-nonfinite, package-missing.
    """
    metadata: dict[str, str] = {}
    found, put_aside = Unwrapped({}, None, ()), tuple[PutAside, ...]()
    try:
        with open_regular(path) as stream:
            kind = recognise(stream, path)
            if kind == "safetensors":
                tensors, metadata = read_safetensors(stream, path)
            else:
                tensors, found, put_aside = (read_archive if kind == "torch" else read_old)(stream, path, averaged)
    except OSError as error:
        raise unreadable(path, f"cannot be read: {error.strerror}", "Check the disk, or copy it again.") from error
    if not tensors:
        raise MatchRTError(
            "checkpoint-empty", f"'{path}' holds no tensors.", "Check that it is the network's checkpoint."
        )
    require_finite(tensors, path)
    sha256 = digest((key, tensor.element.name, tensor.shape, tensor.values) for key, tensor in tensors.items())
    return StoredCheckpoint(
        path, kind, tensors, found.wrapper, found.ignored, metadata, sha256, put_aside, found.averaged
    )


def to_torch(stored: StoredCheckpoint) -> Checkpoint:
    """The same with tensors of torch, which share the arrays' memory. Error: package-missing."""
    tensors = {key: _tensor(tensor) for key, tensor in stored.tensors.items()}
    return Checkpoint(**{**vars(stored), "tensors": tensors})


def read_checkpoint(path: Path, averaged: bool = False) -> Checkpoint:
    """Reads a checkpoint file into tensors of torch. averaged, errors: as of `read_stored`."""
    return to_torch(read_stored(path, averaged))


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over key, type, shape and little-endian bytes of every tensor, in the order of the keys.

    Raises nothing.
    """
    import torch

    def entry(key: str, tensor: torch.Tensor) -> Entry:
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        return key, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data

    return digest(entry(key, tensor) for key, tensor in tensors.items())


def _tensor(tensor: StoredTensor) -> torch.Tensor:
    try:
        import torch
    except ImportError as error:
        raise missing_package("torch", "export", "Reading checkpoints into tensors") from error
    if tensor.element.name == "bfloat16":
        return torch.from_numpy(tensor.values.view("i2")).view(torch.bfloat16)
    return torch.from_numpy(tensor.values)
