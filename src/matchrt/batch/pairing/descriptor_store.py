"""Descriptors of images that were computed already, in one SQLite file, so that a run goes on where it was.

A row has the digest of the image's file and of what made the descriptor: another picture under the same name, another
engine or other options are computed again. A damaged row is, too. Descriptors are kept in half precision.

Errors: journal-busy, journal-format, journal-failed, journal-damaged (see `journal`), output-unwritable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from matchrt.batch.journal_errors import Named, sqlite_errors
from matchrt.batch.results import ImageFacts
from matchrt.batch.seals import seal
from matchrt.batch.sqlite_file import FileKind, open_sqlite

_NAMED = Named("file of descriptors", "--descriptors (in match-many another --output)", "describe the images")
_TABLES = (
    """CREATE TABLE descriptors (name BLOB PRIMARY KEY, made_by TEXT NOT NULL, facts TEXT NOT NULL,
    data BLOB NOT NULL, seal BLOB NOT NULL)""",
    "CREATE TABLE words (made_by TEXT PRIMARY KEY, count INTEGER NOT NULL, data BLOB NOT NULL, seal BLOB NOT NULL)",
)
# The mark is "mrtd".
_KIND = FileKind(0x6D727464, 1, _TABLES, _NAMED)

Float32Array = npt.NDArray[np.float32]
Described = tuple[ImageFacts, Float32Array]


class DescriptorStore:
    """An open file of descriptors, for one process and one thread at a time."""

    def __init__(self, path: Path, made_by: str) -> None:
        """Opens the file, or makes an empty one. made_by: digest of the engine and options. Errors: the module's."""
        self._path, self._made_by = path, made_by
        self._base = open_sqlite(path, _KIND)

    def find(self, name: str) -> Described | None:
        """What was stored for an image by the same engine and options; None if nothing was, or it is damaged."""
        key = _key(name)
        with sqlite_errors(self._path, _NAMED):
            row = self._base.execute(
                "SELECT facts, data, seal FROM descriptors WHERE name = ? AND made_by = ?", (key, self._made_by)
            ).fetchone()
        if row is None or row[2] != seal(key, self._made_by, row[0], row[1]):
            return None
        return ImageFacts(*json.loads(row[0])), np.frombuffer(row[1], "<f2").astype(np.float32)

    def words(self) -> Float32Array | None:
        """The vocabulary of the same engine and options, float32 [K, C]; None if there is none, or it is damaged."""
        with sqlite_errors(self._path, _NAMED):
            row = self._base.execute("SELECT * FROM words WHERE made_by = ?", (self._made_by,)).fetchone()
        if row is None or row[3] != seal(*row[:3]):
            return None
        return np.frombuffer(row[2], "<f4").reshape(row[1], -1)

    def put_words(self, words: Float32Array) -> None:
        """Stores the vocabulary [K, C] and drops the descriptors, which were made of another one."""
        row = self._made_by, len(words), words.astype("<f4").tobytes()
        with sqlite_errors(self._path, _NAMED):
            self._base.execute("BEGIN IMMEDIATE")
            self._base.execute("DELETE FROM descriptors WHERE made_by = ?", (self._made_by,))
            self._base.execute("INSERT OR REPLACE INTO words VALUES (?, ?, ?, ?)", (*row, seal(*row)))
            self._base.execute("COMMIT")

    def put(self, rows: Iterable[tuple[str, Described]]) -> None:
        """Stores all of the descriptors or none of them."""
        with sqlite_errors(self._path, _NAMED):
            self._base.execute("BEGIN IMMEDIATE")
            for name, (facts, descriptor) in rows:
                key, text, data = _key(name), json.dumps(astuple(facts)), descriptor.astype("<f2").tobytes()
                check = seal(key, self._made_by, text, data)
                values = (key, self._made_by, text, data, check)
                self._base.execute("INSERT OR REPLACE INTO descriptors VALUES (?, ?, ?, ?, ?)", values)
            self._base.execute("COMMIT")

    def __enter__(self) -> DescriptorStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with sqlite_errors(self._path, _NAMED):
            self._base.close()


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
