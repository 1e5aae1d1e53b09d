"""Files of torch.save, in the format of today and in the old one."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from matchrt.export.weights.files.archive import Archive
from matchrt.export.weights.files.inert import Aside, PutAside
from matchrt.export.weights.files.legacy import Legacy
from matchrt.export.weights.files.pickled import unpickle
from matchrt.export.weights.files.problems import DamagedError, UnsafeError, listed, truncated, unsafe
from matchrt.export.weights.files.stored import Source, StoredTensor, read_tensors
from matchrt.export.weights.files.unwrap import Unwrapped, unwrap

Opened = tuple[Any, Source]


def read_archive(
    stream: BinaryIO, path: Path, averaged: bool = False
) -> tuple[dict[str, StoredTensor], Unwrapped, tuple[PutAside, ...]]:
    """Reads a zip archive of torch.save. Results and errors are those of `read_old`."""

    def opened(aside: Aside) -> Opened:
        archive = Archive(stream, path)
        data = archive.pickle()
        return unpickle(io.BytesIO(data), len(data), aside, {}), archive

    return _read(opened, path, averaged)


def read_old(
    stream: BinaryIO, path: Path, averaged: bool = False
) -> tuple[dict[str, StoredTensor], Unwrapped, tuple[PutAside, ...]]:
    """Reads a file in torch's old format: the tensors, where they were found, and what was put aside.

    averaged: as in `unwrap`. Errors: checkpoint-truncated, checkpoint-unsafe, checkpoint-format, checkpoint-empty,
    checkpoint-tensor.
    """

    def opened(aside: Aside) -> Opened:
        file = Legacy(stream, path, aside)
        return file.objects, file

    return _read(opened, path, averaged)


def _read(
    opened: Callable[[Aside], Opened], path: Path, averaged: bool
) -> tuple[dict[str, StoredTensor], Unwrapped, tuple[PutAside, ...]]:
    aside = Aside()
    try:
        objects, source = opened(aside)
        _require_harmless(aside, path)
        found = unwrap(objects, path, averaged)
        return read_tensors(found.tensors, source, path), found, aside.listed()
    except DamagedError as error:
        # A file that names what runs code may well be broken behind it.
        _require_harmless(aside, path)
        raise truncated(path, str(error)) from error
    except UnsafeError as error:
        raise unsafe(path, str(error)) from error


def _require_harmless(aside: Aside, path: Path) -> None:
    if aside.refused:
        raise unsafe(path, f"names {listed(aside.refused)}, which would run code when it is unpickled by others")
