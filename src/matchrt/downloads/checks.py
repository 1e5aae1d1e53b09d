"""Whether a file that came is the file that was published."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from matchrt._util.reading import open_regular
from matchrt.downloads.failures import AddressError
from matchrt.families.published import PublishedFile

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Facts:
    """What a file is.

    bytes: size.
    sha256: hex digest.
    """

    bytes: int
    sha256: str


def check(path: Path, file: PublishedFile, expected: str | None) -> Facts:
    """Reads the file and compares it with all that is known of it.

    expected: the sha256 that it must have; None if nobody knows it. Then its size, its MD5 and its form are compared,
        as far as they are known. Raises `AddressError` if it is another file, and OSError if it cannot be read.
    """
    size, sha256, md5 = _digests(path, file.md5 is not None)
    if file.bytes is not None and size != file.bytes:
        raise AddressError("digest", f"has {size} bytes, and {file.bytes} were published")
    if expected is not None and sha256 != expected:
        raise AddressError("digest", f"has sha256 {sha256}, and it should be {expected}")
    if file.md5 is not None and md5 != file.md5:
        raise AddressError("digest", f"has MD5 {md5}, and it should be {file.md5}")
    if expected is None and (lack := _lack(path)) is not None:
        raise AddressError("digest", f"holds no whole file of weights: {lack}")
    return Facts(size, sha256)


def _digests(path: Path, with_md5: bool) -> tuple[int, str, str | None]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False) if with_md5 else None
    size = 0
    with open_regular(path) as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            sha256.update(chunk)
            if md5 is not None:
                md5.update(chunk)
    return size, sha256.hexdigest(), None if md5 is None else md5.hexdigest()


def _lack(path: Path) -> str | None:
    """What shows that the file is no whole file of weights; None if nothing does. Its suffix does not count."""
    size = path.stat().st_size
    with open_regular(path) as stream:
        head = stream.read(9)
        if head[:4] == b"PK\x03\x04":
            return None if zipfile.is_zipfile(path) else "its end is missing"
        if head[8:9] == b"{":
            return _lack_of_safetensors(head[8:] + stream.read(), int.from_bytes(head[:8], "little"), size)
    # PyTorch's older files end with their last tensor, which does not say that it is the last.
    return None if head[:1] == b"\x80" else f"it begins with {head[:8]!r}"


def _lack_of_safetensors(text: bytes, length: int, size: int) -> str | None:
    try:
        header = json.loads(text[:length])
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "its header cannot be read"
    return None if size == 8 + length + max(ends, default=0) else "its end is missing"
