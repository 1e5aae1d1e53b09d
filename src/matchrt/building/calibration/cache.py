"""Measured ranges on disk, keyed by everything that decides them: the graph, the pixels, the method."""

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
from matchrt._version import __version__
from matchrt.bench.pairs import JudgedPair
from matchrt.errors import MatchRTError
from matchrt.store import EngineStore

Ranges = dict[str, tuple[float, float]]


def pixels_digest(inputs: Iterable[Mapping[str, npt.NDArray[Any]]]) -> str:
    """Digest of what the engine gets to see, whatever files it came from."""
    digest = sha256()
    for arrays in inputs:
        for name in sorted(arrays):
            digest.update(f"{name}{arrays[name].dtype}{arrays[name].shape}".encode())
            digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def pairs_digest(pairs: Iterable[JudgedPair]) -> str:
    """Digest of pairs as they were given: files by their bytes. Errors: image-missing."""
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
    """The name of an entry."""
    return sha256_json(
        {"matchrt": __version__, "onnx": onnx_sha256, "pixels": pixels, "method": method, "tensors": sorted(tensors)}
    )


def read_ranges(store: EngineStore, key: str, tensors: Sequence[str]) -> Ranges | None:
    """The entry; None where there is none, or one that is damaged."""
    try:
        raw = json.loads(_path(store, key).read_text(encoding="utf-8"))
        found = {str(name): (float(low), float(high)) for name, (low, high) in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    good = set(found) == set(tensors) and all(math.isfinite(v) for pair in found.values() for v in pair)
    return found if good else None


def write_ranges(store: EngineStore, key: str, ranges: Ranges) -> None:
    """Keeps an entry; a store that cannot be written keeps nothing, which costs time only."""
    path = _path(store, key)
    with contextlib.suppress(OSError, MatchRTError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(ranges) + "\n")


def _path(store: EngineStore, key: str) -> Path:
    return store.root / ".calibration" / f"{key[:32]}.json"
