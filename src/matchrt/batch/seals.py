"""Checksums of the journal's rows: a row that a failing disk or a stray write has changed is noticed."""

from __future__ import annotations

import hashlib
import sqlite3

_BYTES = 8


def seal(*values: str | int | bytes) -> bytes:
    """The checksum of a row's values, 8 bytes. It covers the row's key too, so that a row under another key is bad."""
    digest = hashlib.blake2b(digest_size=_BYTES)
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def list_seal(base: sqlite3.Connection) -> str:
    """The checksum of all images' names and of all pairs, hex, by which a lost or changed pair is noticed."""
    digest = hashlib.blake2b(digest_size=16)
    for query in ("SELECT id, name FROM images ORDER BY id", "SELECT id, first, second FROM pairs ORDER BY id"):
        for row in base.execute(query):
            digest.update(repr(row).encode("ascii", "backslashreplace"))  # damage may have changed types, too
    return digest.hexdigest()
