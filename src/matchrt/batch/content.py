"""A digest of what an output holds, so that two runs can be compared: equal digests, equal content.

Files of one content may differ in their bytes (free pages, order of groups, a library's version). The digest is sha256
over a canonical form instead:

| file           | canonical form                                                                                  |
| -------------- | ----------------------------------------------------------------------------------------------- |
| HDF5           | every dataset by its path: path, type, shape, bytes; in the order of paths                      |
| SQLite, COLMAP | every table by its name: all rows, sorted; every column's type and value                        |
| Parquet        | every row as JSON with sorted keys, in order                                                    |
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from matchrt.batch.hloc import require_h5py
from matchrt.batch.output import COLMAP, HDF5, PARQUET
from matchrt.batch.parquet import require_pyarrow
from matchrt.errors import MatchRTError


def content_digest(paths: Iterable[Path]) -> str:
    """Hex sha256 of files' content, by their suffixes, in the order given. Error: output-format."""
    readers = {**dict.fromkeys(HDF5, _hdf5), **dict.fromkeys(COLMAP, _sqlite), **dict.fromkeys(PARQUET, _parquet)}
    digest = hashlib.sha256()
    for path in paths:
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise MatchRTError("output-format", f"'{path}' is of no known kind.", f"Use one of {', '.join(readers)}.")
        for part in reader(path):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def _hdf5(path: Path) -> Iterator[bytes]:
    h5py = require_h5py()
    with h5py.File(path, "r") as file:
        yield from _datasets(h5py, file)


def _datasets(h5py: Any, group: Any) -> Iterator[bytes]:
    for name in sorted(group):
        entry = group[name]
        if isinstance(entry, h5py.Group):
            yield from _datasets(h5py, entry)
            continue
        values = entry[()]
        yield f"{entry.name} {values.dtype.str} {values.shape}".encode()
        yield values.tobytes()


def _sqlite(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
        tables = base.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        for (table,) in tables.fetchall():
            yield str(table).encode()
            columns = [row[1] for row in base.execute(f'PRAGMA table_info("{table}")')]
            order = ", ".join(f'"{column}"' for column in columns)
            for row in base.execute(f'SELECT {order} FROM "{table}" ORDER BY {order}'):
                yield repr(row).encode()


def _parquet(path: Path) -> Iterator[bytes]:
    arrow = require_pyarrow()
    with arrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield json.dumps(row, sort_keys=True).encode()
