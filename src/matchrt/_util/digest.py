"""Content digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from matchrt._util.reading import open_regular

_CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Hex sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path, most: int | None = None) -> str:
    """Hex sha256 of a file, read in pieces. Raises OSError if it cannot be read.

    most: bytes from its start that count, a multiple of 1 MiB; None for all.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while (most is None or stream.tell() < most) and (chunk := stream.read(_CHUNK)):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
