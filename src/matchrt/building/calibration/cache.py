"""A cache of measured ranges on disk. Its keys are made of all that decides them: graph, pixels, method and tensors."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy.typing as npt

from matchrt._util import atomic
from matchrt._util.digest import sha256_file, sha256_json
from matchrt._util.reading import read_regular
from matchrt._util.strict_json import read_json
from matchrt._version import __version__
from matchrt.bench.pairs import JudgedPair
from matchrt.errors import MatchRTError
from matchrt.store import EngineStore

Ranges = dict[str, tuple[float, float]]


def pixels_digest(inputs: Iterable[Mapping[str, npt.NDArray[Any]]]) -> str:
    """Hex sha256 of the arrays that the engine gets, which does not depend on the files that they came from."""
    digest = sha256()
    for arrays in inputs:
        for name in sorted(arrays):
            digest.update(f"{name}{arrays[name].dtype}{arrays[name].shape}".encode())
            digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def pairs_digest(pairs: Iterable[JudgedPair]) -> str:
    """Hex sha256 of pairs as given: of files the bytes, of arrays the shape and values. Error: image-missing."""
    digest = sha256()
    for pair in pairs:
        for image in (pair.image0, pair.image1):
            digest.update(_image_bytes(image))
    return digest.hexdigest()


def _image_bytes(image: Any) -> bytes:
    if not isinstance(image, Path):
        return f"{image.shape}".encode() + bytes(image.tobytes())
    try:
        return sha256_file(image).encode()
    except OSError as error:
        raise MatchRTError("image-missing", f"Cannot read '{image}': {error.strerror}.", "Check the path.") from error


def ranges_key(onnx_sha256: str, pixels: str, method: str, tensors: Sequence[str]) -> str:
    """The key of an entry: a hex sha256.

    onnx_sha256: digest of the graph. pixels: that of `pixels_digest`. method: how ranges are measured. tensors: names.
    """
    return sha256_json(
        {"matchrt": __version__, "onnx": onnx_sha256, "pixels": pixels, "method": method, "tensors": sorted(tensors)}
    )


def read_ranges(store: EngineStore, key: str, tensors: Sequence[str]) -> Ranges | None:
    """The (lowest, highest) value of each of `tensors`; None if the entry is missing or damaged."""
    try:
        raw = read_json(read_regular(_path(store, key)))
        found = {str(name): (float(low), float(high)) for name, (low, high) in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    good = set(found) == set(tensors) and all(math.isfinite(v) for pair in found.values() for v in pair)
    return found if good else None


def write_ranges(store: EngineStore, key: str, ranges: Ranges) -> None:
    """Writes an entry. If the store cannot be written, nothing is kept, and the next build measures again."""
    path = _path(store, key)
    with contextlib.suppress(OSError, MatchRTError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(ranges) + "\n")


def _path(store: EngineStore, key: str) -> Path:
    return store.root / ".calibration" / f"{key[:32]}.json"
